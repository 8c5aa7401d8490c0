"""What a recipe of DiT or SiT says beside what those of all denoisers say."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from generation.denoisers.latents import LatentStage
from generation.denoisers.recipe import DenoiserRecipe, DenoiserTraining, Table
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import ScheduleConfig

Count = Annotated[int, Field(ge=1)]
SIZES = {  # width, depth, heads: table 1 of Peebles & Xie 2023
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}
LINEAR = ScheduleConfig(name="linear")  # 1000 steps, beta from 1e-4 to 0.02


class DiTStage(LatentStage):
    """A network that says epsilon and its variance."""

    prediction: Prediction = "epsilon"
    schedule: ScheduleConfig = LINEAR

    @model_validator(mode="after")
    def _says_epsilon(self) -> Self:
        if self.prediction != "epsilon":
            raise ValueError("DiT predicts epsilon: leave prediction out")
        if self.schedule.input_scale != 1:
            raise ValueError("DiT sees images as they are: leave input_scale out")
        return self


class SiTStage(LatentStage):
    """A network that says the velocity of the linear path, which has no schedule."""

    @model_validator(mode="after")
    def _follows_the_linear_path(self) -> Self:
        if self.prediction != "v" or self.schedule != ScheduleConfig():
            raise ValueError("SiT says a velocity on a linear path: no prediction, no schedule")
        return self


class TransformerShape(Table):
    """patch: side of the patches that become tokens. Either size, one of the paper's (S, B, L, XL),
    or width, depth and heads.
    """

    patch: Count
    size: str | None = None
    width: Count | None = None
    depth: Count | None = None
    heads: Count | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        own = (self.width, self.depth, self.heads)
        if self.size is None and None in own:
            raise ValueError("give size, one of S, B, L, XL, or width, depth and heads")
        if self.size is not None and self.size not in SIZES:
            raise ValueError(f"size {self.size!r}: give one of {', '.join(SIZES)}")
        if self.size is not None and own != (None, None, None):
            raise ValueError("give size, or width, depth and heads, not both")
        return self

    @model_serializer(mode="wrap")
    def _as_it_was_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {name: value for name, value in content.items() if value is not None}

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Width, depth, heads."""
        if self.size is not None:
            return SIZES[self.size]
        return self.width or 0, self.depth or 0, self.heads or 0  # given where size is not


class TransformerTraining(DenoiserTraining):
    """classes_embedding: the start's, for the classes it knows in their order, or a new one for the
    recipe's own classes, drawn from its seed."""

    classes_embedding: Literal["start", "new"] = "start"


class TransformerRecipe(DenoiserRecipe):
    """Of either family."""

    stage: LatentStage
    network: TransformerShape
    training: TransformerTraining

    @model_validator(mode="after")
    def _patches_divide(self) -> Self:
        latents = self.stage.latents
        side = self.stage.resolution if latents is None else latents.side
        if side % self.network.patch:
            raise ValueError(f"[network] patch {self.network.patch} does not divide {side}")
        return self


class DiTRecipe(TransformerRecipe):
    """Of DiT."""

    stage: DiTStage


class SiTRecipe(TransformerRecipe):
    """Of SiT."""

    stage: SiTStage
