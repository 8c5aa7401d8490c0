"""SR3 against its paper, written anew: network, bicubic parents, continuous noise levels."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from generation.denoisers.learning import Questions
from generation.denoisers.source import DenoiserGenerator
from generation.denoisers.start import planned_network
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import load_training_recipe, trainable
from generation.families.sr3.network import enlarged
from generation.generator import ImageBatch
from generation.training.data.images import DrawnImages
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.generation.denoisers.unet_reference import Paper, swish
from tests.models.tiny_denoisers import PROMPTS, tiny_denoiser, tiny_recipe

HALF_SUM = 1 / 2**0.5


def sr3_of_the_paper(
    network: Any, x: Tensor, abar: Tensor, condition: Tensor, parent: Tensor | None
) -> Tensor:
    """16 and 8 px, a block each; attention at 8 px."""
    p = Paper(network, HALF_SUM)
    rates = torch.tensor([10000 ** (-i / 3) for i in range(4)])
    angles = 1000 * abar.sqrt()[:, None] * rates
    h = swish(p.linear("embedding.first", torch.cat([angles.sin(), angles.cos()], 1)))
    h = p.linear("embedding.second", h) + p.weights["embedding.classes.weight"][condition]
    if parent is not None:
        x = torch.cat([x, enlarged(parent, 16)], 1)
    y0 = p.conv("body.enter", x)
    y1 = p.residual("body.down.0.residual", y0, h)
    y2 = p.residual("body.halve.0.layer", y1, h, side=-1)
    y3 = p.residual("body.down.1.residual", y2, h)
    y3 = p.attention("body.down.1.attention", y3)
    z = p.attention("body.middle_attention", p.residual("body.middle.0", y3, h))
    z = p.residual("body.middle.1", z, h)
    for i, kept in enumerate((y3, y2)):
        z = p.residual(f"body.up.{i}.residual", torch.cat([z, kept], 1), h)
        z = p.attention(f"body.up.{i}.attention", z)
    z = p.residual("body.enlarge.0.layer", z, h, side=1)
    for i, kept in enumerate((y1, y0), 2):
        z = p.residual(f"body.up.{i}.residual", torch.cat([z, kept], 1), h)
    return p.conv("body.leave", swish(p.norm("body.norm", z)))


@pytest.mark.parametrize("kind", ["sr3", "sr3-base"])
def test_a_network_says_what_the_paper_says(kind: str) -> None:
    network = tiny_denoiser(kind)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 16, 16, generator=generator)
    parent = None if kind == "sr3-base" else torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    abar, condition = torch.tensor([0.002, 0.3, 0.8, 0.9999]), torch.tensor([0, 1, 2, 3])
    log_snr = torch.logit(abar.double()).float()
    said, carried = network(x, log_snr, condition, parent)
    assert carried is None
    expected = sr3_of_the_paper(network, x, abar, condition, parent)
    assert said.std() > 0.1
    assert (said - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())
    if parent is not None:
        other, _ = network(x, log_snr, condition, parent.flip(0))
        assert (other - said).abs().max() > 1e-2


def test_parents_are_enlarged_as_by_a_bicubic_filter() -> None:
    """Away from the borders, where they differ in what stands beyond, as Pillow does: a = -0.5
    there, -0.75 here, so smooth images agree."""
    across, down = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="xy")
    image = (torch.sin(across / 5) + torch.cos(down / 6)) / 2
    found = enlarged(image[None, None], 64)[0, 0].numpy()
    resized = Image.fromarray(image.numpy()).resize((64, 64), Image.Resampling.BICUBIC)
    inner = (slice(12, 52), slice(12, 52))
    np.testing.assert_allclose(found[inner], np.asarray(resized)[inner], atol=0.01)
    nearest = np.asarray(Image.fromarray(image.numpy()).resize((64, 64), Image.Resampling.NEAREST))
    assert abs(found - nearest)[inner].max() > 0.03
    assert enlarged(torch.sign(image - 0.2)[None, None], 64).abs().max() <= 1


class Fixed(nn.Module):
    """Says what it was given to say, and notes what it was asked."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, *asked: Any) -> tuple[Tensor, None]:
        self.asked = asked
        return self.said, None


def test_the_loss_is_of_levels_between_two_steps() -> None:
    recipe = tiny_recipe("sr3")
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    parents = rng.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    said = rng.standard_normal((6, 3, 16, 16)).astype(np.float32)
    classes = [0, 1, 2, 0, 1, 2]
    network, drawn = (
        Fixed(torch.from_numpy(said)),
        DrawnImages(
            torch.from_numpy(images),
            torch.from_numpy(parents),
            torch.tensor(classes),
            ImageRandom(11, 0, torch.arange(6)),
        ),
    )
    loss = trainable("sr3").family.loss(recipe)
    found = loss(network, drawn, Questions(recipe, len(PROMPTS)))

    again = ImageRandom(11, 0, torch.arange(6))
    steps = again.integers(100).numpy()
    noise = again.normal(*images.shape[1:]).double().numpy()
    table = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 100))])
    share = again.uniform().double().numpy()
    abar = (table[steps + 1] + share * (table[steps] - table[steps + 1])).reshape(6, 1, 1, 1)
    assert (abar.ravel() < table[steps]).all()
    assert (abar.ravel() > table[steps + 1]).all()
    dropped = again.uniform().numpy() < 0.1
    x = np.sqrt(abar) * (images / 127.5 - 1) + np.sqrt(1 - abar) * noise
    given, log_snr, condition, parent, _ = network.asked
    np.testing.assert_allclose(given.numpy(), x, atol=1e-5)
    np.testing.assert_allclose(log_snr.sigmoid().numpy(), abar.ravel(), rtol=1e-5)
    assert condition.tolist() == np.where(dropped, 3, classes).tolist()
    np.testing.assert_allclose(parent.numpy(), parents / 127.5 - 1, atol=1e-6)
    assert float(found) == pytest.approx(((said.astype(np.float64) - noise) ** 2).mean(), rel=1e-5)


def test_an_image_follows_from_its_parent() -> None:
    generator = DenoiserGenerator(tiny_denoiser("sr3"))
    parents = np.random.default_rng(3).integers(0, 256, (2, 8, 8, 3), np.uint8)
    settings = SamplerConfig(steps=3)

    def made(parents: np.ndarray | None) -> Any:
        asked = ImageBatch([PROMPTS[0]] * 2, [0, 0], [7, 7], parents, 16)
        return generator.sample(asked, settings)

    images = made(parents)
    assert (images[0] != images[1]).any()
    np.testing.assert_array_equal(made(parents[::-1]), images[::-1])
    with pytest.raises(UserError, match="needs parents of 8 px, got none"):
        made(None)


@pytest.mark.parametrize(
    ("name", "count"),
    [  # published: 625 M for the first, none for the base stage
        ("imagenet-sr3-256", 634_046_979),
        ("imagenet-sr3-base-64", 518_227_459),
    ],
)
def test_the_parameters_of_the_imagenet_recipes(name: str, count: int) -> None:
    recipe = load_training_recipe(name)
    prompts = tuple(entry.prompt for entry in load_classes(recipe.classes))
    network = planned_network(trainable(recipe.generator).family, recipe, prompts)
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_recipe_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="predicts epsilon"):
        tiny_recipe("sr3", stage={"prediction": "v"})
    with pytest.raises(ValueError, match="do not halve 5 times"):
        tiny_recipe("sr3", network={"multipliers": [1] * 6})
    with pytest.raises(ValueError, match="is not below resolution"):
        tiny_recipe("sr3", stage={"low_resolution": 16})
