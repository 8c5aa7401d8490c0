"""What a recipe says of exemplars."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ExemplarRecipe(BaseModel):
    """Real images of each class that a first stage's sampling begins from.

    release: a folder or URL. config: by default the stage's resolution. split: by default fit where
    the release marks tuning images, else train. per_class: of each class, the first by image id.
    strength: share of the sampler's steps that is made; at 1 all are, from an image of which next
    to nothing is left. sha256: of the release's content, refused if another is found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    release: str
    config: str | None = None
    split: Literal["train", "fit"] | None = None
    per_class: Annotated[int, Field(gt=0)]
    strength: Annotated[float, Field(gt=0, le=1)]
    sha256: str | None = None
