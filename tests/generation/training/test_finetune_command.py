"""finetune-generator as a user runs it: checkpoints kept, other starts, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from generation.diffusion.sampler_config import SamplerConfig
from generation.families import load_training_recipe
from generation.families.pixel_unet.checkpoint import load_checkpoint
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.starting_point import start_facts, starting_network
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from release.errors import UserError
from tests.conftest import ROOT
from tests.forked_commands import run_together
from tests.models.tiny_network import SHAPE, tiny_network
from tests.models.train_tiny import BASE, tiny_data, train_stage
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release
from tests.toy_gan import ToyGan

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
keep_every = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/, tiny.toml and a finished run/."""
    folder = tmp_path_factory.mktemp("finetune")
    images = np.stack([paint(i % 4, i, 8, 10) for i in range(80)])
    write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    network = "\n".join(f"{k} = {json.dumps(v)}" for k, v in SHAPE.items())
    text = RECIPE.format(classes=folder / "classes.csv", network=network)
    (folder / "tiny.toml").write_text(text)
    train(folder, "run")
    return folder


def train(place: Path, out: str, **options: Any) -> Path:
    settings = {"recipe": str(place / "tiny.toml"), "data": str(place / "real"), "as_json": True}
    finetune_generator(**settings | {"out": place / out} | options)
    return place / out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_checkpoints_are_kept_and_load(place: Path) -> None:
    kept = sorted(path.name for path in (place / "run/checkpoints").iterdir())
    assert kept == ["2", "4"]
    early, late = (weights(place / "run/checkpoints" / step) for step in kept)
    assert same(late, weights(place / "run/checkpoint"))
    assert not same(early, late)
    assert load_checkpoint(place / "run/checkpoints/2").config.resolution == 8


def test_keeping_changes_no_weights_and_may_change_on_the_way(place: Path) -> None:
    other = train(place, "other", keep_every=3)
    assert same(weights(other / "checkpoint"), weights(place / "run/checkpoint"))
    assert [path.name for path in (other / "checkpoints").iterdir()] == ["3"]
    train(place, "other", keep_every=1)  # finished: nothing is trained again, nothing refused


def test_a_run_stopped_between_saves_keeps_what_an_uninterrupted_one_keeps(tmp_path: Path) -> None:
    config = BASE.model_copy(update={"steps": 6, "save_every": 3, "keep_every": 2})

    def run(folder: Path, stop: int | None) -> dict[int, dict[str, torch.Tensor]]:
        kept: dict[int, dict[str, torch.Tensor]] = {}
        network = tiny_network()
        steps = 0

        def advance(n: int) -> None:
            nonlocal steps
            steps += n
            if steps == stop:
                raise KeyboardInterrupt

        def keep(average: Any, step: int) -> None:
            kept[step] = {k: v.clone() for k, v in average.state_dict().items()}

        train_stage(network, tiny_data(network), config, folder, advance, lambda *_: None, keep)
        return kept

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 5)
    resumed = run(tmp_path / "stopped", None)  # from step 3
    assert (set(whole), set(resumed)) == ({2, 4, 6}, {4, 6})
    for step, state in resumed.items():
        assert same(state, whole[step])


def test_a_checkpoint_names_the_precision_of_its_training(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In which a GPU samples it; one of float32, as all were before, says nothing."""
    (place / "half.toml").write_text((place / "tiny.toml").read_text() + 'precision = "bf16"\n')
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    half = train(place, "half", recipe=str(place / "half.toml"), steps=1) / "checkpoint"
    assert torch.cuda.is_available() != ("which this CPU emulates" in capsys.readouterr().err)
    assert json.loads((half / "stage.json").read_text())["precision"] == "bfloat16"
    assert "precision" not in json.loads((place / "run/checkpoint/stage.json").read_text())
    network = load_checkpoint(half)
    batch = ImageBatch([c.prompt for c in CLASSES], range(4), range(4), None, 8)
    settings = SamplerConfig(steps=3, guidance=1.5)
    exact, rounded = (
        np.asarray(PixelUNetGenerator(network.to(kind)).sample(batch, settings)).astype(int)
        for kind in (torch.float32, torch.bfloat16)
    )
    assert 0 < np.abs(exact - rounded).mean() < 4


def test_a_kept_checkpoint_is_a_start(place: Path) -> None:
    start = place / "run/checkpoints/2"
    recipe = load_training_recipe(str(place / "tiny.toml"))
    found = starting_network(recipe, str(start)).unet.state_dict()
    assert same({k: v.half() for k, v in found.items()}, weights(start))


def test_a_start_is_told_the_prompts_that_it_lacks(place: Path) -> None:
    lines = [f"{c.label},{c.wnid},{c.name},a new {c.prompt}" for c in CLASSES]
    (place / "new.csv").write_text("\n".join(["id,wnid,name,prompt", *lines]) + "\n")
    text = (place / "tiny.toml").read_text().replace("classes.csv", "new.csv")
    (place / "new.toml").write_text(text)
    start = place / "run/checkpoint"
    network = starting_network(load_training_recipe(str(place / "new.toml")), str(start))
    assert network.prompts.prompts[0] == f"a new {CLASSES[0].prompt}"
    assert network.config.prompts == network.prompts.prompts
    assert network.prompt_tokens.shape[0] == len(CLASSES) + 1
    assert same({k: v.half() for k, v in network.unet.state_dict().items()}, weights(start))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[network]", "[network]\nwidths = 4"), r"\[network\]: .*'widths'"),
        (("CrossAttnDownBlock2D", "CrossBlock2D"), r"\[network\]: .*CrossBlock2D"),
        (("norm_num_groups = 8", "norm_num_groups = 7"), r"\[network\]: "),
        (("[network]", "[network]\nin_channels = 4"), r"\[network\]: .*in_channels"),
        (("resolution = 8", "resolution = 8\npatch = 3"), "patch 3 does not divide resolution 8"),
        (("resolution = 8", "resolution = 8\nchannels = 2"), "channels"),
        (("warmup = 1", "warmup = 1\nseed = -1"), "training.seed"),
    ],
)
def test_a_recipe_that_cannot_be_trained_claims_no_folder(
    place: Path, change: tuple[str, str], message: str
) -> None:
    text = (place / "tiny.toml").read_text()
    assert change[0] in text
    (place / "bad.toml").write_text(text.replace(*change))
    with pytest.raises(UserError, match=message):
        finetune_generator(
            recipe=str(place / "bad.toml"), data=str(place / "real"), out=place / "bad"
        )
    assert not (place / "bad").exists()


def test_a_unet_in_diffusers_layout_is_a_start(place: Path) -> None:
    """What diffusers' save_pretrained leaves, alone and as part of a pipeline."""
    recipe = load_training_recipe(str(place / "tiny.toml"))
    unet = load_checkpoint(place / "run/checkpoint").unet
    unet.save_pretrained(place / "plain")
    unet.save_pretrained(place / "pipeline/unet")
    for start in ("plain", "pipeline"):
        found = starting_network(recipe, str(place / start))
        assert same(found.unet.state_dict(), unet.state_dict())
        assert len(found.prompts.prompts) == len(CLASSES) + 1
    hashes = {start_facts(str(place / start)).sha256 for start in ("plain", "pipeline")}
    assert len(hashes) == 1
    tuned = train(place, "tuned", start=str(place / "plain"), steps=2)
    record = json.loads((tuned / "training.json").read_text())
    assert record["start_sha256"] == hashes.pop()
    assert not same(weights(tuned / "checkpoint"), weights(place / "run/checkpoint"))


def test_a_unet_of_another_shape_is_refused(place: Path) -> None:
    recipe = load_training_recipe(str(place / "tiny.toml"))
    unet = load_checkpoint(place / "run/checkpoint").unet
    unet.save_config(place / "other-shape")
    tensors = {k: v.contiguous() for k, v in unet.state_dict().items()}
    tensors["conv_out.weight"] = tensors["conv_out.weight"][:1].clone()
    save_file(tensors, place / "other-shape/diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"conv_out\.weight has shape \(1, 16, 3, 3\)"):
        starting_network(recipe, str(place / "other-shape"))


def test_a_start_that_saw_the_tuning_images_is_told_of(place: Path) -> None:
    everything = train(place, "everything", split="train", steps=1)
    assert not left_out(everything)
    assert not left_out(train(place, "after", start=str(everything / "checkpoint"), steps=1))
    assert left_out(place / "run")


def left_out(run: Path) -> bool:
    record = json.loads((run / "checkpoint/training.json").read_text())
    return bool(record["data"]["tuning_left_out"])


def together(cwd: Path, *program: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes, as accelerate launch starts them; on CPUs alone it leaves that to torchrun."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", *launch, *program],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert result.returncode == 0, result.stderr
    return result


def test_processes_share_their_gradients(tmp_path: Path) -> None:
    """Each takes its half of the batch, so alone they would part."""
    ended = run_together("tests.models.train_together", tmp_path)
    assert ended.returncode == 0, ended.stderr
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert same(first, second)
    assert not same(first, dict(tiny_network().named_parameters()))
    found = torch.load(tmp_path / "plain/state.pt", weights_only=True)  # of a network that has
    assert found["step"] == 2  # weights of no use to it: they hold no process up
    assert "unet.encoder_hid_proj.weight" in found["modules"]["network"]
    first, second = (load_file(tmp_path / f"gan{rank}.safetensors") for rank in (0, 1))
    assert same(first, second)
    new = ToyGan().modules
    for name, weight in first.items():
        module, _, key = name.partition(".")
        moved = not torch.equal(weight, new[module].state_dict()[key])
        assert moved or key.endswith("bias"), name  # the hinges cancel in the last bias


def test_two_processes_train_together_and_one_writes(place: Path) -> None:
    options = ["--recipe", place / "tiny.toml", "--data", place / "real", "--out", place / "two"]
    result = together(place, "-m", "generation.finetune_generator", *options, "--json")
    assert result.stdout.count('"checkpoint"') == 1
    two, one = weights(place / "two/checkpoint"), weights(place / "run/checkpoint")
    for name, weight in one.items():  # each process takes its half of the same batch
        torch.testing.assert_close(two[name], weight, atol=2e-3, rtol=0)
    written, alone = (sorted(p.name for p in (place / r).rglob("*")) for r in ("two", "run"))
    assert written == alone
