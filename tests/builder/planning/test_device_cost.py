"""What images take of a GPU: networks counted on the meta device, and hours that follow."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from builder.planning.device_cost import (
    DEFAULT_DEVICE,
    Device,
    Evaluations,
    device_cost,
    evaluations_of,
    known_evaluations,
)
from builder.planning.recipe import StageRecipe, load_recipe
from builder.planning.sampling import require_intervals
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import COUNTED, count_work, schedule_of, work_key, work_of
from generation.networks.flops import Work
from generation.networks.gpus import GPUS
from release.errors import UserError
from tests.conftest import ROOT
from tests.models.tiny_denoisers import save_denoiser
from tests.models.tiny_transformers import save_denoiser as save_transformer

OPEN = {"mit", "apache-2.0"}


def first_stage(recipe: str) -> StageRecipe:
    return load_recipe(recipe).stages[0]


@pytest.mark.parametrize(
    ("generator", "checkpoint", "side", "giga"),
    [
        # as Peebles & Xie 2023 count them, a multiply-add once
        ("dit", "facebook/DiT-XL-2-256@main", 256, 118.64),
        ("sit", "models/SiT-XL-2-256x256.pt", 256, 118.64),
        ("dit", "facebook/DiT-XL-2-512", 512, 524.60),
        ("adm-256", "256x256_diffusion.pt", 256, 1120),
        ("ldm", "cin256-v2.ckpt", 256, 104),
        ("jit", "JiT-B-16.pth", 256, 25),  # Li & He 2025, tables 7 and 8, in whole numbers
        ("jit", "JiT-L-16.pth", 256, 88),
        ("jit", "JiT-H-16.pth", 256, 182),
        ("lightning-dit", "lightningdit-xl-imagenet256-800ep.pt", 256, 118.64),
    ],
)
def test_counts_are_those_of_the_papers(
    generator: str, checkpoint: str, side: int, giga: float
) -> None:
    work = count_work(generator, checkpoint, side)
    assert work is not None
    assert work.evaluation == pytest.approx(2e9 * giga, rel=0.02 if giga < 100 else 0.005)
    assert work.precision == "half"


def test_what_was_counted_before_is_what_is_counted_now() -> None:
    """One network of each family. If this fails, run python -m benchmarks.count_flops, and
    look at what it changes."""
    script = runpy.run_path(str(ROOT / "benchmarks/count_flops.py"))
    table, asked = json.loads(COUNTED.read_text()), script["networks"]()
    assert set(table) <= {work_key(*one) for one in asked}
    imagenet = {one for one in asked if not one[1].startswith(("builtin:", "runs/fashion"))}
    assert {work_key(*one) for one in imagenet} <= set(table)
    of_family = {one[0]: one for one in reversed(asked) if one in imagenet}
    for key, work in script["counted"](of_family.values()).items():
        assert work == table[key]


def test_the_table_of_shard_sizes_has_the_minutes_of_a_dry_run() -> None:
    rows = re.findall(
        r"\| `(imagenet-[a-z0-9-]+)` \| ([\d,]+) \|.*\| ([\d.]+) min(?: at (\d+) px)? \|",
        (ROOT / "docs/recipes.md").read_text(),
    )
    assert len(rows) == 18
    for name, images, minutes, side in rows:
        recipe = load_recipe(name)
        assert recipe.shard.classes * recipe.shard.indices == int(images.replace(",", ""))
        costs = {stage.resolution: device_cost(stage, DEFAULT_DEVICE) for stage in recipe.stages}
        seconds = {at: cost.seconds for at, cost in costs.items() if cost is not None}
        longest = max(seconds, key=lambda at: seconds[at])
        assert side in ("", str(longest))
        told = seconds[longest] * int(images.replace(",", "")) / 60
        assert float(minutes) == pytest.approx(told, abs=0.051 if "." in minutes else 0.51)


def test_networks_trained_here_run_in_float32_and_follow_their_recipe_or_folder(
    tmp_path: Path,
) -> None:
    planned = work_of("rin", "runs/imagenet-rin-64/checkpoint", 64)
    assert planned is not None
    assert (planned.precision, planned.decoding) == ("single", 0)
    assert work_of("rin", "runs/imagenet-rin-64/checkpoint", 128) is None
    assert work_of("rin", "runs/imagenet-sr3-256/checkpoint", 256) is None
    assert work_of("rin", str(tmp_path / "none"), 64) is None
    own = work_of("rin", str(save_denoiser(tmp_path / "rin", "rin")), 16)
    assert own is not None
    assert 0 < own.evaluation < planned.evaluation / 1000
    on_latents = work_of("sit", str(save_transformer(tmp_path / "sit", "sit")), 16)
    assert on_latents is not None
    assert on_latents.decoding > 0


def test_seconds_follow_from_evaluations_gpu_and_share() -> None:
    stage = first_stage("imagenet-dit-256")
    work = work_of(stage.generator, stage.checkpoint, stage.resolution)
    assert work is not None
    one = device_cost(stage, Device.named("h100", 0.4))
    assert one is not None
    by_hand = 500 * work.evaluation / (0.4 * 989e12) + work.decoding / (0.4 * 67e12)
    assert one.seconds == pytest.approx(by_hand)
    assert one.hardware == "one NVIDIA H100 SXM 80 GB at 40% of its peak"
    assert "500 evaluations of 237.2 GFLOPs, 622.2 GFLOPs to decode in float32" in one.basis
    half = device_cost(stage, Device.named("h100", 0.2))
    assert half is not None
    assert half.seconds == pytest.approx(2 * one.seconds)
    sampler = stage.sampler.model_copy(update={"steps": 125, "guidance": 1.0})
    fewer = device_cost(stage.model_copy(update={"sampler": sampler}), DEFAULT_DEVICE)
    assert fewer is not None
    decoding = work.decoding / (0.4 * 67e12)
    assert fewer.seconds - decoding == pytest.approx((one.seconds - decoding) / 4)


def test_a_precision_has_its_own_peak() -> None:
    work = Work(evaluation=10**12, decoding=10**12, precision="single", decoded_in="half")
    gpu = GPUS["a100-40"]
    assert work.seconds(3, gpu, 1.0) == pytest.approx(3 / 19.5 + 1 / 312)


def test_what_a_recipe_states_is_not_counted() -> None:
    stage = first_stage("imagenet-dit-256")
    assert stage.cost is not None
    stated = stage.cost.model_copy(update={"seconds": 7.0, "hardware": "a card of mine"})
    cost = device_cost(stage.model_copy(update={"cost": stated}), DEFAULT_DEVICE)
    assert cost is not None
    assert (cost.seconds, cost.hardware, cost.work) == (7.0, "a card of mine", None)
    unknown = stage.model_copy(update={"checkpoint": "somebody/else"})
    assert device_cost(unknown, DEFAULT_DEVICE) is None
    with pytest.raises(ValueError, match="give seconds and hardware, or neither"):
        type(stage.cost).model_validate({"seconds": 1, "memory_gib": 1, "source": "x"})


def within(stage: StageRecipe, low: float, high: float, **sampler: object) -> StageRecipe:
    """The stage, guided between two shares of noise."""
    settings = stage.sampler.model_dump() | sampler | {"guidance_interval": (low, high)}
    return stage.model_copy(update={"sampler": SamplerConfig.model_validate(settings)})


def test_evaluations_within_an_interval_follow_from_the_checkpoint_s_schedule(
    tmp_path: Path,
) -> None:
    """DiT's betas: linear from 1e-4 to 0.02."""
    stage = first_stage("imagenet-dit-256")
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[
        np.round(np.linspace(999, 0, 250)).astype(int)
    ]
    ratio = np.sqrt(1 - abar) / np.sqrt(abar)
    wanted = int(((ratio >= 0.25) & (ratio <= 4)).sum())  # shares 0.2 and 0.8
    file = stage.model_copy(update={"checkpoint": "DiT-XL-2-256x256.pt"})
    assert evaluations_of(file) == Evaluations(250, 250)
    some = within(file, 0.2, 0.8)
    assert evaluations_of(some) == Evaluations(250, wanted)
    assert 0 < wanted < 250
    all_of_them, fewer = (device_cost(one, DEFAULT_DEVICE) for one in (file, some))
    assert all_of_them is not None
    assert fewer is not None
    assert fewer.work is not None
    decoding = fewer.work.decoding / (0.4 * 67e12)
    share = (fewer.seconds - decoding) / (all_of_them.seconds - decoding)
    assert share == pytest.approx((250 + wanted) / 500)
    folder = save_denoiser(tmp_path / "rin", "rin")
    own = within(stage, 0.2, 0.8, method="ddim", steps=10).model_copy(
        update={"generator": "rin", "checkpoint": str(folder), "resolution": 16}
    )
    found = evaluations_of(own)
    assert found is not None
    assert found.own == 10
    assert 0 < found.guiding < 10


def test_where_no_schedule_is_known_evaluations_are_not() -> None:
    stage = within(first_stage("fashion-mnist-sr3"), 0.2, 0.8, guidance=2.0)
    unknown = stage.model_copy(update={"checkpoint": "runs/elsewhere"})
    assert evaluations_of(unknown) is None
    assert device_cost(unknown, DEFAULT_DEVICE) is None
    with pytest.raises(UserError, match="checkpoint runs/elsewhere is not here, whose noise"):
        known_evaluations(unknown)
    for generator in ("biggan", "mar"):
        other = stage.model_copy(update={"generator": generator})
        with pytest.raises(UserError, match=f"generator {generator} takes no guidance_interval of"):
            evaluations_of(other)
        with pytest.raises(UserError, match=r"those that do: adm, adm-256, adm-64, .* pixel-unet"):
            require_intervals([other])


@pytest.mark.parametrize(
    ("generator", "checkpoint", "schedule"),
    [
        ("adm-64", "any.pt", {"name": "cosine"}),
        ("iddpm", "any.pt", {"name": "cosine", "num_steps": 4000}),
        ("ldm", "cin256-v2.ckpt", {"name": "scaled-linear", "beta_start": 0.0015}),
        ("rin", "runs/imagenet-rin-noise-schedule-64/checkpoint", {"name": "linear-signal"}),
        ("pixel-unet", "builtin:fashion-mnist-16", {"name": "cosine"}),
        ("pixel-unet", "runs/elsewhere", None),
        ("sit", "SiT-XL-2-256x256.pt", None),
    ],
)
def test_a_generator_tells_the_schedule_of_its_checkpoints(
    generator: str, checkpoint: str, schedule: dict[str, object] | None
) -> None:
    found = schedule_of(generator, checkpoint)
    if schedule is None:
        assert found is None
    else:
        assert found is not None
        assert schedule.items() <= found.model_dump().items()


@pytest.mark.parametrize(
    ("resolution", "recipe", "most"),
    [(256, "imagenet-imf-256", 50), (1024, "imagenet-flux2-klein-distilled", 500)],
)
def test_a_release_of_1_2_million_images_can_be_afforded(
    resolution: int, recipe: str, most: float
) -> None:
    """From openly licensed weights, in hours of an H100 at 40% of its peak."""
    found = load_recipe(recipe)
    assert found.license in OPEN
    costs = [device_cost(stage, DEFAULT_DEVICE) for stage in found.chain(resolution)]
    assert sum(cost.seconds for cost in costs if cost) * 1_200_000 / 3600 < most
    assert None not in costs
