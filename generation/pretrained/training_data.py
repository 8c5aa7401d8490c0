"""What a checkpoint says that it learned from: training.json, which stands beside the weights.

Nothing here imports torch.
"""

from dataclasses import dataclass
from pathlib import Path

from release.files.json_files import read_json

RECORD_FILE = "training.json"


@dataclass(frozen=True)
class TrainingData:
    """release, dataset: of its images; dataset: "" if not said. classes: their list, by the name
    that the recipe had for it. tuning_left_out: None if not said.

    dropout: share of the images that were told no class or prompt, None if not said; started: from
    another checkpoint, which may have seen such images.
    """

    release: str
    dataset: str
    classes: str
    tuning_left_out: bool | None
    dropout: float | None
    started: bool


def training_data(checkpoint: Path) -> TrainingData | None:
    """Of a checkpoint, a folder or a file in one; None if it says nothing of its training."""
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / RECORD_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    data, recipe = content.get("data", {}), content.get("recipe", {})
    training = recipe.get("training", {})
    return TrainingData(
        release=data.get("release", ""),
        dataset=data.get("dataset", ""),
        classes=recipe.get("classes", ""),
        tuning_left_out=data.get("tuning_left_out"),
        dropout=training.get("class_dropout", training.get("caption_dropout")),
        started=content.get("start_sha256") is not None,
    )


def knows_no_null(checkpoint: Path) -> bool:
    """Whether it says that all its images were told their class or prompt: then it never saw what
    classifier-free guidance tells a network in place of it."""
    learned = training_data(checkpoint)
    return learned is not None and learned.dropout == 0 and not learned.started


def saw_tuning(checkpoint: Path) -> bool:
    """Whether it says that it learned from the tuning images."""
    learned = training_data(checkpoint)
    return learned is not None and learned.tuning_left_out is False
