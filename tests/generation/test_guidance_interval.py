"""Guidance within an interval of noise levels, along a noise schedule: what is asked, and what for.

The samplers are written out here in float64, from the papers' equations.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import cos, exp, log, pi, sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.diffusion.edm_levels import flow_time
from generation.diffusion.guidance import autoguided, guided
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.diffusion.steps import acting, guided_steps
from generation.families import trainable
from generation.families.adm.networks import NETWORKS
from generation.families.adm.sampling import GuidedDiffusion
from generation.families.deepfloyd_if.pipeline import guided_denoiser as if_denoiser
from generation.families.dit.sampling import guided_denoiser as dit_denoiser
from generation.families.latent_diffusion.sampling import guided_denoiser as ldm_denoiser
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.generator import ImageBatch
from tests.models.tiny_denoisers import KINDS, PROMPTS, tiny_denoiser
from tests.models.tiny_network import tiny_network
from tests.models.tiny_transformers import tiny_denoiser as tiny_transformer

T, LOW, HIGH, WEIGHT = 100, 0.25, 0.7, 1.8
TOLD, UNTOLD, SLOPE = 0.7, -0.5, 0.3  # a network says x0 = SLOPE x + one of the two
SCHEDULE = NoiseSchedule(ScheduleConfig(name="cosine", num_steps=T))
METHODS = ("ddpm", "ddim", "dpm-solver++")


def table() -> list[float]:
    """Nichol & Dhariwal 2021, eq. 17."""
    levels = [cos((i / T + 0.008) / 1.008 * pi / 2) ** 2 for i in range(T + 1)]
    found, product = [], 1.0
    for before, after in pairwise(levels):
        product *= 1 - min(0.999, 1 - after / before)
        found.append(product)
    return found


def noise_share(abar: float) -> float:
    return sqrt(1 - abar) / (sqrt(abar) + sqrt(1 - abar))


def acts(abar: float) -> bool:
    return LOW <= noise_share(abar) <= HIGH


def config_of(method: Any, steps: int = 12, **changes: Any) -> SamplerConfig:
    settings = {"guidance": WEIGHT, "threshold": "none", "guidance_interval": (LOW, HIGH)}
    return SamplerConfig(method=method, steps=steps, **settings | changes)


def visited(method: str, steps: int) -> list[float]:
    """abar of each step, and 1 after the last."""
    points = np.linspace(T - 1, 0, steps + (method == "dpm-solver++"))
    return [table()[round(point)] for point in points[:steps]] + [1.0]


def reference(method: str, steps: int, noises: Iterator[np.ndarray]) -> np.ndarray:
    """Ho et al. 2020, eq. 7; Song et al. 2021, eq. 12; Lu et al. 2022, algorithm 2."""
    x, before = next(noises), None
    abars = visited(method, steps)
    for now, after in pairwise(abars):
        guided_mean = UNTOLD + WEIGHT * (TOLD - UNTOLD) if acts(now) else TOLD
        x0 = SLOPE * x + guided_mean
        if after == 1.0:
            return x0
        alpha, sigma, alpha_s, sigma_s = (
            *(sqrt(now), sqrt(1 - now)),
            *(sqrt(after), sqrt(1 - after)),
        )
        if method == "ddim":
            x = alpha_s * x0 + sigma_s * (x - alpha * x0) / sigma
        elif method == "ddpm":
            beta = 1 - now / after
            mean = (alpha_s * beta * x0 + sqrt(now / after) * sigma_s**2 * x) / sigma**2
            x = mean + sqrt(beta) * sigma_s / sigma * next(noises)
        else:
            h = log(alpha_s / sigma_s) - log(alpha / sigma)
            ahead = x0
            if before is not None:
                ratio = before[1] / h
                ahead = (1 + 1 / (2 * ratio)) * x0 - before[0] / (2 * ratio)
            before = (x0, h)
            x = sigma_s / sigma * x - alpha_s * (exp(-h) - 1) * ahead
    raise AssertionError


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_step_s_share_of_noise_is_that_of_a_flow_and_of_edm_at_its_ratio(scale: float) -> None:
    config = ScheduleConfig(name="linear-signal", num_steps=T, input_scale=scale)
    for t in (0, 30, 99):
        abar = float(NoiseSchedule(config).alphas_cumprod[t])
        ratio = scale * sqrt(abar) / sqrt(1 - abar)  # of signal and noise
        share = float(NoiseSchedule(config).noise_shares[t])
        assert (1 - share) / share == pytest.approx(ratio)  # of the linear path
        assert 1 - flow_time(1 / ratio) == pytest.approx(share)  # of EDM, sigma = 1 / ratio
    np.testing.assert_allclose(SCHEDULE.noise_shares, list(map(noise_share, table())), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_guidance_acts_within_the_interval_alone(method: str) -> None:
    config, asked = config_of(method), []

    def evaluate(x: Tensor, t: Tensor, told: Tensor, _: Any, __: Any) -> tuple[Tensor, None]:
        asked.append((int(t[0]), bool(told[0] == 1)))
        mean = torch.tensor([TOLD, UNTOLD], dtype=torch.float64)[told]
        return SLOPE * x + mean.view(-1, 1, 1, 1), None

    noises = np.random.default_rng(3).standard_normal((20, 2, 1, 3, 3))
    rows = iter(noises)
    denoise = guided(evaluate, torch.zeros(2).long(), 1, WEIGHT, None, acting(SCHEDULE, config))
    made = sample(denoise, SCHEDULE, "x0", config, lambda: torch.from_numpy(next(rows)))
    np.testing.assert_allclose(made, reference(method, 12, iter(noises)), rtol=1e-9)
    abars = visited(method, 12)[:-1]
    assert [table()[t] for t, null in asked if not null] == pytest.approx(abars)
    within = [abar for abar in abars if acts(abar)]
    assert [table()[t] for t, null in asked if null] == pytest.approx(within)
    assert 0 < guided_steps(SCHEDULE, config) == len(within) < 12


@pytest.mark.parametrize("method", METHODS)
def test_a_guide_is_asked_within_the_interval_alone(method: str) -> None:
    config, asked = config_of(method), []

    def weak(x: Tensor, t: int) -> tuple[Tensor, None]:
        asked.append(t)
        return SLOPE * x + UNTOLD, None

    noises = np.random.default_rng(3).standard_normal((20, 2, 1, 3, 3))
    rows = iter(noises)
    denoise = autoguided(
        lambda x, _: (SLOPE * x + TOLD, None), weak, WEIGHT, acting(SCHEDULE, config)
    )
    made = sample(denoise, SCHEDULE, "x0", config, lambda: torch.from_numpy(next(rows)))
    np.testing.assert_allclose(made, reference(method, 12, iter(noises)), rtol=1e-9)
    assert len(asked) == guided_steps(SCHEDULE, config)


def test_what_stop_leaves_out_is_not_counted() -> None:
    config = config_of("ddim", stop=0.5)
    end = cos(0.25 * pi) ** 2
    wanted = sum(acts(abar) for abar in visited("ddim", 12)[:-1] if abar < end)
    assert 0 < guided_steps(SCHEDULE, config) == wanted < guided_steps(SCHEDULE, config_of("ddim"))


def test_halves_are_one_batch_on_a_gpu_once_both_carry_something() -> None:
    """On the meta device, which is no CPU either."""
    asked: list[tuple[int, Any]] = []

    def evaluate(x: Tensor, _: Tensor, told: Tensor, __: Any, carried: Any) -> tuple[Tensor, Any]:
        assert len(told) == len(x)
        asked.append((len(x), None if carried is None else len(carried)))
        return x, x[:, 0]

    condition = torch.zeros(3, dtype=torch.int64, device="meta")
    denoise = guided(evaluate, condition, 1, WEIGHT, None, lambda t: t in (50, 30, 20))
    for t in (99, 50, 30, 20, 5):
        said, _ = denoise(torch.zeros(3, 1, 2, 2, device="meta"), t)
        assert said.shape == (3, 1, 2, 2)
    assert asked == [(3, None), (3, 3), (3, None), (6, 6), (6, 6), (3, 3)]


def counted(networks: list[torch.nn.Module]) -> list[list[int]]:
    """Of each network, how many images each of its calls is given."""
    found: list[list[int]] = [[] for _ in networks]
    for network, calls in zip(networks, found, strict=True):
        network.register_forward_hook(
            lambda _, inputs, __, calls=calls: calls.append(len(inputs[0]))
        )
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by_guide", [False, True])
def test_a_pixel_stage_asks_no_more_than_is_counted(method: str, by_guide: bool) -> None:
    networks = [tiny_network(), tiny_network()][: 1 + by_guide]
    calls = counted([network.unet for network in networks])
    config = config_of(method, threshold="static")
    rows = (["bag", "coat"], [0, 1], [5, 6])
    images: Any = PixelUNetGenerator(*networks).sample(ImageBatch(*rows, None, 8), config)
    wanted = guided_steps(SCHEDULE, config)
    assert [sum(found) for found in calls] == ([24, 2 * wanted] if by_guide else [24 + 2 * wanted])
    always = config.model_copy(update={"guidance_interval": (0.0, 1.0)})
    never = config.model_copy(update={"guidance_interval": None})
    batch = ImageBatch(*rows, None, 8)
    ends: Any = [PixelUNetGenerator(*networks).sample(batch, one) for one in (always, never)]
    np.testing.assert_array_equal(*ends)
    turned = ImageBatch(*(row[::-1] for row in rows), None, 8)
    again: Any = PixelUNetGenerator(*networks).sample(turned, config)
    np.testing.assert_array_equal(again[::-1], images)  # an image follows from itself alone


def tiny(kind: str) -> Any:
    """On pixels, also where the family may be on latents."""
    if kind == "dit":
        return tiny_transformer("dit", stage={"latents": None})
    return tiny_denoiser(kind)


@pytest.mark.parametrize("kind", ["unet", "uvit", "rin", "sr3-base", "ldm", "adm", "cdm", "dit"])
def test_every_family_takes_a_weaker_network_as_guide(kind: str) -> None:
    """At weight 1 it is not asked; itself as its guide leads nowhere."""
    network = tiny(kind)
    family = trainable("dit" if kind == "dit" else KINDS[kind][0]).family
    stage, parents = network.config.stage, None
    if (side := stage.low_resolution) is not None:
        parents = np.random.default_rng(1).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    batch = ImageBatch(list(PROMPTS[:2]), [0, 1], [5, 6], parents, 16)
    alone: Any = family.sampler(network).sample(batch, SamplerConfig(method="ddim", steps=2))
    guided = SamplerConfig(method="ddim", steps=2, guidance=2.0)
    by_itself: Any = family.sampler(network, network).sample(batch, guided)
    assert np.abs(by_itself.astype(int) - alone).max() <= 1


@pytest.mark.parametrize("kind", ["unet", "uvit", "rin", "sr3", "ldm", "adm", "cdm", "dit"])
def test_every_family_asks_no_more_than_is_counted(kind: str) -> None:
    network = tiny(kind)
    stage = network.config.stage
    generator = trainable("dit" if kind == "dit" else KINDS[kind][0]).family.sampler(network)
    (calls,) = counted([network])
    parents, side = None, stage.low_resolution
    if side is not None:
        parents = np.random.default_rng(1).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    batch = ImageBatch(list(PROMPTS[:2]), [0, 1], [5, 6], parents, 16)
    config = config_of("ddim", 8, threshold="static")
    generator.sample(batch, config)
    wanted = guided_steps(NoiseSchedule(stage.schedule), config)
    assert 0 < wanted < 8
    assert sum(calls) == 2 * (8 + wanted)


@pytest.mark.parametrize("family", ["ldm", "dit", "if"])
def test_published_networks_are_asked_once_where_guidance_does_not_act(family: str) -> None:
    asked: list[tuple[int, int]] = []

    def network(x: Tensor, times: Tensor, told: Tensor, **_: Any) -> tuple[Tensor]:
        assert len(x) == len(told)
        asked.append((int(times[0]), len(x)))
        return (torch.cat([x, x], dim=1)[:, : 4 if family == "ldm" else 8],)

    labels, act = torch.tensor([1, 0]), acting(SCHEDULE, config_of("ddim"))
    given: Any = network
    if family == "ldm":
        denoise = ldm_denoiser(given, torch.randn(3, 5), labels, 2.0, torch.float32, act)
    elif family == "if":
        denoise = if_denoiser(given, torch.randn(4, 3, 5), 2.0, None, 0, act)
    else:
        given = SimpleNamespace(config=SimpleNamespace(num_embeds_ada_norm=2))
        given = _Called(network, given.config)
        denoise = dit_denoiser(given, labels, 2.0, torch.float32, act)
    for t in range(T):
        denoise(torch.zeros(2, 4, 2, 2), t)
    assert asked == [(t, 4 if acts(table()[t]) else 2) for t in range(T)]


class _Called:
    def __init__(self, call: Any, config: Any) -> None:
        self.call, self.config = call, config

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.call(*inputs, **named)


def test_openai_s_networks_ask_their_guide_within_the_interval() -> None:
    asked: list[int] = []

    def unet(x: Tensor, times: Tensor, _: Tensor, **__: Any) -> tuple[Tensor]:
        asked.append(int(times[0]))
        return (torch.cat([x, x], dim=1),)

    generator = object.__new__(GuidedDiffusion)
    generator._unet = generator._guide = unet
    generator._placement = SimpleNamespace(dtype=torch.float32)  # type: ignore[assignment]
    schedule, config = NoiseSchedule(NETWORKS["adm-64"].schedule), config_of("ddim")
    denoise = generator._denoiser(torch.tensor([0]), None, schedule, config)
    for t in (0, 500, 999):
        denoise(torch.zeros(1, 3, 2, 2), t)
    assert asked == [0, 500, 500, 999]
