"""Training settings, apart from the training so that reading a recipe needs no torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """How a stage is trained.

    optimizer: the paper's is adafactor for a base, adam for super-resolution.
    batch: images an optimiser step sees, over all processes and accumulation steps together.
    learning_rate rises over `warmup` steps, then falls to zero along a half cosine.
    caption_dropout: share of images that see the null prompt or class (classifier-free guidance).
    max_augmentation: a super-resolution stage's augmentation level is uniform up to this.
    keep_every: steps between the averaged checkpoints that stay, to select from; 0 for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=0)] = 64
    accumulation: Annotated[int, Field(gt=0)] = 1
    optimizer: Literal["adafactor", "adam"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 200
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = False
    max_augmentation: Annotated[float, Field(ge=0, lt=1)] = 0.5
    precision: Literal["no", "fp16", "bf16"] = "no"
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 2023
    save_every: Annotated[int, Field(gt=0)] = 500
    keep_every: Annotated[int, Field(ge=0)] = 0
