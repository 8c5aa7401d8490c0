"""A classifier recipe: all that decides how a classifier is trained, as its author writes it."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from generation.errors import UserError, unknown_name
from generation.timm_classifier import ClassifierModel, Positive

BUILTIN = Path(__file__).parent / "recipes"

Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(BaseModel):
    """What is done to each training batch; the default is nothing.

    shift: pixels up to which an image moves along each axis, `border` filling what is uncovered.
    flip: mirror left to right, one image in two. erasing: probability that a random rectangle is
    replaced by the mean (Zhong et al. 2020). mixup, cutmix: the Beta distribution's parameter
    (Zhang et al. 2018, Yun et al. 2019), 0 for none; with both, each batch gets one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shift: Annotated[int, Field(ge=0)] = 0
    border: Literal["black", "reflect"] = "black"
    flip: bool = False
    erasing: Share = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0


class ClassifierRecipe(ClassifierModel):
    """A classifier and its training.

    description: where the recipe comes from; expected: its real-only accuracy and its cost, as
    measured. warmup: share of all steps in which the learning rate rises. Weight decay spares
    biases and normalisation. ema: decay of the averaged weights, which are then the result; 0
    for none.
    """

    description: str
    expected: str = ""
    epochs: Annotated[float, Field(gt=0)]
    batch: Positive
    optimizer: Literal["sgd", "momentum", "adamw", "lamb"]
    momentum: Share = 0.9
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _check(self) -> "ClassifierRecipe":
        if self.augmentation.shift >= self.resolution:
            raise ValueError(f"augmentation.shift must be less than {self.resolution} pixels")
        return self

    def protocol(self) -> dict[str, Any]:
        """Every setting that decides the result; not what is said about it."""
        return self.model_dump(mode="json", exclude={"name", "description", "expected"})


def recipe_names() -> list[str]:
    """The built-in recipes, sorted."""
    return sorted(path.stem for path in BUILTIN.glob("*.toml"))


def load_recipe(source: str) -> ClassifierRecipe:
    """A built-in recipe by name, or a TOML file; UserError names what is wrong in it."""
    path = Path(source) if source.endswith(".toml") else BUILTIN / f"{source}.toml"
    if not path.is_file():
        if source.endswith(".toml"):
            raise UserError(f"classifier recipe {source} does not exist")
        raise unknown_name("classifier recipe", source, recipe_names())
    try:
        return ClassifierRecipe.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"classifier recipe {path} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise UserError(f"classifier recipe {path}: {where}: {first['msg']}") from None
