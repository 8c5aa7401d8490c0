"""What a person must know of a stage's model before using it. None of it decides a pixel."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(gt=0)]


class ModelFacts(BaseModel):
    """A model and its terms. images: what the licence says of distributing produced images.

    left_out: what the published pipeline does to images and is not done here: checkers, watermarks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    license: str
    images: str
    left_out: str = ""
    source: str  # the model's page or paper


class StageCost(BaseModel):
    """What an image of the stage takes on `hardware`, as measured or estimated in `source`.

    seconds: an image, of that device. memory_gib: device memory of one batch and the networks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: Amount
    hardware: str
    memory_gib: Amount
    source: str


class PublishedScore(BaseModel):
    """What `source` reports of the model with `settings`, beside what we measure; FID against the
    ImageNet train split on 50,000 images unless `settings` say otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fid: Amount | None = None
    inception_score: Amount | None = None
    settings: str
    source: str
