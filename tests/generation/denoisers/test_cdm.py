"""CDM against its paper: what a stage sees of parents, in training and in sampling."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from generation.denoisers.learning import Questions
from generation.diffusion.augmentation import augment, noisy_range
from generation.diffusion.noise import image_noise, parent_noise
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.residual import WHOLE_IMAGE, Residual
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families import generator_source, trainable
from generation.families.cdm.augmentation import augmented, blurred, with_level
from generation.generator import ImageBatch
from generation.training.data.images import DrawnImages
from release.errors import UserError
from tests.models.tiny_denoisers import PROMPTS, tiny_denoiser, tiny_recipe


class Spy(torch.nn.Module):
    def forward(self, *asked: Any) -> tuple[torch.Tensor, None]:
        self.asked = asked
        return torch.cat([asked[0], asked[0]], 1), None


def test_a_stage_is_told_the_noise_in_its_parents() -> None:
    recipe = tiny_recipe("cdm")
    parents = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    drawn = DrawnImages(images, parents, torch.arange(6) % 3, ImageRandom(11, 0, torch.arange(6)))
    spy = Spy()
    trainable("cdm").family.loss(recipe)(spy, drawn, Questions(recipe, 3))
    again = ImageRandom(11, 0, torch.arange(6))
    again.integers(100), again.normal(3, 16, 16), again.uniform()
    level, noise = again.uniform() * 0.5, again.normal(3, 8, 8)
    assert level.max() > 0.2
    clean, angle = parents / 127.5 - 1, (level * np.pi / 2).view(-1, 1, 1, 1)
    told = spy.asked[3]
    assert told.shape == (6, 4, 8, 8)
    torch.testing.assert_close(told[:, :3], angle.cos() * clean + angle.sin() * noise)
    torch.testing.assert_close(told[:, 3], level.view(-1, 1, 1).expand(6, 8, 8))


def test_a_network_heeds_the_level_it_is_told() -> None:
    network = tiny_denoiser("cdm")
    for weight in network.parameters():
        weight.mul_(0.25)
    x, parent = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 8, 8) * 2 - 1
    log_snr, told = torch.zeros(2), torch.tensor([0, 1])
    clean, _ = network(x, log_snr, told, parent)
    zero, _ = network(x, log_snr, told, with_level(parent, 0.0))
    other, _ = network(x, log_snr, told, with_level(parent, torch.tensor([0.0, 0.4])))
    torch.testing.assert_close(clean, zero)
    torch.testing.assert_close(other[0], zero[0])
    assert (other[1] - zero[1]).abs().max() > 1e-4


def test_half_of_the_parents_are_blurred_by_a_gaussian_of_3_by_3_pixels() -> None:
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    sigma = torch.tensor([0.4, 0.6])
    found = blurred(image, sigma).numpy()
    for i, width in enumerate(sigma.tolist()):
        line = np.exp(-(np.arange(-1, 2) ** 2) / (2 * width**2))
        kernel = np.outer(line, line) / line.sum() ** 2
        for channel in range(3):
            expected = correlate(image[i, channel].numpy(), kernel, mode="mirror")
            np.testing.assert_allclose(found[i, channel], expected, atol=1e-6)
    stage = tiny_recipe("cdm", stage={"augmentation": "blur", "max_augmentation": 1.0}).stage
    parents = torch.rand(400, 3, 8, 8)
    seen = augmented(parents, stage, ImageRandom(3, 0, torch.arange(400)))
    changed = (seen != parents).flatten(1).any(1).float().mean()
    assert 0.4 < changed < 0.6


def asked(parents: np.ndarray) -> ImageBatch:
    return ImageBatch([PROMPTS[0]] * 2, [0, 0], [7, 8], parents, 16)


def test_a_whole_parent_gets_noise_and_a_truncated_one_has_it() -> None:
    generator: Any = trainable("cdm").family.sampler(tiny_denoiser("cdm"))
    parents = np.random.default_rng(3).integers(0, 256, (2, 8, 8, 3), np.uint8)
    image = torch.from_numpy(parents).permute(0, 3, 1, 2) / 127.5 - 1
    device = torch.device("cpu")
    whole = SamplerConfig(steps=2, noise_augmentation=0.2)
    noise = torch.from_numpy(parent_noise([7, 8], (3, 8, 8)))
    seen = generator.parents(asked(parents), whole, device)
    torch.testing.assert_close(seen, with_level(augment(image, noise, 0.2), 0.2))
    truncated = SamplerConfig(steps=2, noise_augmentation=0.2, truncated=True)
    seen = generator.parents(asked(parents), truncated, device)
    torch.testing.assert_close(seen, with_level(image * noisy_range(0.2), 0.2))
    images = generator.sample(asked(parents), whole)
    turned = ImageBatch([PROMPTS[0]] * 2, [0, 0], [8, 7], parents[::-1].copy(), 16)
    np.testing.assert_array_equal(generator.sample(turned, whole), images[::-1])
    assert (generator.sample(asked(parents), truncated) != images).any()
    with pytest.raises(UserError, match=r"0\.6 is more than the 0\.5 that the checkpoint"):
        generator.sample(asked(parents), SamplerConfig(steps=2, noise_augmentation=0.6))


def test_a_stopped_process_leaves_the_noise_of_its_level() -> None:
    """Of a network that knows the one clean image: x ends as q(z_s | z_0) has it, made narrower."""
    schedule, clean, n = NoiseSchedule(ScheduleConfig(name="cosine", num_steps=200)), 0.3, 4
    noise = image_noise(range(n), (3, 32, 32))
    for method in ("ddpm", "ddim", "dpm-solver++"):
        config = SamplerConfig(method=method, steps=100, stop=0.2, gamma=0.0)
        found = sample(
            lambda x, _: (torch.full_like(x, clean), None),
            *(schedule, "x0", config),
            lambda: torch.from_numpy(next(noise)),
        )
        z = found * noisy_range(0.2)
        assert float(z.mean()) == pytest.approx(np.cos(0.1 * np.pi) * clean, abs=0.02)
        assert float(z.std()) == pytest.approx(np.sin(0.1 * np.pi), rel=0.05)
    with pytest.raises(UserError, match="leaves no step to take"):
        sample(
            lambda x, _: (x, None),
            *(schedule, "x0", SamplerConfig(steps=2, stop=0.9999)),
            lambda: torch.zeros(1, 3, 4, 4),
        )


def test_noise_is_left_in_whole_images_that_are_not_scaled() -> None:
    """Divided by the scale, or added to a parent, what is left would be another level."""
    scaled = ScheduleConfig(name="cosine", num_steps=10, input_scale=0.5)
    of_residuals = Residual(torch.zeros(1, 3, 2, 2), 0.5)
    for schedule, residual in ((scaled, WHOLE_IMAGE), (ScheduleConfig(num_steps=10), of_residuals)):
        with pytest.raises(
            UserError, match="stop leaves noise in whole images that are not scaled"
        ):
            sample(
                lambda x, _: (x, None),
                *(NoiseSchedule(schedule), "x0", SamplerConfig(steps=2, stop=0.2)),
                lambda: torch.zeros(1, 3, 4, 4),
                residual=residual,
            )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"truncated": True}, "goes with the noise_augmentation"),
        ({"stop": 0.1, "black_point": 4}, "black_point has no effect"),
        ({"stop": 0.1, "method": "native"}, "stop goes with a method among"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        SamplerConfig.model_validate(settings)


def test_a_base_stage_has_no_parents_to_augment() -> None:
    with pytest.raises(ValueError, match="a base stage has none"):
        tiny_recipe("cdm", stage={"low_resolution": None})
    with pytest.raises(ValueError, match='goes with augmentation = "noise"'):
        tiny_recipe("cdm", stage={"augmentation": "blur"})


def test_a_cascade_that_adds_the_noise_itself_takes_no_truncated_parents() -> None:
    source = generator_source("pixel-unet")
    generator = source.load(source.locate("builtin:fashion-mnist-32"), compiled=False)
    parents = np.zeros((1, 16, 16, 3), np.uint8)
    settings = SamplerConfig(steps=2, noise_augmentation=0.1, truncated=True)
    with pytest.raises(UserError, match="leave truncated out"):
        generator.sample(ImageBatch(["T-shirt"], [0], [1], parents, 32), settings)
