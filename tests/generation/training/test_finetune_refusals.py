"""finetune-generator: what it refuses before it claims a folder, what follows the data, memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generation.diffusion.sampler_config import SamplerConfig
from generation.families import load_training_recipe
from generation.families.pixel_unet.checkpoint import load_checkpoint
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.memory import planned_memory
from generation.families.pixel_unet.network_shape import differences, planned_network
from generation.families.pixel_unet.recipe import PixelUNetRecipe
from generation.families.pixel_unet.starting_point import prompts_of, starting_network
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.training.memory import (
    TrainingMemory,
    memory_at_hand,
    require_memory,
)
from release.errors import UserError
from release.images.colour import images_in_colour
from release.lease import claimed
from tests.models.tiny_network import SHAPE, tiny_network
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

RECIPE = """
name = "tiny"
description = "8 px quarters"
classes = "{classes}"

[stage]
resolution = 8

[network]
{network}

[training]
steps = 4
batch = 8
warmup = 1
save_every = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with colour/, grey/ (every image R = G = B), tiny.toml and a finished run/."""
    folder = tmp_path_factory.mktemp("refusals")
    images = np.stack([paint(i % 4, i, 8, 10) for i in range(80)])
    write_release(folder / "colour", {"train": [images]}, kind="real", dataset="shapes")
    grey = np.repeat(images[..., :1], 3, axis=3)
    write_release(folder / "grey", {"train": [grey]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    network = "\n".join(f"{k} = {json.dumps(v)}" for k, v in SHAPE.items())
    text = RECIPE.format(classes=folder / "classes.csv", network=network)
    (folder / "tiny.toml").write_text(text)
    train(folder, "run")
    return folder


def train(place: Path, out: str, *changes: tuple[str, str], **options: Any) -> Path:
    """With the recipe's text changed; the run's folder."""
    settings = {"recipe": rewritten(place, *changes), "data": str(place / "colour")}
    finetune_generator(**settings | {"out": place / out, "as_json": True} | options)
    return place / out


def rewritten(place: Path, *changes: tuple[str, str]) -> str:
    text = (place / "tiny.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = place / f"changed-{abs(hash(changes))}.toml"
    path.write_text(text)
    return str(path)


def without_network(place: Path) -> tuple[str, str]:
    text = (place / "tiny.toml").read_text()
    table = text[text.index("[network]") : text.index("[training]")]
    return table, ""


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "training.json").read_text()))


# ---------------------------------------------------------------- before a folder is claimed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch = 8", "batch = 5\naccumulation = 2"), "batch = 5 does not divide"),
        pytest.param(
            ("batch = 8", 'batch = 8\nprecision = "fp16"'),
            '"fp16" needs a GPU',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (("warmup = 1", "warmup = 200"), "warmup = 200 the learning rate still rises"),
        (("warmup = 1", "warmup = 1\nlearning_rate = inf"), r"training\.learning_rate"),
        (("cross_attention_dim = 16", "cross_attention_dim = -1"), r"\[network\]: "),
        (("[16, 16]", "[262144, 262144]"), r"M parameters; training takes about .* GB are free"),
        (("batch = 8", "batch = 8000000000"), "GB are free"),
        (("resolution = 8", "resolution = 8\nchannels = 1"), "72 of the 72 images .* in colour"),
    ],
)
def test_what_cannot_be_trained_claims_no_folder(
    place: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(place, "refused", change)
    assert not (place / "refused").exists()


def test_a_table_without_widths_says_what_to_write(place: Path) -> None:
    """diffusers' own make 860 M parameters."""
    with pytest.raises(UserError, match=r"say the widths .* block_out_channels = \[32, 64, 96\]"):
        train(place, "refused", without_network(place))
    assert not (place / "refused").exists()


def test_another_training_is_refused_by_what_differs(place: Path) -> None:
    with pytest.raises(UserError, match=r"recipe\.training\.steps was 4, is 3; name another --out"):
        train(place, "run", steps=3)
    with pytest.raises(UserError, match=r"recipe\.stage\.prediction was \"v\", is \"epsilon\""):
        train(place, "run", ("resolution = 8", 'resolution = 8\nprediction = "epsilon"'))
    with pytest.raises(UserError, match=r"data\.per_class was not set, is 3"):
        train(place, "run", per_class=3)


def test_a_cut_record_and_a_file_as_out_are_one_line(place: Path) -> None:
    (place / "cut").mkdir()
    (place / "cut/training.json").write_text("")
    with pytest.raises(UserError, match=r"cut/training\.json is cut or damaged.*remove it"):
        train(place, "cut")
    with pytest.raises(UserError, match="is a file; name a folder"):
        train(place, "tiny.toml")
    start = place / "start"
    (start / "x").mkdir(parents=True)
    for file in (place / "run/checkpoint").iterdir():
        (start / file.name).write_bytes(file.read_bytes())
    (start / "training.json").write_text('{"data": ')
    with pytest.raises(UserError, match=r"start/training\.json is cut or damaged"):
        train(place, "after", start=str(start))
    assert not (place / "after").exists()


def test_more_threads_than_cores_are_refused(place: Path) -> None:
    with pytest.raises(UserError, match="--threads 100000: this machine has"):
        train(place, "refused", threads=100_000)


def test_a_shorter_training_warms_up_for_half_of_it_at_most(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_training_recipe("fashion-mnist-16").with_steps(100)
    assert (recipe.training.steps, recipe.training.warmup) == (100, 50)
    assert load_training_recipe("fashion-mnist-16").with_steps(400).training.warmup == 200
    run = train(place, "short", ("warmup = 1", "warmup = 3"), steps=3)
    assert record(run)["recipe"]["training"]["warmup"] == 1
    assert "--steps 3: warmup = 1 instead of 3" in capsys.readouterr().err


# ---------------------------------------------------------------- colour


def test_channels_follow_the_data(place: Path) -> None:
    grey = train(place, "of-grey", data=str(place / "grey"), steps=2)
    for run, channels in ((grey, 1), (place / "run", 3)):
        assert record(run)["recipe"]["stage"]["channels"] == channels
        assert load_checkpoint(run / "checkpoint").config.channels == channels


def test_a_colour_stage_may_learn_from_grey_images(place: Path) -> None:
    change = ("resolution = 8", "resolution = 8\nchannels = 3")
    run = train(place, "colour-of-grey", change, data=str(place / "grey"), steps=1)
    assert load_checkpoint(run / "checkpoint").config.channels == 3


def test_images_in_colour_are_counted() -> None:
    images = np.full((5000, 2, 2, 3), 9, np.uint8)
    images[4999, 1, 1, 2] = 10
    images[3, 0, 0, 1] = 10
    assert images_in_colour(images) == 2


def test_a_grey_stage_refuses_parents_in_colour() -> None:
    generator = PixelUNetGenerator(tiny_network(low_resolution=4))
    parents = np.full((2, 4, 4, 3), 100, np.uint8)
    batch = ImageBatch(["bag"] * 2, [0] * 2, [1, 2], resolution=8, parents=parents)
    settings = SamplerConfig(method="ddim", steps=1)
    assert len(generator.sample(batch, settings)) == 2
    parents[1, 0, 0] = (1, 2, 3)
    with pytest.raises(UserError, match="1 of 2 parents are in colour"):
        generator.sample(batch, settings)


# ---------------------------------------------------------------- a start of ours


def test_a_start_with_another_network_is_refused_by_what_differs(place: Path) -> None:
    start = str(place / "run/checkpoint")
    changes = [("[16, 16]", "[16, 32]"), ("attention_head_dim = 4", "attention_head_dim = 8")]
    message = r"attention_head_dim 4, not 8; block_out_channels \[16, 16\], not \[16, 32\]"
    with pytest.raises(UserError, match=message):
        train(place, "other", *changes, start=start)
    assert not (place / "other").exists()


def test_an_empty_network_is_the_start_s_and_is_recorded(place: Path) -> None:
    start = place / "run/checkpoint"
    run = train(place, "from", without_network(place), start=str(start), steps=1)
    assert differences(record(run)["recipe"]["network"], dict(SHAPE)) == []


# ---------------------------------------------------------------- memory


def test_the_plan_is_what_the_network_takes(place: Path) -> None:
    """Parameters, and the tensors that a real forward pass keeps for the backward pass."""
    recipe = load_training_recipe(str(place / "tiny.toml"))
    planned = planned_memory(recipe, prompts_of(recipe), 1)
    network = starting_network(recipe, None).train().requires_grad_(True)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    zeros = torch.zeros(8, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(torch.zeros(8, 3, 8, 8), zeros, zeros)
    real = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    assert planned.activations == pytest.approx(real, rel=0.15)
    count = sum(p.numel() for p in network.parameters())
    assert (planned.parameters, planned.fixed) == (count, count * 4 * 5)  # w, g, average, m, v
    assert planned.images == 8


def test_a_plan_takes_no_memory_and_a_network_that_does_not_fit_is_refused() -> None:
    recipe = load_training_recipe("fashion-mnist-16")
    wide = recipe.network | {"block_out_channels": [32_768, 65_536, 98_304]}
    recipe = PixelUNetRecipe.model_validate(recipe.model_dump() | {"network": wide})
    network = planned_network(recipe, ("a", "b"))
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    with pytest.raises(UserError, match=r"M parameters; .* GB are free: make the recipe's"):
        require_memory(planned_memory(recipe, ("a", "b"), 1), torch.device("cpu"))
    require_memory(TrainingMemory(1, 1000, 1000, 1), torch.device("cpu"))


@pytest.mark.parametrize(
    ("folder", "names", "cache"),
    [
        ("", ("memory.max", "memory.current"), "inactive_file"),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
    ],
)
def test_a_control_group_bounds_the_memory_at_hand(
    tmp_path: Path, folder: str, names: tuple[str, str], cache: str
) -> None:
    free = memory_at_hand(tmp_path)
    assert free > 1 << 20
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / names[0]).write_text(f"{1 << 20}\n")
    (tmp_path / folder / names[1]).write_text(f"{1 << 19}\n")
    assert memory_at_hand(tmp_path) == 1 << 19
    (tmp_path / folder / "memory.stat").write_text(f"anon 7\n{cache} 1024\n")
    assert memory_at_hand(tmp_path) == (1 << 19) + 1024
    (tmp_path / folder / names[0]).write_text("max\n")
    assert memory_at_hand(tmp_path) == pytest.approx(free, rel=0.5)


def test_a_second_command_in_a_folder_is_refused_while_the_first_is_at_work(place: Path) -> None:
    refused = pytest.raises(UserError, match=r"another command is at work in .*run: ")
    with claimed(place / "run"), refused:
        train(place, "run")
    train(place, "run")  # finished: nothing is left to do
    assert not (place / "run/lease").exists()
