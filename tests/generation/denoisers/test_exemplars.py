"""Families of denoisers on pixels begin from a batch's exemplars."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generation.diffusion import sampler
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import exemplar_source, generator_source
from generation.generator import Exemplars, ImageBatch
from tests.models.tiny_denoisers import KINDS, PROMPTS, save_denoiser

SETTINGS = SamplerConfig(method="ddim", steps=4)
SEEDS = [3, 4, 5]


def batch(exemplars: Exemplars | None) -> ImageBatch:
    return ImageBatch(PROMPTS, [0, 1, 2], SEEDS, None, 16, exemplars)


@pytest.mark.parametrize("kind", ["unet", "rin", "adm"])
def test_a_family_heeds_exemplars_and_each_image_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = KINDS[kind][0]
    folder = save_denoiser(tmp_path / "tiny", kind)
    assert exemplar_source(name).exemplar_channels(folder) == 3
    generator = generator_source(name).load(folder, compiled=False)
    real = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    given: list[Any] = []
    noised = sampler._noised

    def noted(x0: torch.Tensor, noise: torch.Tensor, abar_t: float) -> torch.Tensor:
        given.append(x0)
        return noised(x0, noise, abar_t)

    monkeypatch.setattr(sampler, "_noised", noted)
    begun = np.asarray(generator.sample(batch(Exemplars(real, 0.5)), SETTINGS))
    (x0,) = given
    scale = KINDS[kind][1]["schedule"].get("input_scale", 1.0)
    wanted = scale * (real.transpose(0, 3, 1, 2) / 127.5 - 1)
    np.testing.assert_allclose(x0.numpy(), wanted, atol=1e-6)
    other = real.copy()
    other[1] = 255 - other[1]
    again = np.asarray(generator.sample(batch(Exemplars(other, 0.5)), SETTINGS))
    assert [bool((a != b).any()) for a, b in zip(begun, again, strict=True)] == [False, True, False]
    generator.sample(batch(None), SETTINGS)
    assert len(given) == 2
