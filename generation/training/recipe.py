"""Training recipes: which generator is trained and how, as their author writes them."""

from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from generation.training.config import TrainingConfig

BUILTIN = Path(__file__).parent / "recipes"
FIRST = "pixel-unet"  # the generator of a recipe that names none: of before there was a choice


class TrainingRecipe(BaseModel):
    """What the recipes of all families say; each family adds tables of its own.

    generator: one of those that are trained here. classes: a class list; left out, that of the
    release it is trained on. start: what a training starts from unless --from names another; None
    for nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    classes: str = ""
    generator: str = FIRST
    start: str | None = None
    training: TrainingConfig

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        steps, warmup = self.training.steps, self.training.warmup
        if warmup >= max(2, steps):
            raise ValueError(
                f"training: with warmup = {warmup} the learning rate still rises at the last of "
                f"steps = {steps}: set a warmup of at most {steps // 2}"
            )
        return self

    @model_serializer(mode="wrap")
    def _generator_where_chosen(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record of before, which names none, is that of the same training."""
        content: dict[str, Any] = dump(self)
        if content.get("generator") == FIRST:
            del content["generator"]
        if content.get("start", "") is None:
            del content["start"]
        return content

    def with_classes_of(self, release: str) -> Self:
        """With the class list of a release, where the recipe names none."""
        return self if self.classes else self.model_copy(update={"classes": release})

    def with_training(self, **changes: Any) -> Self:
        """With other training settings."""
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})

    def with_steps(self, steps: int) -> Self:
        """For another number of steps, with half of them as warm-up at most."""
        return self.with_training(steps=steps, warmup=min(self.training.warmup, steps // 2))
