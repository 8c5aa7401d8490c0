"""The folder of a training run: what is trained there, its curves, samples and checkpoints.

training.json            all that decides the weights; another training is refused
state.pt, state-previous.pt   to go on from
loss.csv, loss.png, samples-STEP.png   at each save
checkpoints/STEP, checkpoint   kept on the way, and the last
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.training.recipe import TrainingRecipe
from generation.training.starting_point import read_json, start_saw_tuning, starting_sha256
from release.errors import UserError
from release.files.commit import (
    delete_folder,
    remove_temporaries,
    sha256_text,
    sync_folder,
    write_atomically,
)
from release.files.storage import ReleasePath, release_name
from release.layout.image_sets import PSEUDO_SPLITS, LabelledImages

if TYPE_CHECKING:
    from generation.families.pixel_unet.network import PixelUNet
    from generation.training.loop import TrainingSet

RECORD_FILE = "training.json"
PACKAGES = ("torch", "diffusers", "accelerate", "numpy")
HALF = ".half"  # ending of a kept checkpoint that is being written
NAMED = 4  # differences that a refusal lists


def training_record(
    recipe: TrainingRecipe,
    images: LabelledImages,
    data: ReleasePath,
    split: str,
    per_class: int | None,
    start: str | None,
) -> dict[str, Any]:
    """training.json: all that decided the weights."""
    return {
        # what is kept on the way decides no weights: a run may go on with another keep_every
        "recipe": recipe.model_dump(mode="json", exclude={"training": {"keep_every"}}),
        "data": {
            "release": release_name(data),
            "split": split,
            **({} if per_class is None else {"per_class": per_class}),
            "images": len(images),
            "sha256": images.sha256,
            "tuning_left_out": split in PSEUDO_SPLITS and not start_saw_tuning(start),
        },
        "start_sha256": starting_sha256(start),
        "versions": {name: version(name) for name in PACKAGES},
    }


def claim_folder(out: Path, record: dict[str, Any]) -> None:
    """Write training.json, or refuse a folder in which something else is being trained."""
    path = out / RECORD_FILE
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    if path.exists():
        try:
            before = read_json(path)
        except UserError as error:
            raise UserError(f"{error}; remove it, and the same command goes on") from None
        changed = list(_changes(before, json.loads(json.dumps(record))))
        if changed:
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            raise UserError(
                f"{out} holds another training run: {'; '.join(changed[:NAMED])}{more}; "
                "name another --out"
            )
        return
    write_atomically(path, _text(record).encode())


def _changes(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """What differs, by its place in the record: "recipe.training.steps was 400, is 500"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{place}.{name}" if place else name
            yield from _changes(old.get(name), new.get(name), inner)
    elif old != new:
        was, now = ("not set" if v is None else json.dumps(v) for v in (old, new))
        yield f"{place} was {was}, is {now}"


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class TrainingRun:
    """A claimed folder, whose files all appear by rename."""

    out: Path
    data: "TrainingSet"

    @property
    def key(self) -> str:
        """Which training a state is of."""
        return sha256_text(self._record().decode())

    def tidy(self) -> None:
        """Remove what killed processes were writing."""
        remove_temporaries(self.out)
        for half in (self.out / "checkpoints").glob(f".*{HALF}"):
            delete_folder(half)

    def save(self, average: "PixelUNet", losses: list[float]) -> None:
        """The loss curve, and a sample grid of the averaged network."""
        from generation.training.pictures import loss_curve, loss_table, sample_grid

        write_atomically(self.out / "loss.csv", loss_table(losses))
        write_atomically(self.out / "loss.png", loss_curve(losses))
        grid = sample_grid(average, self.data)
        write_atomically(self.out / f"samples-{len(losses):06d}.png", grid)

    def keep(self, average: "PixelUNet", step: int) -> None:
        """A checkpoint on the way; it appears whole."""
        folder = self.out / "checkpoints" / str(step)
        if folder.exists():  # of a run killed since: the same one
            return
        half = folder.with_name(f".{step}{HALF}")
        delete_folder(half)
        _save_float16(average, half)
        write_atomically(half / RECORD_FILE, self._record())
        half.rename(folder)
        sync_folder(folder.parent)

    def finish(self, average: "PixelUNet", losses: list[float]) -> Path:
        """The last save and the checkpoint."""
        self.save(average, losses)
        folder = self.out / "checkpoint"
        for name in (RECORD_FILE, "loss.csv", "loss.png"):
            write_atomically(folder / name, (self.out / name).read_bytes())
        _save_float16(average, folder)
        return folder

    def _record(self) -> bytes:
        return (self.out / RECORD_FILE).read_bytes()


def _save_float16(average: "PixelUNet", folder: Path) -> None:
    import torch

    from generation.families.pixel_unet.checkpoint import save_checkpoint

    save_checkpoint(average, folder, torch.float16)
