"""Keeps an image in whose own class a classifier is confident enough."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from builder.accept import StageFacts, Verdict
from generation.networks.timm_classifier import ClassifierModel, read_classifier
from release.errors import UserError
from release.files.commit import sha256_file

if TYPE_CHECKING:
    from torch import nn


JUDGES_LABELS = True


class Settings(BaseModel):
    """checkpoint: file that `train-classifier --save` wrote. minimum: softmax probability."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Annotated[Path, Field(exclude=True)]
    minimum: Annotated[float, Field(ge=0, le=1)]


def locate(settings: Settings, stage: StageFacts) -> Path:
    """The classifier's file; UserError if its classes or its size of images are not the stage's.

    Without a fitting order of classes, confidence would be measured in another class.
    """
    saved, class_ids = read_classifier(settings.checkpoint)
    if class_ids != stage.class_ids:
        raise UserError(
            f"the classifier {settings.checkpoint} knows {len(class_ids)} classes "
            f"({class_ids[0]} …), not the {len(stage.class_ids)} of the recipe "
            f"({stage.class_ids[0]} …) in their order"
        )
    if saved.resolution != stage.resolution:
        raise UserError(
            f"the classifier {settings.checkpoint} takes {saved.resolution} px images, the stage "
            f"makes {stage.resolution} px ones: put the rule at that stage"
        )
    return settings.checkpoint.absolute()


def sha256(place: Path, settings: Settings) -> str:  # noqa: ARG001
    """Of the file: weights, settings and class list."""
    return sha256_file(place)


def load(place: Path, settings: Settings) -> "ClassifierConfidence":
    """The classifier, on the GPU if there is one."""
    import torch

    from generation.networks.timm_classifier import load_network

    about, _ = read_classifier(place)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ClassifierConfidence(load_network(place).to(device), about, device, settings.minimum)


class ClassifierConfidence:
    """The rule, loaded."""

    def __init__(
        self, model: "nn.Module", about: ClassifierModel, device: str, minimum: float
    ) -> None:
        self._model = model
        self._about = about
        self._device = device
        self._minimum = minimum

    def judge(self, images: np.ndarray, labels: Sequence[int]) -> list[Verdict]:
        """Score: the softmax probability of each image's own class."""
        import torch

        from generation.networks.timm_classifier import normalise, to_channels

        pixels = torch.from_numpy(to_channels(images, self._about.channels)).to(self._device)
        with torch.inference_mode():
            probabilities = self._model(normalise(pixels, self._about)).softmax(dim=1).cpu()
        own = probabilities[torch.arange(len(images)), torch.tensor(labels)].tolist()
        reason = f"confidence in its own class below {self._minimum:g}"
        return [Verdict(None if p >= self._minimum else reason, p) for p in own]
