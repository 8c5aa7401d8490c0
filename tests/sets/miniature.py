"""A whole small project folder, made by the commands themselves: what campaigns break.

Three classes of colour drawings at 8 px and up, a folder of them imported as a release, a release
by the stand-in generator, a generator and a classifier trained for some steps, their results, a
study's file. All names are relative, as the commands run in the folder.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.command_server import CommandServer
from tests.conftest import STAND_IN_RECIPE, state_facts
from tests.models.tiny_network import SHAPE

NAMES = ("apple", "pear", "plum")
GENERATOR = """
name = "tiny"
description = "8 px colours"
classes = "three.csv"

[stage]
resolution = 8
channels = 3

[network]
{network}

[training]
steps = 4
batch = 6
warmup = 1
save_every = 2
keep_every = 2
"""
CLASSIFIER = """
name = "tiny"
description = "16 px colours"
sources = ["made up for tests"]
expected = "nothing"
cost = "none"
model = "test_resnet"
resolution = 16
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
epochs = 2
batch = 6
optimizer = "sgd"
learning_rate = 0.01
warmup = 0.1
schedule = "linear"
"""
STUDY = """
name = "tiny"
description = "Twelve images."
sizes = [2]
seeds = [0, 1]

[real]
source = "pictures"
release = "real"
views = [8, 16, 32]
classes = 3
per_class = 12

[[generated]]
name = "made"
release = "made"
recipe = "made.toml"

[[model]]
recipe = "classifier.toml"
set = ["epochs=1"]

[[arm]]
kind = "real"

[[arm]]
kind = "generated"
"""
# Every file above and what is made of it, by command; all end with exit code 0 in this order.
STEPS: tuple[str, ...] = (
    "build-dataset --real pictures --out real --views 8,16,32 --workers 1",
    "build-dataset --recipe made.toml --per-class 4 --out made --workers 1",
    "finetune-generator --recipe generator.toml --data real --out run --threads 1",
    "train-classifier --train made:16 --test real:16 --recipe classifier.toml "
    "--out results/cas.json --save classifier.safetensors",
    "score-release made:8 --real real --out results --cache cache --metrics fd,kid --sample 4 "
    "--extractor classifier@classifier.safetensors --workers 1",
)


def write_inputs(folder: Path) -> None:
    """What a person brings: pictures, class list, recipes."""
    chance = np.random.default_rng(7)
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(NAMES):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = chance.integers(0, 80, (20, 16 + i, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(place / f"{i}.png")
    rows = [f"{label},{name},{name},{name}" for label, name in enumerate(NAMES)]
    (folder / "three.csv").write_text("\n".join(["id,wnid,name,prompt", *rows]) + "\n")
    recipe = STAND_IN_RECIPE.format(classes="three.csv").replace('"test"', '"pictures"')
    (folder / "made.toml").write_text(state_facts(recipe.replace('"stand-in"', '"made"')))
    network = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SHAPE.items())
    (folder / "generator.toml").write_text(GENERATOR.format(network=network))
    (folder / "classifier.toml").write_text(CLASSIFIER)
    (folder / "study.toml").write_text(STUDY)


def make_miniature(server: CommandServer, folder: Path) -> None:
    """All of it in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    for step in STEPS:
        ended = server.run(step.split(), folder, timeout=300)
        assert ended.code == 0, (step, ended)
