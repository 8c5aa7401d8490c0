"""finetune-generator --dry-run: what a training takes, without fetching or allocating anything."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.families import load_training_recipe, trainable
from generation.finetune_generator import finetune_generator
from generation.networks.gpus import GPUS
from generation.training.config import TrainingConfig
from generation.training.memory import TrainingMemory, training_memory
from generation.training.plan import training_plan
from generation.training.recipe import BUILTIN, TrainingRecipe
from release.classes.class_list import load_classes
from release.errors import UserError


@pytest.fixture(autouse=True)
def _nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def plan_of(recipe: str, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    finetune_generator(recipe=recipe, dry_run=True, as_json=True, **options)
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_the_papers_trainings_are_planned(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps, batches and optimizers as printed; parameters as DeepFloyd says, in billions."""
    expected = {
        "imagenet-if-64": (4.3, 210_000, "adafactor", "DeepFloyd/IF-I-XL-v1.0"),
        "imagenet-if-256": (1.2, 490_000, "adam", "DeepFloyd/IF-II-L-v1.0"),
    }
    for name, (billions, steps, optimizer, start) in expected.items():
        plan = plan_of(name, capsys, gpu="h200")
        assert round(plan["parameters"] / 1e9, 1) == billions
        assert (plan["steps"], plan["batch"], plan["optimizer"]) == (steps, 2048, optimizer)
        assert plan["start"] == start
        assert plan["images"] == steps * 2048
        assert plan["flops"] == plan["flops_image"] * plan["images"]
        assert [share["gpus"] for share in plan["shares"]] == [1, 8, 64]
        for share in plan["shares"]:
            assert share["fits"]
            assert share["images"] * share["accumulation"] * share["gpus"] == 2048
            assert share["total"] == sum(share["bytes"].values())
            moments = {"adafactor": 0, "adam": 2}[optimizer]
            assert share["bytes"]["weights"] == 4 * plan["parameters"]
            assert share["bytes"]["optimizer"] == moments * share["bytes"]["weights"]
            seconds = share["hours"] * 3600 * share["gpus"]
            assert plan["flops"] / seconds == pytest.approx(0.4 * 989e12)


def test_a_lora_is_planned_beside_what_it_leaves_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    """Frozen are the weights, in bfloat16, and the embeddings of 1000 prompts and the empty one."""
    plan = plan_of("imagenet-flux2-klein-lora", capsys)
    frozen, rank = plan["frozen"], 16
    assert frozen == 3_875_544_576
    # of width 3072: 8 square layers in each of 5 blocks; one of 3 + 2 * 3 widths in each of 20
    assert plan["parameters"] == rank * 3072 * (5 * 8 * 2 + 20 * (1 + 9))
    prompts = len({c.prompt for c in load_classes("imagenet-1k")}) + 1
    for share in plan["shares"]:
        assert share["bytes"]["frozen"] == 2 * (frozen + prompts * 512 * 7680)
        assert share["bytes"]["weights"] == 4 * plan["parameters"]


@pytest.mark.parametrize("name", sorted(path.stem for path in BUILTIN.glob("fashion-*.toml")))
def test_every_recipe_has_a_plan(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    finetune_generator(recipe=name, dry_run=True)
    said, told = capsys.readouterr()
    recipe = load_training_recipe(name)
    assert told == f"counting the network of {recipe.name}\n"
    training = recipe.training
    assert f"M parameters, {training.optimizer}, float32" in said
    assert said.count("images at once") == 2  # and one image of a batch of 64 on 64 GPUs, or none
    undivided = f"a batch of {training.batch} does not divide over"
    on_64 = "1 image at once (accumulation = 1)" if training.batch == 64 else undivided
    assert f"64 GPUs: {on_64}" in said


def test_a_model_that_is_not_known_here_is_one_line() -> None:
    with pytest.raises(UserError, match=r"the network of me/other is not known here: .*IF-I-M-v1"):
        finetune_generator(recipe="imagenet-if-64", dry_run=True, start="me/other")


def test_without_a_network_a_training_ends_in_one_line() -> None:
    recipe = load_training_recipe("imagenet-if-64")
    with pytest.raises(UserError) as error:
        trainable(recipe.generator).with_start(recipe, recipe.start)
    said = str(error.value)
    assert "DeepFloyd/IF-I-XL-v1.0 is not on this machine and the Hub did not give it" in said
    assert said.endswith("name a local folder or a mirror by --from")
    assert "\n" not in said


def test_a_training_needs_data_and_a_folder() -> None:
    with pytest.raises(UserError, match="a training needs --data and --out"):
        finetune_generator(recipe="imagenet-if-64")


def recipe_of(**training: Any) -> TrainingRecipe:
    config = TrainingConfig(**{"steps": 10, "warmup": 0, **training})
    return TrainingRecipe(name="r", description="", classes="", training=config)


def test_as_many_images_at_once_as_fit() -> None:
    """1 GB a copy of the weights, 2 GB an image: 21.6 GB of a GPU of 24 are planned with."""
    one = TrainingMemory(250_000_000, 0, 2 * 12 * 10**9, images=12, flops=12 * 10**12)
    plan = training_plan(recipe_of(batch=12, optimizer="adam"), None, one, "rtx-4090", 0.5)
    alone, eight, many = plan.shares
    assert (alone.images, alone.accumulation, alone.total) == (6, 2, 17 * 10**9)
    assert alone.hours == pytest.approx(3 * 12 * 10 * 1e12 / (0.5 * 82.6e12) / 3600)
    assert eight.problem == "a batch of 12 does not divide over 8 GPUs"
    assert many.problem is not None


def test_what_does_not_fit_is_said() -> None:
    one = TrainingMemory(6_000_000_000, 0, 10**9, images=1, flops=10**12)
    plan = training_plan(recipe_of(batch=64, optimizer="adam"), None, one, "a100-40", 0.5)
    assert [(share.fits, share.hours) for share in plan.shares] == [(False, None)] * 3
    assert "1 GPU: does not fit; with one image at once it takes 121 GB" in "\n".join(plan.lines())


@pytest.mark.parametrize(("gpu", "share"), [("h900", 0.4), ("h100", 0.0), ("h100", 1.5)])
def test_a_gpu_or_share_that_cannot_be_is_one_line(gpu: str, share: float) -> None:
    one = TrainingMemory(1, 0, 1, images=1)
    with pytest.raises(UserError, match=", ".join(GPUS) if gpu == "h900" else "--utilisation"):
        training_plan(recipe_of(batch=64), None, one, gpu, share)


class Attending(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(8, 24, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind()
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention_is_planned_as_it_is_computed() -> None:
    """Without its matrix of weights, which alone would be 2 x 1000 x 1000 floats an image."""
    network = Attending().to("meta")
    config = TrainingConfig(steps=1, batch=2, warmup=0)
    found = training_memory(
        network, lambda n: network(torch.zeros(n, 1000, 8, device="meta")), config, 1
    )
    # x, q, k, v and the output, 8 floats a token; the sum of its weights, of 2 heads
    assert found.activations == pytest.approx(2 * 1000 * (5 * 8 + 2) * 4, rel=0.01)
    products = 2 * 1000 * 8 * 24 + 2 * 2 * (2 * 1000 * 1000 * 4)  # of one image
    assert found.flops == 2 * products
