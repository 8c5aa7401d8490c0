"""What a recipe of DiT or SiT says beside what those of all denoisers say."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from generation.denoisers.recipe import DenoiserRecipe, DenoiserStage, DenoiserTraining, Table
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


class LatentSpace(Table):
    """What the network sees of an image: latents of `channels` and of `side`.

    The rest follows from the latents it is trained on, and is filled in from them; what the recipe
    names, they must be. autoencoder: its folder, or its name on the Hub; sha256: of its files.
    """

    channels: Count
    side: Count
    autoencoder: str = ""
    sha256: str = ""
    scaling_factor: Annotated[float, Field(gt=0)] | None = None
    shift_factor: float | None = None


class TransformerStage(DenoiserStage):
    """latents: None for a network that sees pixels."""

    latents: LatentSpace | None = None

    @model_validator(mode="after")
    def _starts_from_nothing(self) -> Self:
        if self.low_resolution is not None:
            raise ValueError("low_resolution: this network enlarges no images")
        return self


class DiTStage(TransformerStage):
    """A network that says epsilon and its variance."""

    prediction: Prediction = "epsilon"
    schedule: ScheduleConfig = LINEAR

    @model_validator(mode="after")
    def _says_epsilon(self) -> Self:
        if self.prediction != "epsilon":
            raise ValueError("DiT predicts epsilon: leave prediction out")
        return self


class SiTStage(TransformerStage):
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

    stage: TransformerStage
    network: TransformerShape
    training: TransformerTraining

    @model_validator(mode="after")
    def _patches_divide(self) -> Self:
        latents = self.stage.latents
        side = self.stage.resolution if latents is None else latents.side
        if side % self.network.patch:
            raise ValueError(f"[network] patch {self.network.patch} does not divide {side}")
        return self

    def with_latents(self, latents: LatentSpace) -> Self:
        """With what the latents of its data, or of its start, say of themselves."""
        stage = self.stage.model_copy(update={"latents": latents})
        return self.model_copy(update={"stage": stage})


class DiTRecipe(TransformerRecipe):
    """Of DiT."""

    stage: DiTStage


class SiTRecipe(TransformerRecipe):
    """Of SiT."""

    stage: SiTStage
