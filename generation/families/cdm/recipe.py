"""What a recipe of CDM says beside what those of Improved DDPM say."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from generation.families.openai_unet.recipe import OpenAIRecipe, OpenAIStage


class CDMStage(OpenAIStage):
    """augmentation, of parents while the stage is trained: noise, Gaussian, of a level even up to
    `max_augmentation`, a share of all steps, which the network is told; blur, Gaussian, of half of
    the images; none.
    """

    augmentation: Literal["none", "noise", "blur"] = "none"
    max_augmentation: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _parents_are_augmented(self) -> Self:
        if self.augmentation != "none" and self.low_resolution is None:
            raise ValueError("augmentation is of parents: a base stage has none")
        if self.augmentation != "noise" and self.max_augmentation != 1:
            raise ValueError('max_augmentation goes with augmentation = "noise"')
        return self


class CDMRecipe(OpenAIRecipe):
    """A base stage, or one that enlarges parents of `low_resolution`."""

    stage: CDMStage
