"""What the recipe of a class-conditional denoising network says, and what its checkpoint is."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import ScheduleConfig
from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe
from release.errors import UserError

NULL_CLASS = ""  # what a network is told of an image whose class was dropped; the last it knows


class Table(BaseModel):
    """A table of a recipe: its names are checked, its values stay."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DenoiserStage(Table):
    """The stage to train: its images, and how they become noise.

    channels: 1 for grey images, 3 for colour; left out, what the data has. low_resolution: side of
    the parent images of a super-resolution stage. conditioning: class, the network is told each
    image's class; none, nothing.
    """

    resolution: Annotated[int, Field(gt=0)]
    channels: Literal[1, 3] | None = None
    low_resolution: Annotated[int, Field(gt=0)] | None = None
    prediction: Prediction = "v"
    schedule: ScheduleConfig = ScheduleConfig()
    conditioning: Literal["class", "none"] = "class"

    def task(self) -> dict[str, Any]:
        """What decides what a network is asked for."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _parents_are_smaller(self) -> Self:
        if self.low_resolution is not None and self.low_resolution >= self.resolution:
            raise ValueError(
                f"low_resolution {self.low_resolution} is not below resolution {self.resolution}"
            )
        return self


class DenoiserTraining(TrainingConfig):
    """How it is trained, beside what every training says.

    class_dropout: share of images that see the null class (classifier-free guidance). flip: mirror
    half of the images.
    """

    class_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = False


class DenoiserRecipe(TrainingRecipe):
    """A family narrows `network` to the tables of its own networks, and `training` where needed."""

    stage: DenoiserStage
    network: Table
    training: DenoiserTraining

    def with_channels(self, channels: int) -> Self:
        """For images of so many channels."""
        stage = self.stage.model_copy(update={"channels": channels})
        return self.model_copy(update={"stage": stage})


@dataclass(frozen=True)
class DenoiserConfig:
    """What a network is and how it was taught to see images: network.json of its checkpoint.

    stage: with its channels. classes: those it knows, each by its prompt, the null one last.
    network: the table of its family that says its shape.
    """

    stage: DenoiserStage
    classes: tuple[str, ...]
    network: Any

    @property
    def channels(self) -> int:
        assert self.stage.channels is not None
        return self.stage.channels

    def indices(self, prompts: list[str]) -> list[int]:
        """What a network is told for images of `prompts`; UserError for a class it lacks."""
        if self.stage.conditioning == "none":
            return [0] * len(prompts)
        known = {prompt: i for i, prompt in enumerate(self.classes)}
        lacking = sorted({prompt for prompt in prompts if prompt not in known})
        if lacking:
            some = ", ".join(repr(prompt) for prompt in self.classes[:12])
            raise UserError(
                f"class {lacking[0]!r} is not among the {len(known) - 1} that the checkpoint "
                f"learned; known: {some}"
            )
        return [known[prompt] for prompt in prompts]


def config_of(recipe: DenoiserRecipe, prompts: tuple[str, ...], channels: int) -> DenoiserConfig:
    """The network of a recipe for classes of `prompts`; `channels` where the recipe names none."""
    stage = recipe.stage.model_copy(update={"channels": recipe.stage.channels or channels})
    told = tuple(dict.fromkeys(prompts)) if stage.conditioning == "class" else ()
    return DenoiserConfig(stage, (*told, NULL_CLASS), recipe.network)


def config_as_json(generator: str, config: DenoiserConfig) -> dict[str, Any]:
    """The content of network.json."""
    return {
        "generator": generator,
        "stage": config.stage.model_dump(mode="json"),
        "classes": list(config.classes),
        "network": config.network.model_dump(mode="json"),
    }


def config_from_json(recipe: type[DenoiserRecipe], content: dict[str, Any]) -> DenoiserConfig:
    """What network.json holds; what pydantic and dict raise where it is of something else."""
    tables: list[Any] = [recipe.model_fields[name].annotation for name in ("stage", "network")]
    stage, network = (TypeAdapter[Any](table) for table in tables)
    return DenoiserConfig(
        stage.validate_python(content["stage"]),
        tuple(content["classes"]),
        network.validate_python(content["network"]),
    )
