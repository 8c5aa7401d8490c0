"""What a person brings to the walk of tests/rehearsal/rehearsal.py: images in their layouts, and
recipes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image

from generation.families.pixel_unet.checkpoint import save_checkpoint
from release.classes.class_list import load_classes
from tests.models.tiny_network import SHAPE, tiny_conditioned
from tests.rehearsal.imagenet_layouts import (
    SPLITS,
    Images,
    arrow_shards,
    by_class,
    devkit,
    hub_names,
    kaggle,
    parquet_shards,
    snapshot,
    tables,
    tars,
    tiny,
    web_dataset,
)
from tests.rehearsal.small_imagenet import WNIDS, litter
from tests.servers.hub_server import Hub

REAL, CHAIN = "releases/imagenet-1k-real", "releases/chain-32"
HUB_SOURCE = "mini/imagenet"

TRAINING = """
name = "{name}"
description = "{resolution} px of a miniature ImageNet"
classes = "imagenet-1k"

[stage]
resolution = {resolution}
channels = 3
conditioning = "{conditioning}"
{more}

[network]
{network}

[training]
steps = {steps}
batch = 64
warmup = {warmup}
ema = 0.9
save_every = {steps}
"""
STAGE = """
[[stage]]
resolution = {resolution}
generator = "pixel-unet"
checkpoint = "runs/{name}/checkpoint"
batch = 100
sampler = {{ steps = {steps}, guidance = {guidance} }}
sampler_source = "a guess"
model = {{ name = "{name}", license = "MIT", images = "For tests.", source = "this rehearsal" }}
"""
RECIPE = """
name = "chain"
description = "ImageNet-1k in miniature, 8 to 16 to 32 px"
classes = "imagenet-1k"
dataset = "imagenet-1k"
regime = "B"
license = "mit"

[shard]
classes = 250
indices = 2
"""
# By name: resolution, the one before, what the network is told.
STAGES = {"base": (8, None, "class"), "middle": (16, 8, "text"), "last": (32, 16, "class")}
CLASSIFIER = """
name = "tiny"
description = "classes of a miniature ImageNet at 16 px"
sources = ["made up for a rehearsal"]
expected = "nothing"
cost = "seconds"
model = "test_resnet"
resolution = 16
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
epochs = 1
batch = 200
optimizer = "momentum"
learning_rate = 0.1
warmup = 0.1
schedule = "cosine"
"""
STUDY = """
base = "imagenet"
name = "imagenet-in-miniature"
sizes = [1]
seeds = {seeds}

[real]
source = "data/folder"
release = "releases/imagenet-1k-real"
views = [8, 16, 32]
per_class = {per_class}
"""
GENERATED = """
[[generated]]
name = "{name}"
release = "releases/chain-32"
config = "{config}"
recipe = "chain.toml"
"""
MODEL = """
[[model]]
recipe = "{name}"
set = {changes}
"""
ARMS = """
[[arm]]
kind = "real"

[[arm]]
kind = "generated"
sets = ["1024"]

[[arm]]
kind = "real+generated"
sets = {sets}
times = {times}
"""
SETS = {"1024": "32", "256": "16", "64": "8"}  # as the built-in study calls them


def classes() -> dict[str, str]:
    """The Hub's name of each wnid, in the list's order."""
    return dict(zip(WNIDS, hub_names(), strict=True))


def with_card(root: Path, images: Images) -> None:
    """A snapshot of a Hub data set, its card too."""
    snapshot(root, tables(images, classes()))
    files = "".join(f"  - split: {s}\n    path: data/{s}-*\n" for s in (*SPLITS, "test"))
    (root / "README.md").write_text(
        f"---\nlicense: other\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
    )


def other_names(root: Path, images: Images) -> None:
    """Arrow shards whose columns are called img and labels, classes in another order."""
    backwards = dict(reversed(classes().items()))
    arrow_shards(root, tables(images, backwards, "img", "labels"))


def saved(root: Path, images: Images) -> None:
    """By save_to_disk."""
    splits = tables(images, classes())
    DatasetDict({split: splits[split] for split in SPLITS}).save_to_disk(root)


def shards_of_tars(root: Path, images: Images) -> None:
    """WebDataset, whose labels are numbers."""
    web_dataset(root, images, {wnid: i for i, wnid in enumerate(WNIDS)}, per_shard=4000)


def parquet(root: Path, images: Images) -> None:
    """Parquet shards without a card."""
    parquet_shards(root, tables(images, classes()))


# Besides `folder`: what writes each layout, and what a person adds to `--real data/LAYOUT`.
LAYOUTS: Mapping[str, tuple[Callable[[Path, Images], None], str]] = {
    "kaggle": (kaggle, ""),
    "devkit": (devkit, ""),
    "tars": (tars, ""),
    "tiny": (tiny, ""),
    "parquet": (parquet, ""),
    "snapshot": (with_card, ""),
    "arrow": (other_names, ""),
    "saved": (saved, ""),
    "webdataset": (shards_of_tars, "--classes-from imagenet-1k"),
}
HUB = "hub"
HUB_OPTIONS = f"--real {HUB_SOURCE}:small --image-column image --label-column fine_label"


def write_layouts(folder: Path, images: Images, few: Images, layouts: Sequence[str]) -> None:
    """data/folder of all images, the other layouts of `few` of them."""
    by_class(folder / "data/folder", images)
    litter(folder / "data/folder")
    for name in layouts:
        if name != HUB:
            LAYOUTS[name][0](folder / "data" / name, few)


def put_on_hub(hub: Hub, folder: Path, images: Images) -> None:
    """A data set of two configurations, two columns of images and two of labels."""
    files = {}
    for config in ("large", "small"):
        for split, data in tables(images, classes(), label="fine_label").items():
            path = folder / "hub" / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            _with_other_columns(data).to_parquet(path)
            files[f"{config}/{split}.parquet"] = path.read_bytes()
    files["README.md"] = _hub_card().encode()
    oids = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    hub.blobs |= {oids[path]: data for path, data in files.items()}
    hub.repos[HUB_SOURCE] = {"main": oids}


def _with_other_columns(data: Dataset) -> Dataset:
    """With coarse labels, and each image once more."""
    coarse = [label % 2 if label >= 0 else -1 for label in data["fine_label"]]
    pictures = data.with_format("arrow")[:]["image"].to_pylist()
    more = data.add_column("coarse_label", coarse).add_column("preview", pictures)
    more = more.cast_column("coarse_label", ClassLabel(names=["even", "odd"]))
    return more.cast_column("preview", Image())


def _hub_card() -> str:
    lines = ["---", "configs:"]
    for config in ("large", "small"):
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in (*SPLITS, "test"):
            lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    return "\n".join([*lines, "---", ""])


@dataclass(frozen=True)
class StudySize:
    """models: recipes of classifiers, with changes to each. seeds, times: as in a study.

    sets: those of generated images which stand beside real images."""

    models: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    times: Sequence[int]
    sets: Sequence[str] = tuple(SETS)


def write_recipes(folder: Path, per_class: int, training_steps: int, study: StudySize) -> None:
    """For generators, the chain, a classifier and the study."""
    for name, (resolution, low, conditioning) in STAGES.items():
        recipe = TRAINING.format(
            name=name,
            resolution=resolution,
            conditioning=conditioning,
            more="" if low is None else f"low_resolution = {low}",
            network="\n".join(f"{key} = {json.dumps(value)}" for key, value in SHAPE.items()),
            steps=training_steps,
            warmup=training_steps // 4,
        )
        (folder / f"{name}.toml").write_text(recipe)
    (folder / "chain.toml").write_text(RECIPE + "".join(map(_stage, STAGES)))
    (folder / "classifier.toml").write_text(CLASSIFIER)
    (folder / "study.toml").write_text(_study(per_class, study))


def _stage(name: str) -> str:
    base = STAGES[name][1] is None
    steps, guidance = (8, 1.25) if base else (2, 1)
    return STAGE.format(resolution=STAGES[name][0], name=name, steps=steps, guidance=guidance)


def _study(per_class: int, study: StudySize) -> str:
    models = {name: json.dumps(list(changes)) for name, changes in study.models.items()}
    return "".join(
        [
            STUDY.format(seeds=list(study.seeds), per_class=per_class),
            *(GENERATED.format(name=name, config=config) for name, config in SETS.items()),
            *(MODEL.format(name=name, changes=changes) for name, changes in models.items()),
            ARMS.format(sets=json.dumps(list(study.sets)), times=list(study.times)),
        ]
    )


def save_stand_ins(folder: Path, names: Sequence[str]) -> None:
    """Untrained checkpoints of these stages, told a class, where finetune-generator leaves its."""
    prompts = tuple(entry.prompt for entry in load_classes("imagenet-1k"))
    for name in names:
        network = tiny_conditioned("class", prompts, STAGES[name][1])
        save_checkpoint(network, folder / "runs" / name / "checkpoint", torch.float16)
