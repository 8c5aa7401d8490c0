"""What a person must know of a stage's model before using it. None of it decides a pixel."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Amount = Annotated[float, Field(gt=0)]


class ModelFacts(BaseModel):
    """A model and its terms. images: what the licence says of distributing produced images.

    left_out: what the published pipeline does to images and is not done here: checkers, watermarks.
    fp8: where its authors publish it in fp8, without which no stage runs so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    license: str
    images: str
    left_out: str = ""
    fp8: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    source: str  # the model's page or paper


class StageCost(BaseModel):
    """What an image of the stage takes, as measured or estimated in `source`.

    memory_gib: device memory of one batch and the networks. seconds: an image, of `hardware`; both
    left out where the arithmetic is counted instead (builder/planning/device_cost.py).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: Annotated[Amount | None, Field(exclude_if=lambda value: value is None)] = None
    hardware: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    memory_gib: Amount
    source: str

    @model_validator(mode="after")
    def _seconds_are_of_a_device(self) -> Self:
        if (self.seconds is None) != (self.hardware is None):
            raise ValueError("seconds are of a device: give seconds and hardware, or neither")
        return self


class PublishedScore(BaseModel):
    """What `source` reports of the model with `settings`, beside what we measure; FID against the
    ImageNet train split on 50,000 images unless `settings` say otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fid: Amount | None = None
    inception_score: Amount | None = None
    settings: str
    source: str
