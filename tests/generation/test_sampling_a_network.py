"""Sampling a real, untrained U-Net: what is evaluated, and what an image depends on."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import ScheduleConfig
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.sampling import guided_denoiser
from generation.generator import ImageBatch
from release.errors import UserError
from tests.models.tiny_network import PROMPTS, tiny_network


def batch(network: PixelUNet, seeds: Sequence[int]) -> ImageBatch:
    """An image's prompt and parent follow from its seed, as in a release."""
    low, parents = network.config.low_resolution, None
    if low is not None:
        rngs = [np.random.default_rng(seed) for seed in seeds]
        grey = np.stack([rng.integers(0, 256, (low, low, 1), dtype=np.uint8) for rng in rngs])
        parents = grey.repeat(3, axis=3)  # the network has one channel
    labels = [seed % 2 for seed in seeds]
    prompts = [PROMPTS[label] for label in labels]
    return ImageBatch(prompts, labels, seeds, parents, network.config.resolution)


def images(network: PixelUNet, seeds: Sequence[int], settings: SamplerConfig) -> np.ndarray:
    return PixelUNetGenerator(network).sample(batch(network, seeds), settings)


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpm-solver++"])
@pytest.mark.parametrize(("guidance", "evaluations_a_step"), [(1.0, 1), (1.25, 2), (0.0, 2)])
def test_guidance_of_one_runs_half_the_network(
    method: str, guidance: float, evaluations_a_step: int
) -> None:
    network, evaluated = tiny_network(), []
    network.unet.register_forward_hook(lambda _, inputs, __: evaluated.append(len(inputs[0])))
    settings = SamplerConfig.model_validate({"method": method, "steps": 6, "guidance": guidance})
    images(network, [1, 2, 3], settings)
    assert evaluated == [3] * 6 * evaluations_a_step  # one shape, guided or not
    assert sum(evaluated) == 3 * settings.network_evaluations


def test_the_network_first_sees_pure_noise_at_the_last_index() -> None:
    network, seen = tiny_network(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[:2]))
    images(network, [5], SamplerConfig(steps=7))
    noise = next(image_noise([5], (1, 8, 8)))
    assert torch.equal(seen[0][0], torch.from_numpy(noise))
    assert [int(t[0]) for _, t in seen] == [99, 82, 66, 50, 33, 16, 0]


def test_guidance_is_imagens() -> None:
    """uncond + w * (cond - uncond): w = 1 is the conditional network, w = 0 the unconditional."""
    network = tiny_network()
    x, t = torch.randn(2, 1, 8, 8), torch.full((2,), 50)
    prompt, null = torch.tensor([0, 1]), torch.tensor([2, 2])
    conditional, unconditional = network(x, t, prompt), network(x, t, null)
    for w in (0.0, 1.0, 1.25, 5.0):
        guided, v = guided_denoiser(network, prompt, w, None, 0.0)(x, 50)
        expected = unconditional + w * (conditional - unconditional)
        torch.testing.assert_close(guided, expected, atol=1e-5, rtol=1e-4)
        assert v is None


def test_a_learned_variance_is_the_conditional_halfs() -> None:
    network = tiny_network(variance="learned")
    x, t = torch.randn(2, 1, 8, 8), torch.full((2,), 50)
    prompt, null = torch.tensor([0, 1]), torch.tensor([2, 2])
    conditional, unconditional = network(x, t, prompt), network(x, t, null)
    assert conditional.shape == (2, 2, 8, 8)
    guided, v = guided_denoiser(network, prompt, 3.0, None, 0.0)(x, 50)
    expected = unconditional[:, :1] + 3 * (conditional[:, :1] - unconditional[:, :1])
    torch.testing.assert_close(guided, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(v, conditional[:, 1:], atol=1e-5, rtol=1e-4)
    _, unguided_v = guided_denoiser(network, prompt, 1.0, None, 0.0)(x, 50)
    torch.testing.assert_close(unguided_v, v, atol=1e-5, rtol=1e-4)


STAGES = {
    "base": {},
    "super-resolution": {"low_resolution": 4, "patch": 2},
    "learned variance": {"variance": "learned"},
}
SETTINGS = {
    "ddpm": SamplerConfig(steps=5, guidance=1.25, gamma=0.3, threshold="dynamic"),
    "ddim": SamplerConfig(method="ddim", steps=5, eta=0.5),
    "dpm-solver++": SamplerConfig(method="dpm-solver++", steps=5, guidance=2.0),
}


def states(network: PixelUNet, seeds: Sequence[int], settings: SamplerConfig) -> torch.Tensor:
    """x at every step and, as the last one, the images: float[steps + 1, N, C, H, W]."""
    seen = []
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    final = images(network, seeds, settings)[..., :1].transpose(0, 3, 1, 2)
    hook.remove()
    return torch.stack([x[: len(seeds)] for x in seen] + [torch.from_numpy(final).float()])


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("stage", STAGES)
def test_an_image_does_not_depend_on_its_place_or_its_neighbours(stage: str, method: str) -> None:
    """Bitwise, in float at every step: rounding to 8 bits could hide a difference."""
    network = tiny_network(**STAGES[stage])
    settings = SETTINGS[method]
    if stage == "learned variance":
        settings = settings.model_copy(update={"gamma": 0.0})
    if stage == "super-resolution":
        settings = settings.model_copy(update={"noise_augmentation": 0.2})
    seeds = [11, 22, 33, 44, 55, 66]
    first = states(network, seeds, settings)
    assert torch.equal(first, states(network, seeds[::-1], settings).flip(1))
    others = states(network, [22, 7, 8, 9, 2**53 - 1, 10], settings)
    assert torch.equal(first[:, 1], others[:, 0])
    assert not torch.equal(first[-1, 1], first[-1, 3])  # the same prompt, another seed
    assert not torch.equal(first[-1, 0], others[-1, 0])


def test_a_parent_is_noised_by_its_own_stream_and_the_network_told_how_much() -> None:
    network, seen = tiny_network(low_resolution=4), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3:5]))
    seeds, level = [3, 4], 0.3
    images(network, seeds, SamplerConfig(steps=2, noise_augmentation=level))
    clean = batch(network, seeds).parents[..., :1].transpose(0, 3, 1, 2) / 127.5 - 1
    noise = next(image_noise([2**64 - 1 - seed for seed in seeds], (1, 4, 4)))
    expected = np.cos(level * np.pi / 2) * clean + np.sin(level * np.pi / 2) * noise
    for parent, told in seen:
        np.testing.assert_allclose(parent.numpy(), expected, atol=1e-6)
        assert told.tolist() == pytest.approx([level * 100] * 2)  # of 100 steps
    seen.clear()
    images(network, seeds, SamplerConfig(steps=2))
    np.testing.assert_allclose(seen[0][0].numpy(), clean, atol=1e-6)
    assert seen[0][1].tolist() == [0, 0]


def test_the_network_hears_of_the_augmentation() -> None:
    network = tiny_network(low_resolution=4)
    x, parent, prompt = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 4, 4), torch.tensor([0])
    out = [guided_denoiser(network, prompt, 1.0, parent, level)(x, 9)[0] for level in (0.0, 0.4)]
    assert not torch.allclose(*out)


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_a_scaled_input_is_brought_to_unit_deviation(input_scale: float) -> None:
    schedule = ScheduleConfig(num_steps=100, input_scale=input_scale)
    network, seen = tiny_network(schedule=schedule), []
    network.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(3, 1, 8, 8) * torch.tensor([0.2, 0.6, 1.4]).reshape(3, 1, 1, 1)
    network(x, torch.full((3,), 50), torch.tensor([0, 1, 0]))
    unit = x / x.flatten(1).std(dim=1).reshape(3, 1, 1, 1)
    torch.testing.assert_close(seen[0], x if input_scale == 1 else unit)


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        ({"variance": "learned"}, {"gamma": 0.3}, "learned its variance"),
        ({}, {"noise_augmentation": 0.1}, "no parent to add noise to"),
    ],
)
def test_a_setting_without_effect_is_refused(
    stage: dict[str, object], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        images(tiny_network(**stage), [1], SamplerConfig(steps=2, **settings))


def test_noise_comes_from_each_image_seed_alone() -> None:
    shape, seeds = (3, 5, 5), [1, 2, 2**53 - 1, 0]
    alone = [
        [next(stream)[0] for _ in range(3)] for stream in (image_noise([s], shape) for s in seeds)
    ]
    together = image_noise(seeds, shape)
    for draw in range(3):
        rows = next(together)
        assert rows.dtype == np.float32
        for row, own in zip(rows, alone, strict=True):
            np.testing.assert_array_equal(row, own[draw])
    assert not np.array_equal(alone[0][0], alone[1][0])
    assert not np.array_equal(alone[0][0], alone[0][1])


def test_noise_is_standard_normal_and_seeds_are_independent() -> None:
    noise = next(image_noise(range(2000), (1, 16, 16))).reshape(2000, 256)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    neighbours = (noise[:-1] * noise[1:]).mean(1)  # consecutive seeds, 256 pixels each
    assert np.abs(neighbours).max() < 5 / 16


def test_noise_drawn_ahead_is_the_same_noise() -> None:
    expected = image_noise([3, 4], (1, 4, 4))
    with ahead_of_need(image_noise([3, 4], (1, 4, 4))) as draw:
        for _ in range(5):
            np.testing.assert_array_equal(draw(), next(expected))
