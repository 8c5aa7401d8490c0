"""OpenAI's U-Nets as starts: their objective, their classes, checkpoints in their own layout."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import (
    generator_source,
    load_training_recipe,
    trainable,
    trained_checkpoint,
)
from generation.families.adm.converter import convert_unet, openai_state, planned_unet, read_shape
from generation.families.adm.networks import NETWORKS
from generation.families.adm.objective import LabelledUNet, OpenAIObjective
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.pretrained.finetuned import fine_tuned
from generation.pretrained.source_files import read_tensors
from generation.training.data.images import DrawnImages
from metrics.selection.selection import require_tuning_unseen
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.generation.families.references.openai_reference import tiny
from tests.generation.training.hybrid_loss_reference import cosine, hybrid_loss, linear, noisy
from tests.sets.small_releases import CLASSES, random_images, write_release

ABAR = {
    "adm-64": cosine(1000),
    "adm-256": linear(1000),
    "adm-upsampler": linear(1000),
    "iddpm": cosine(4000),
}
MILLIONS = {"adm-64": 296, "adm-256": 554, "adm-upsampler": 312, "iddpm": 273}  # as published
RECIPE = """
name = "tiny"
description = "a tiny one of OpenAI's networks"
classes = "{folder}/classes.csv"
generator = "{generator}"
start = "{folder}/{generator}.pt"

[stage]
{stage}

[training]
steps = 2
batch = 4
warmup = 0
dropout = 0.1
flip = true
keep_every = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of ten classes, and real/ of four at 16 and 64 px."""
    folder = tmp_path_factory.mktemp("openai")
    for name in NETWORKS:
        torch.save(tiny(name).state_dict(), folder / f"{name}.pt")
    shards = []
    for side in (16, 64):
        write_release(folder / "real", {"train": [random_images(0, 24, side)]}, "real")
        shards += read_manifest(folder / "real").shards
    replace(read_manifest(folder / "real"), shards=tuple(shards)).write(folder / "real")
    rows = [f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES]
    (folder / "classes.csv").write_text("\n".join(["id,wnid,name,prompt", *rows]) + "\n")
    return folder


def recipe_of(place: Path, generator: str, stage: str) -> str:
    path = place / f"{generator}.toml"
    path.write_text(RECIPE.format(folder=place, generator=generator, stage=stage))
    return str(path)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A training of adm-64 on four classes of its own."""
    recipe = recipe_of(place, "adm-64", 'resolution = 16\nclasses_embedding = "new"')
    out = place / "run"
    finetune_generator(recipe=recipe, data=str(place / "real"), out=out, as_json=True)
    return out


@pytest.fixture(scope="module")
def larger(place: Path) -> Path:
    """A training of adm-upsampler on all of train, its tuning tenth too."""
    stage = 'resolution = 64\nlow_resolution = 16\nclasses_embedding = "new"'
    recipe, out = recipe_of(place, "adm-upsampler", stage), place / "larger"
    finetune_generator(
        recipe=recipe, data=str(place / "real"), out=out, steps=1, split="train", as_json=True
    )
    return out


# ---------------------------------------------------------------- the networks


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_back_into_its_authors_layout(name: str) -> None:
    theirs, heads = tiny(name).state_dict(), NETWORKS[name].heads
    shape = read_shape(theirs, name)
    found = openai_state(convert_unet(theirs, heads, name), shape, heads)
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_published_shape_counts_what_was_published(name: str) -> None:
    about = NETWORKS[name]
    unet = planned_unet(about.published, about.heads, name)
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6) == MILLIONS[name]


class Recorded(torch.nn.Module):
    """In a U-Net's place: says a fixed function of what it sees, and keeps that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(
        self, inputs: torch.Tensor, t: torch.Tensor, label: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        assert not return_dict
        self.x, self.t, self.label = inputs.numpy(), t.numpy(), label.numpy()
        x = inputs[:, :3]
        return (torch.cat([self.weight * x + 0.125, 0.25 * x.tanh()], dim=1),)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear with pixel centres, edges repeated, in float64."""
    small = image.shape[-1]
    weights = np.zeros((factor * small, small))
    for row in range(factor * small):
        place = min(max((row + 0.5) / factor - 0.5, 0), small - 1)
        below = min(int(place), small - 2)
        weights[row, below : below + 2] = below + 1 - place, place - below
    return np.asarray(weights @ image @ weights.T)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_is_the_papers(name: str) -> None:
    rng, n, side = np.random.default_rng(3), 6, 16
    images = rng.integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    parents = rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)
    labels, stub, follows = np.array([3, 1, 0, 2, 1, 0]), Recorded(), NETWORKS[name].enlarges
    objective = OpenAIObjective(LabelledUNet(stub), NETWORKS[name])
    drawn = DrawnImages(
        torch.from_numpy(images),
        torch.from_numpy(parents) if follows else None,
        torch.from_numpy(labels),
        ImageRandom(11, 0, torch.arange(n)),
    )
    loss = objective.updates[0].loss(objective.modules, drawn)
    again, abar = ImageRandom(11, 0, torch.arange(n)), ABAR[name]
    t = again.integers(len(abar)).numpy()
    noise = again.normal(3, side, side).double().numpy()
    x0 = images / 127.5 - 1
    x = noisy(abar, x0, noise, t)
    np.testing.assert_allclose(stub.x[:, :3], x, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(stub.t, t)
    np.testing.assert_array_equal(stub.label, labels)
    expected = hybrid_loss(abar, x0, noise, t, 0.5 * x + 0.125, 0.25 * np.tanh(x))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    if follows:
        np.testing.assert_allclose(
            stub.x[:, 3:], enlarged(parents / 127.5 - 1, 4), rtol=0, atol=1e-6
        )


# ---------------------------------------------------------------- a training


def test_another_count_of_classes_is_a_choice(place: Path) -> None:
    recipe = recipe_of(place, "adm-64", "resolution = 16")
    with pytest.raises(UserError) as error:
        finetune_generator(recipe=recipe, data=str(place / "real"), out=place / "no")
    said = str(error.value)
    assert "adm-64.pt knows 10 classes" in said
    assert 'has 4: set classes_embedding = "new" in its [stage]' in said
    assert "\n" not in said
    assert not (place / "no").exists()


def test_a_checkpoint_is_in_the_authors_layout_and_makes_images(place: Path, run: Path) -> None:
    source, folder = generator_source("adm-64"), run / "checkpoint"
    file = source.locate(str(folder))
    state = read_tensors(file)
    theirs = tiny("adm-64", classes=4)
    theirs.load_state_dict(state)  # key by key
    old = tiny("adm-64").state_dict()
    moved = [
        key for key in old if key != "label_emb.weight" and not torch.equal(old[key], state[key])
    ]
    assert len(moved) > len(old) // 2
    batch = ImageBatch([c.prompt for c in CLASSES], range(4), range(4), None, 16)
    images = source.load(file, compiled=False).sample(batch, SamplerConfig(steps=2))
    assert isinstance(images, np.ndarray)
    assert images.shape == (4, 16, 16, 3)
    told = fine_tuned(folder)
    assert told is not None
    assert told.base.checkpoint == str(place / "adm-64.pt")
    assert told.base.sha256 == source.sha256(place / "adm-64.pt")


def test_select_checkpoint_knows_it_and_no_other_network_reads_it(run: Path) -> None:
    found = trained_checkpoint(run / "checkpoints/2")
    assert (found.generator, found.resolution) == ("adm-64", 16)
    with pytest.raises(UserError, match=r"is a checkpoint of adm-64, not of iddpm"):
        generator_source("iddpm").locate(str(run / "checkpoint"))


def test_the_upsampler_learns_from_parents(larger: Path) -> None:
    assert trained_checkpoint(larger / "checkpoint").resolution == 64
    record = json.loads((larger / "checkpoint/training.json").read_text())
    assert record["recipe"]["network"]["classes"] == 4


def test_a_checkpoint_is_a_start_and_keeps_its_base(place: Path, run: Path) -> None:
    recipe = recipe_of(place, "adm-64", "resolution = 16")  # which knows the four classes now
    out, start = place / "further", run / "checkpoint"
    finetune_generator(
        recipe=recipe, data=str(place / "real"), out=out, start=str(start), steps=1, as_json=True
    )
    told, before = fine_tuned(out / "checkpoint"), fine_tuned(start)
    assert told is not None
    assert before is not None
    assert told.base == before.base


@pytest.mark.parametrize(
    ("generator", "stage", "message"),
    [
        (
            "adm-64",
            "resolution = 64",
            "makes images of 16 px, the recipe's stage has resolution 64",
        ),
        ("adm-upsampler", "resolution = 64", "low_resolution must be given"),
        ("iddpm", "resolution = 16\nlow_resolution = 4", "low_resolution must be left out"),
        ("iddpm", "resolution = 16\nlow_resolution = 8", "enlarges 4 times: low_resolution 8"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    place: Path, generator: str, stage: str, message: str
) -> None:
    def load() -> None:
        recipe = load_training_recipe(recipe_of(place, generator, stage))
        trainable(generator).with_start(recipe, recipe.start)

    with pytest.raises(UserError, match=message):
        load()


def test_a_plan_needs_no_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(recipe_of(place, "iddpm", 'resolution = 64\nclasses_embedding = "new"'))
    path.write_text(path.read_text().replace(f"{place}/iddpm.pt", "elsewhere/iddpm.pt"))
    finetune_generator(recipe=str(path), dry_run=True, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    assert round(plan["parameters"] / 1e6) == 272  # less 996 classes


def test_a_checkpoint_that_saw_the_tuning_images_is_not_selected_by(
    run: Path, larger: Path
) -> None:
    require_tuning_unseen([Stage("adm-64", str(run / "checkpoint"))])  # type: ignore[list-item]
    stage = Stage("adm-upsampler", str(larger / "checkpoint"))
    with pytest.raises(UserError, match="was trained on the tuning images, too"):
        require_tuning_unseen([stage])  # type: ignore[list-item]


class Stage:
    """What the check reads of a recipe's stage."""

    def __init__(self, generator: str, checkpoint: str) -> None:
        self.generator, self.checkpoint = generator, checkpoint
        self.checkpoints, self.exemplars = (checkpoint,), None
