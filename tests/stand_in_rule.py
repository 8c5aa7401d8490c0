"""An accept rule that needs no torch: an image passes if its red is at least `red`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from builder.accept import StageFacts, Verdict


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    red: int


def locate(settings: Settings, stage: StageFacts) -> Path:  # noqa: ARG001
    return stage.checkpoint


def sha256(place: Path, settings: Settings) -> str:  # noqa: ARG001
    return "f" * 64


def load(place: Path, settings: Settings) -> "Reddish":  # noqa: ARG001
    return Reddish(settings.red)


class Reddish:
    def __init__(self, red: int) -> None:
        self._red = red

    def judge(self, images: np.ndarray, labels: Sequence[int]) -> list[Verdict]:  # noqa: ARG002
        reds = images[:, 0, 0, 0].tolist()
        return [Verdict(None if red >= self._red else "not red enough", float(red)) for red in reds]
