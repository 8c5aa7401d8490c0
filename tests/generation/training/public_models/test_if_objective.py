"""What DeepFloyd IF's stages learn by, against the papers in float64."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.deepfloyd_if.network import TOKENS, IFNetwork
from generation.families.deepfloyd_if.objective import IFObjective, StageSchedules
from generation.families.deepfloyd_if.recipe import IFTraining
from generation.prompts.prompt_table import PromptTable
from generation.training.data.images import DrawnImages
from release.errors import UserError
from tests.generation.training.hybrid_loss_reference import cosine, hybrid_loss, noisy

SIDE, N = 16, 6
COSINE = NoiseSchedule(ScheduleConfig(name="cosine", num_steps=1000))


class Recorded(torch.nn.Module):
    """In a U-Net's place: says a fixed function of what it sees, and keeps that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))
        self.seen: dict[str, np.ndarray | None] = {}

    def forward(
        self,
        inputs: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        class_labels: torch.Tensor | None,
        return_dict: bool,
    ) -> tuple[torch.Tensor]:
        assert not return_dict
        level = None if class_labels is None else class_labels.numpy()
        self.seen = {"x": inputs.numpy(), "t": t.numpy(), "text": text.numpy(), "level": level}
        x = inputs[:, :3]
        return (torch.cat([self.weight * x + 0.125, 0.25 * x.tanh()], dim=1),)


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """Bilinear with aligned corners, in float64."""
    small = images.shape[-1]
    weights = np.zeros((side, small))
    for row, place in enumerate(np.linspace(0, small - 1, side)):
        below = min(int(place), small - 2)
        weights[row, below : below + 2] = below + 1 - place, place - below
    return np.asarray(weights @ images @ weights.T)


@pytest.mark.parametrize("follows", [False, True])
def test_the_loss_is_the_papers(follows: bool) -> None:
    """On the numbers that a part of a batch draws. Parents as IF-II's pipeline has them: enlarged
    with aligned corners, then noised to the step that the network is told."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (N, 3, SIDE, SIDE), dtype=np.uint8)
    parents = rng.integers(0, 256, (N, 3, 4, 4), dtype=np.uint8)
    stub, conditions = Recorded(), np.array([0, 1, 0, 1, 0, 1])
    network = IFNetwork(
        stub, PromptTable(("a", "b", ""), {TOKENS: torch.arange(3.0).view(3, 1, 1)})
    )
    config = IFTraining(steps=1, batch=N, caption_dropout=0.5, max_augmentation=0.6)
    schedules = StageSchedules(COSINE, "epsilon", COSINE if follows else None)
    objective = IFObjective(network, schedules, config)
    drawn = DrawnImages(
        torch.from_numpy(images),
        torch.from_numpy(parents) if follows else None,
        torch.from_numpy(conditions),
        ImageRandom(11, 0, torch.arange(N)),
    )
    loss = objective.updates[0].loss(objective.modules, drawn)

    again, seen = ImageRandom(11, 0, torch.arange(N)), stub.seen
    t = again.integers(1000).numpy()
    noise = again.normal(3, SIDE, SIDE).double().numpy()
    dropped = again.uniform().numpy() < 0.5
    x0 = images / 127.5 - 1
    x = noisy(cosine(1000), x0, noise, t)
    assert seen["x"] is not None
    assert seen["text"] is not None
    np.testing.assert_allclose(seen["x"][:, :3], x, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(seen["t"], t)
    np.testing.assert_array_equal(seen["text"].flatten(), np.where(dropped, 2, conditions))
    expected = hybrid_loss(cosine(1000), x0, noise, t, 0.5 * x + 0.125, 0.25 * np.tanh(x))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    if follows:
        steps = again.integers(601).numpy()
        added = again.normal(3, SIDE, SIDE).numpy()
        larger = noisy(cosine(1000), enlarged(parents / 127.5 - 1, SIDE), added, steps)
        np.testing.assert_allclose(seen["x"][:, 3:], larger, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(seen["level"], steps)


def test_copies_of_a_network_share_their_prompts() -> None:
    network = IFNetwork(Recorded(), PromptTable(("",), {TOKENS: torch.zeros(1, 2, 3)}))
    assert deepcopy(network).prompts is network.prompts
    with pytest.raises(UserError, match="'x' was not embedded"):
        network.prompts.numbers(["x"])
