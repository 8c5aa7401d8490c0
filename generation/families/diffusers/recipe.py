"""What a training recipe of a text-to-image pipeline says beside what every training recipe says:
its network is fine-tuned by LoRA (Hu et al. 2021), and stays as it was."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe


class LoraStage(BaseModel):
    """resolution: side of the images in px, of those that the start can make."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]


class LoraConfig(BaseModel):
    """What is learned: to each chosen layer W of the start, W + alpha / rank * B A.

    rank: of B A, whose A is drawn from the recipe's seed and whose B begins as zero. targets: the
    ends of the layers' names; left out, those of the start's attention.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class LoraTraining(TrainingConfig):
    """How it is trained.

    caption_dropout: share of images that see the null prompt, the empty text (classifier-free
    guidance). flip: mirror half of the images.
    """

    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = False

    @model_validator(mode="after")
    def _has_little_to_share_out(self) -> Self:
        if self.sharding != "none":
            raise ValueError(
                "sharding: a LoRA has few weights, and what is frozen is not shared out: "
                'leave "none"'
            )
        return self


class LoraRecipe(TrainingRecipe):
    """network: of the start, not to be written: it is filled in. lora: the adapter."""

    stage: LoraStage
    lora: LoraConfig = LoraConfig()
    network: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda shape: not shape)
    training: LoraTraining
