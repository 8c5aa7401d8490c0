"""training.json: all that decides the weights of a run, by which another training is refused."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from generation.pretrained.training_data import RECORD_FILE
from generation.training.data.training_set import TrainingSet
from generation.training.recipe import TrainingRecipe
from generation.training.trainable import StartFacts
from release.errors import UserError
from release.files.commit import write_atomically
from release.files.json_files import read_json
from release.files.storage import release_name
from release.layout.manifest import standing_manifest
from release.real_sources.source import PSEUDO_SPLITS

PACKAGES = ("torch", "diffusers", "accelerate", "numpy")
DRAWN = "random_numbers"
RULE = "philox4x32-10 by an image's place in the batch"
NAMED = 4  # differences that a refusal lists


def training_record(
    recipe: TrainingRecipe,
    images: TrainingSet,
    start: StartFacts,
) -> dict[str, Any]:
    """training.json: all that decided the weights."""
    wanted = images.wanted
    manifest = standing_manifest(wanted.release)
    return {
        # what is kept on the way decides no weights: a run may go on with another keep_every
        "recipe": recipe.model_dump(mode="json", exclude={"training": {"keep_every"}}),
        "data": {
            "release": release_name(wanted.release),
            **({} if manifest is None else {"dataset": manifest.dataset}),
            "split": wanted.split,
            **({} if wanted.per_class is None else {"per_class": wanted.per_class}),
            "images": len(images),
            "files_sha256": images.files_sha256,
            "tuning_left_out": wanted.split in PSEUDO_SPLITS and not start.saw_tuning,
        },
        DRAWN: RULE,
        "start_sha256": start.sha256,
        "versions": {name: version(name) for name in PACKAGES},
    }


def claim_folder(out: Path, record: dict[str, Any]) -> None:
    """Write training.json, or refuse a folder in which something else is being trained."""
    path = out / RECORD_FILE
    if path.exists():
        try:
            before = read_json(path)
        except UserError as error:
            raise UserError(f"{error}; remove it, and the same command goes on") from None
        if DRAWN in record and DRAWN not in before:
            raise UserError(
                f"{out} holds a training run of an earlier version, which drew other random "
                "numbers, so it cannot be gone on with here; name another --out"
            )
        new = json.loads(json.dumps(record))
        if "dataset" not in (before.get("data") or {}):  # a record of before does not say it
            new.get("data", {}).pop("dataset", None)
        changed = list(_changes(before, new))
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
