"""ImageNet in miniature walked end to end, as commands: what is written before, and the steps.

benchmarks/imagenet_rehearsal.py runs all of it and measures each step; tests/test_rehearsal.py runs
the short form. Names are relative: commands run in the folder that `write_inputs` filled.
"""

import hashlib
import io
import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Image

from builder.manifest import read_manifest
from tests.hub_server import Hub
from tests.imagenet_layouts import (
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
from tests.small_imagenet import WNIDS, litter, small_imagenet
from tests.tiny_network import SHAPE

REAL, CHAIN, REPO = "releases/imagenet-1k-real", "releases/chain-32", "someone/chain"
SIDES = (8, 16, 32)
HUB_SOURCE = "mini/imagenet"
CARD = "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: train\n    path: {}\n"

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
times = {times}
"""
LOAD = (
    "from datasets import load_dataset; rows = load_dataset('{repo}', '32', split='train'); "
    "print(rows.num_rows, rows[0]['image'].size, rows.features['label'].names[0])"
)


@dataclass(frozen=True)
class Step:
    """A command of the walk. check: raises AssertionError if what it left is not as it should be."""

    name: str
    words: Sequence[str]
    check: Callable[[Path, Images], None] = lambda *_: None

    @property
    def shown(self) -> str:
        """As a person types it."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class Walk:
    """How large it is. per_class, val_per_class: real images; generated: of each class.

    layouts: those that are imported besides `folder`, from `few` images of each class of train.
    trained: stages that the commands train; the others are stand-ins. recipes: of classifiers.
    """

    per_class: int
    val_per_class: int
    side: int
    few: int
    layouts: tuple[str, ...]
    trained: tuple[str, ...]
    training_steps: int
    generated: int
    extractor: str
    recipes: tuple[str, ...]
    study_models: tuple[str, ...]
    seeds: tuple[int, ...]
    workers: int


CLASSIFIERS = (
    *("imagenet-resnet50", "imagenet-resnet101", "imagenet-resnet152"),
    *("imagenet-resnetrs50-160", "imagenet-resnetrs101-160", "imagenet-resnetrs101-192"),
    *("imagenet-resnetrs152-224", "imagenet-vit-s16", "imagenet-deit-s"),
    *("imagenet-deit-b", "imagenet-deit-b-384", "imagenet-deit-l"),
)
