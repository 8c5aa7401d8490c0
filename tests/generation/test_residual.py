"""Residual prediction: what a super-resolution stage diffuses, learns, samples and records."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.residual import WHOLE_IMAGE, residual_of
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import StageConfig
from generation.families.pixel_unet.recipe import StageRecipe
from generation.generator import ImageBatch
from generation.training.data.images import DrawnImages
from generation.training.denoising import NoisyTraining
from tests.models.tiny_network import tiny_network

STAGE = {"resolution": 8, "low_resolution": 4, "channels": 1}


def blocks_and_means() -> tuple[Tensor, Tensor]:
    """An image whose left half is black, uint8[1,1,8,8], and the means of its blocks of 2."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8, generator=generator)
    image[..., :4] = 0
    parent = torch.nn.functional.avg_pool2d(image.float(), 2).round().to(torch.uint8)
    return image, parent


def test_the_residual_of_a_black_background_is_exactly_zero() -> None:
    image, parent = (levels / 127.5 - 1 for levels in blocks_and_means())
    residual = residual_of(parent, 8, 0.25)
    z = residual.of(image)
    assert torch.equal(z[..., :4], torch.zeros(1, 1, 8, 4))
    means = torch.nn.functional.avg_pool2d(z, 2)
    assert float(means.abs().max()) <= 0.5 / 127.5 / 0.25 + 1e-6  # but for the parent's rounding
    torch.testing.assert_close(residual.image(z), image)


def test_without_a_deviation_or_a_parent_the_image_itself_is_diffused() -> None:
    image, parent = (levels / 127.5 - 1 for levels in blocks_and_means())
    assert residual_of(parent, 8, None) is WHOLE_IMAGE
    assert residual_of(None, 8, 0.25) is WHOLE_IMAGE
    assert torch.equal(WHOLE_IMAGE.of(image), image)
    assert torch.equal(WHOLE_IMAGE.image(image), image)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_network_that_knows_the_residual_has_no_loss(scale: float) -> None:
    image, parent = blocks_and_means()
    blocks = parent.double().repeat_interleave(2, 2).repeat_interleave(2, 3)
    z = (image.double() - blocks) / 127.5 / 0.25 * scale
    schedule = NoiseSchedule(ScheduleConfig(name="cosine", input_scale=scale))

    def oracle(x: Tensor, t: Tensor, _: Tensor, __: Tensor, ___: Tensor) -> Tensor:
        abar = torch.from_numpy(schedule.alphas_cumprod)[t].view(-1, 1, 1, 1)
        noise = (x - abar.sqrt() * z) / (1 - abar).sqrt()
        return (abar.sqrt() * noise - (1 - abar).sqrt() * z).expand(x.shape)

    drawn = DrawnImages(
        *(image.expand(500, -1, -1, -1), parent.expand(500, -1, -1, -1)),
        torch.zeros(500, dtype=torch.long),
        ImageRandom(0, 0, torch.arange(500)),
    )
    for deviation, known in ((0.25, True), (None, False)):
        training = NoisyTraining("v", schedule, 1, 0.0, 0.0, deviation)
        assert (float(training.loss(oracle, drawn)) < 1e-6) == known


class Silent(torch.nn.Module):
    """Says nothing: with prediction x0, that the residual is zero."""

    dtype = torch.float32

    def forward(self, x: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        return (torch.zeros_like(x[:, :1]),)


def test_sampling_starts_from_the_parent_of_each_image() -> None:
    network = tiny_network(4, residual=0.25, prediction="x0")
    network.unet = Silent()
    parents = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    parents = np.repeat(parents, 3, axis=3)
    batch = ImageBatch(["bag", "coat"], [0, 1], [3, 4], parents, 8)
    made = PixelUNetGenerator(network).sample(batch, SamplerConfig(steps=3))
    np.testing.assert_array_equal(made, parents.repeat(2, axis=1).repeat(2, axis=2))


def test_stages_of_before_there_was_a_choice_are_written_as_they_were() -> None:
    recipe, stage = StageRecipe.model_validate(STAGE), tiny_network(4).config
    assert "residual" not in recipe.model_dump()
    assert "residual" not in stage.model_dump()
    chosen = StageConfig.model_validate(stage.model_dump() | {"residual": 0.2})
    assert StageConfig.model_validate_json(chosen.model_dump_json()) == chosen


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"low_resolution": None}, "without low_resolution there is none"),
        ({"variance": "learned"}, "goes with whole images"),
        ({"residual": 0.0}, "greater than 0"),
    ],
)
def test_a_residual_that_cannot_be_is_refused(settings: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        StageRecipe.model_validate(STAGE | {"residual": 0.2} | settings)
