"""What LoRAs of text-to-image models learn by, against the papers in float64."""

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.diffusers.latents import PatchedLatents, SeenLatents
from generation.families.diffusers.network import LoraNetwork
from generation.families.diffusers.objective import FlowTraining, LoraObjective
from generation.prompts.prompt_table import PromptTable
from generation.training.data.images import DrawnImages
from generation.training.denoising import NoisyTraining

N, CHANNELS, SIDE, NULL = 6, 4, 8, 2
SCALED = ScheduleConfig(name="scaled-linear", beta_start=0.00085, beta_end=0.012)


class Recorded(torch.nn.Module):
    """In a network's place: says a fixed function of what it sees, and keeps that."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))
        self.lora_a = torch.nn.Parameter(torch.tensor(0.25))
        self.seen: tuple[np.ndarray, ...] = ()


def asked(base: Any, x: Tensor, t: Tensor, text: dict[str, Tensor]) -> Tensor:
    base.seen = tuple(tensor.detach().numpy() for tensor in (x, t, text["prompt_embeds"]))
    return base.weight * x + base.lora_a


def network() -> LoraNetwork:
    return LoraNetwork(
        Recorded(), PromptTable(("a", "b", ""), {"prompt_embeds": torch.arange(3.0)}), asked
    )


def drawn(latents: np.ndarray) -> DrawnImages:
    conditions = torch.tensor([0, 1, 0, 1, 0, 1])
    numbers = ImageRandom(11, 0, torch.arange(N))
    return DrawnImages(torch.from_numpy(latents), None, conditions, numbers)


def objective(seen: SeenLatents, training: FlowTraining | NoisyTraining) -> LoraObjective:
    return LoraObjective(network(), seen, training)


def told(rng: ImageRandom) -> np.ndarray:
    dropped = rng.uniform().numpy() < 0.5
    return np.where(dropped, NULL, [0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_unet_learns_what_its_scheduler_states(prediction: Prediction) -> None:
    """eps or v = sqrt(abar) eps - sqrt(1 - abar) x, at abar of the scaled linear schedule."""
    latents = np.random.default_rng(3).normal(size=(N, CHANNELS, SIDE, SIDE)).astype(np.float32)
    training = NoisyTraining(prediction, NoiseSchedule(SCALED), NULL, 0.5, max_augmentation=0.0)
    found = objective(SeenLatents(None), training)
    loss = found.updates[0].loss(found.modules, drawn(latents))
    rng = ImageRandom(11, 0, torch.arange(N))
    t, noise = rng.integers(1000).numpy(), rng.normal(CHANNELS, SIDE, SIDE).double().numpy()
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)[t].reshape(-1, 1, 1, 1)
    x = np.sqrt(kept) * latents + np.sqrt(1 - kept) * noise
    target = (
        noise if prediction == "epsilon" else np.sqrt(kept) * noise - np.sqrt(1 - kept) * latents
    )
    base = found.modules["network"].base
    np.testing.assert_allclose(base.seen[0], x, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(base.seen[1], t)
    np.testing.assert_array_equal(base.seen[2], told(rng))
    assert loss.item() == pytest.approx(np.mean((0.5 * x + 0.25 - target) ** 2), rel=1e-6)


def test_a_flow_learns_its_velocity_on_normalised_patches() -> None:
    """eps - x on the straight path, times from the logit-normal; patches of 2 x 2 as channels."""
    rng = np.random.default_rng(4)
    latents = rng.normal(size=(N, CHANNELS, SIDE, SIDE)).astype(np.float32)
    mean = rng.normal(size=4 * CHANNELS).astype(np.float32)
    deviation = rng.uniform(0.5, 2, size=4 * CHANNELS).astype(np.float32)
    shaped: Callable[[np.ndarray], Tensor] = lambda a: torch.from_numpy(a).view(1, -1, 1, 1)  # noqa: E731
    seen = PatchedLatents(None, shaped(mean), shaped(deviation))
    found = objective(seen, FlowTraining(NULL, 0.5))
    loss = found.updates[0].loss(found.modules, drawn(latents))
    numbers, half = ImageRandom(11, 0, torch.arange(N)), SIDE // 2
    time = 1 / (1 + np.exp(-numbers.normal().double().numpy()))
    noise = numbers.normal(4 * CHANNELS, half, half).double().numpy()
    patches = np.empty((N, 4 * CHANNELS, half, half))
    for channel in range(CHANNELS):
        for row in range(2):
            for column in range(2):
                place = 4 * channel + 2 * row + column
                patches[:, place] = latents[:, channel, row::2, column::2]
    clean = (patches - mean.reshape(1, -1, 1, 1)) / deviation.reshape(1, -1, 1, 1).astype(
        np.float64
    )
    share = time.reshape(-1, 1, 1, 1)
    x = (1 - share) * clean + share * noise
    base = found.modules["network"].base
    np.testing.assert_allclose(base.seen[0], x, rtol=0, atol=2e-6)
    np.testing.assert_allclose(base.seen[1], time, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(base.seen[2], told(numbers))
    assert loss.item() == pytest.approx(np.mean((0.5 * x + 0.25 - (noise - clean)) ** 2), rel=1e-6)


def test_patches_are_normalised_as_their_autoencoder_states() -> None:
    norm = torch.nn.BatchNorm2d(16, affine=False)
    norm.running_mean, norm.running_var = torch.arange(16.0), torch.arange(1.0, 17.0)
    autoencoder = SimpleNamespace(
        network=SimpleNamespace(bn=norm, config=SimpleNamespace(batch_norm_eps=0.5))
    )
    seen = PatchedLatents.by(autoencoder, encodes=False)  # type: ignore[arg-type]
    assert seen.autoencoder is None
    made = seen.seen(torch.zeros(1, 4, 2, 2)).flatten().numpy()
    np.testing.assert_allclose(made, -np.arange(16) / np.sqrt(np.arange(1.5, 17.5)), rtol=1e-6)


def test_a_copy_shares_what_is_frozen_and_its_state_is_the_adapter() -> None:
    one = network()
    other = deepcopy(one)
    assert other.prompts is one.prompts
    assert other.base is not one.base
    assert other.base.weight is one.base.weight
    assert other.base.lora_a is not one.base.lora_a
    assert [*one.state_dict()] == ["base.lora_a"]
    other.load_state_dict({"base.lora_a": torch.tensor(1.0)})
    assert (other.base.lora_a.item(), one.base.lora_a.item()) == (1.0, 0.25)
    for wrong in ({}, {"base.lora_a": torch.tensor(1.0), "base.lora_b": torch.tensor(1.0)}):
        with pytest.raises(RuntimeError, match="lora_"):
            other.load_state_dict(wrong)
    again = deepcopy(other.requires_grad_(False))  # an average, of which a snapshot is taken
    assert again.base.lora_a is not other.base.lora_a
