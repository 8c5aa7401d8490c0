"""Linear layers in fp8: their numbers, which layers they are, what is refused.

A CPU multiplies in fp8 as well, slowly.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2Transformer2DModel
from torch import nn

from builder.planning.checkpoints import require_precision, require_precision_here
from builder.planning.device_cost import Device, device_cost
from builder.planning.recipe import load_recipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import fp8_source, generator_source, work_of
from generation.generator import ImageBatch
from generation.networks.fp8.linear import Fp8Linear, scaled_rows
from generation.networks.fp8.running import fp8_problem
from generation.networks.placement import Placement
from release.errors import UserError
from tests.generation.families.references.tiny_deepfloyd import PROMPTS
from tests.models.tiny_loras import save_lora
from tests.models.tiny_models import save_flux2_klein, save_sdxl

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
RECIPE = "imagenet-flux2-klein-distilled-fp8"
NATIVE = SamplerConfig(method="native", steps=2, guidance=1.0)
BATCH = ImageBatch(PROMPTS[:3], [0, 1, 2], [11, 22, 33], None, 16)


def e4m3() -> np.ndarray:
    """Those that are not negative: 4 bits of exponent, its least subnormal, 3 of mantissa."""
    subnormal = [m / 8 * 2.0**-6 for m in range(8)]
    normal = [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8)]
    return np.array([*subnormal, *normal][:-1])  # the last is NaN


def test_rows_are_rounded_to_the_nearest_of_fp8s_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 64).bfloat16() * 10.0 ** torch.arange(-3, 4)[:, None]
    rounded, scale = scaled_rows(x)
    assert scale.shape == (7, 1)
    assert rounded.float().abs().amax(dim=1).tolist() == [448.0] * 7
    values = (x.double().abs() / scale.double()).numpy()
    grid = e4m3()
    best = np.abs(values[..., None] - grid).min(axis=-1)
    found = np.abs(values - rounded.double().abs().numpy())
    np.testing.assert_allclose(found, best, atol=1e-4)  # of a division in float32
    assert torch.equal(rounded.float().sign() * (rounded.float() != 0), rounded.float().sign())
    zero, one = scaled_rows(torch.zeros(1, 16).bfloat16())
    assert zero.float().abs().max() == 0
    assert one.isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_says_what_one_in_float64_does_of_the_rounded_numbers(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=bias).bfloat16().requires_grad_(False)
    quantised, x = Fp8Linear(layer), torch.randn(2, 5, 64).bfloat16()
    made = quantised(x)
    assert (made.shape, made.dtype) == ((2, 5, 32), torch.bfloat16)
    (rows, scale), (weight, of_weight) = scaled_rows(x.flatten(0, 1)), scaled_rows(layer.weight)
    exact = (rows.double() * scale) @ (weight.double() * of_weight).T
    exact = (exact + (layer.bias.double() if bias else 0)).view(2, 5, 32)
    np.testing.assert_allclose(made.double(), exact, rtol=2**-7, atol=2e-3)
    full = layer(x).double()
    assert 0.005 < (made.double() - full).norm() / full.norm() < 0.06  # it is fp8, and no more off


def test_a_row_depends_on_no_other() -> None:
    torch.manual_seed(0)
    layer = Fp8Linear(nn.Linear(64, 32).bfloat16().requires_grad_(False))
    x = torch.randn(4, 64).bfloat16()
    made = layer(x)
    loud = x.clone()
    loud[1] *= 1e4
    loud[2] = torch.nan
    beside = layer(loud)
    assert torch.equal(beside[[0, 3]], made[[0, 3]])
    assert beside[2].isnan().all()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_flux2_klein(folder / "flux2")
    save_lora(folder / "lora", folder / "flux2")
    save_sdxl(folder / "sdxl")
    return folder


def test_the_linear_layers_of_blocks_run_so_and_no_others(models: Path) -> None:
    network = Flux2Transformer2DModel.from_pretrained(
        models / "flux2" / "transformer", torch_dtype=torch.bfloat16
    )
    linear = {name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    Placement("cpu", torch.bfloat16, fp8=True).place(network)
    changed = {name for name, layer in network.named_modules() if isinstance(layer, Fp8Linear)}
    assert changed == {name for name in linear if "transformer_blocks." in name}
    left = {name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    assert {"x_embedder", "context_embedder", "proj_out"} <= left
    kinds = {n: p.dtype for n, p in network.named_parameters() if n.endswith("weight")}
    assert {n for n, kind in kinds.items() if kind == torch.float8_e4m3fn} == {
        f"{name}.weight" for name in changed
    }
    assert sum(parameter.numel() for parameter in network.parameters()) > parameters


def test_a_pipeline_in_fp8_makes_about_the_same_images(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = generator_source("diffusers").load(models / "flux2", False).sample(BATCH, NATIVE)
    generator = fp8_source("diffusers").load_fp8(models / "flux2", False)
    images = generator.sample(BATCH, NATIVE)
    difference = np.abs(images.astype(int) - plain)
    assert 0 < difference.mean() < 6
    # and each from its own row alone
    turned = ImageBatch(PROMPTS[2::-1], [2, 1, 0], [33, 22, 11], None, 16)
    np.testing.assert_array_equal(generator.sample(turned, NATIVE)[::-1], images)
    seeded = generator.sample(replace(BATCH, seeds=[11, 99, 33]), NATIVE)
    assert (seeded != images).any(axis=(1, 2, 3)).tolist() == [False, True, False]


def test_what_cannot_run_in_fp8_is_refused(models: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="is a LoRA, which does not run in fp8"):
        fp8_source("diffusers").load_fp8(models / "lora", False)
    with pytest.raises(UserError, match="dit has no precision to choose; those that do: diffusers"):
        fp8_source("dit")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    unet = fp8_source("diffusers").load_fp8(models / "sdxl", False)
    with pytest.raises(UserError, match="UNet2DConditionModel has no transformer blocks that coul"):
        unet.sample(BATCH, NATIVE)


@pytest.mark.parametrize(
    ("gpus", "problem"),
    [
        ([], "needs a GPU of compute capability 8.9 or more, of which there is none here"),
        ([(8, 0)], "needs a GPU of compute capability 8.9 or more; card 0 has 8.0"),
        ([(9, 0), (7, 5)], "needs a GPU of compute capability 8.9 or more; card 1 has 7.5"),
        ([(8, 9)], None),
        ([(9, 0), (12, 0)], None),
    ],
)
def test_a_gpu_must_multiply_in_fp8(
    monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[int, int]], problem: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    assert fp8_problem() == problem
    stages = load_recipe(RECIPE).stages
    if problem is None:
        require_precision_here(stages)
        return
    with pytest.raises(UserError) as refused:
        require_precision_here(stages)
    assert str(refused.value) == (f'the stage at 1024 px has precision = "fp8", which {problem}')
    require_precision_here(load_recipe("imagenet-flux2-klein-distilled").stages)


def test_a_generator_without_the_precision_is_refused() -> None:
    (stage,) = load_recipe(RECIPE).stages
    require_precision([stage])
    with pytest.raises(UserError, match="generator sit has no precision to choose"):
        require_precision([stage.model_copy(update={"generator": "sit"})])


def test_operations_in_fp8_count_at_its_peak() -> None:
    """FLUX.2-klein's 5 + 20 blocks, 3072 wide, by hand: of each token as many in both kinds."""
    (stage,) = load_recipe(RECIPE).stages
    work = work_of(stage.generator, stage.checkpoint, stage.resolution)
    assert work is not None
    wide, hidden = 3072, 3 * 3072
    of_two_streams = 4 * wide**2 + wide * 2 * hidden + hidden * wide
    of_one = wide * (3 * wide + 2 * hidden) + (wide + hidden) * wide
    tokens = 64**2 + 512
    assert work.for_fp8 == 2 * tokens * (5 * of_two_streams + 20 * of_one)
    assert 0.8 < work.for_fp8 / work.evaluation < 0.82
    cost = device_cost(stage, Device.named("h100", 0.4))
    assert cost is not None
    rest = 4 * (work.evaluation - work.for_fp8) + work.decoding
    assert cost.seconds == pytest.approx(4 * work.for_fp8 / (0.4 * 1979e12) + rest / (0.4 * 989e12))
    assert "81% of them in fp8" in cost.basis
    assert device_cost(stage, Device.named("a100-80", 0.4)) is None
    half = device_cost(stage.model_copy(update={"precision": None}), Device.named("h100", 0.4))
    assert half is not None
    assert half.work is not None
    assert not half.work.in_fp8
    assert half.seconds == pytest.approx((rest + 4 * work.for_fp8) / (0.4 * 989e12))
