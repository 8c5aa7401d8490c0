"""LDM-4: the converter against independent networks in the authors' layout, then its sampling."""

from pathlib import Path

import numpy as np
import pytest
import torch

from generation.diffusion.noise import image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families import generator_source
from generation.families.adm.shapes import Heads
from generation.families.latent_diffusion.converter import convert_latent_diffusion
from generation.families.latent_diffusion.sampling import HEADS, SCHEDULE
from generation.generator import ImageBatch
from generation.pretrained.source_files import read_tensors
from release.errors import UserError
from tests.generation.families.references.latent_diffusion_reference import (
    CLASSES,
    FULL,
    FULL_VQ,
    TINY,
    Autoencoder,
    UNet,
    checkpoint,
    tiny,
)

LDM = NoiseSchedule(SCHEDULE)
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
T = torch.tensor([17, 801])
ROWS = torch.tensor([2, CLASSES])  # a class and the null class


@pytest.mark.parametrize("averaged", [False, True])
def test_the_converted_unet_is_the_original_averaged_where_the_file_has_that(
    averaged: bool,
) -> None:
    unet, classes, autoencoder = tiny()
    state = checkpoint(unet, classes, autoencoder)
    if averaged:
        state = checkpoint(UNet(**TINY), classes, autoencoder, averaged=unet)
    ours = convert_latent_diffusion(state, HEADS, LDM, "x.ckpt")
    with torch.no_grad():
        expected = unet(X, T, classes(ROWS)[:, None])
        found = ours.unet(X, T, ours.classes[ROWS][:, None]).sample
    assert expected.std() > 0.1
    assert float((found - expected).abs().max()) < 1e-5


def test_other_heads_are_another_network() -> None:
    unet, classes, _ = parts = tiny()
    ours = convert_latent_diffusion(checkpoint(*parts), Heads(count=2), LDM, "x.ckpt")
    with torch.no_grad():
        expected = unet(X, T, classes(ROWS)[:, None])
        found = ours.unet(X, T, ours.classes[ROWS][:, None]).sample
    assert float((found - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("attends", [True, False])
def test_the_converted_autoencoder_is_the_original(attends: bool) -> None:
    unet, classes, autoencoder = tiny()
    if not attends:
        torch.manual_seed(5)
        autoencoder = Autoencoder(32, (1, 2), 1, 40, attends=False).eval()
        autoencoder.quantize["embedding"].weight.data.normal_()
    ours = convert_latent_diffusion(checkpoint(unet, classes, autoencoder), HEADS, LDM, "x.ckpt")
    with torch.no_grad():
        decoded = autoencoder.decode(X)
        assert decoded.std() > 0.1
        assert float((ours.autoencoder.decode(X).sample - decoded).abs().max()) < 1e-5
        # as far as half a code apart, latents are decoded to the same image: they were quantised
        codes = autoencoder.quantize["embedding"].weight[:4].T.reshape(1, 3, 2, 2)
        at, near = (ours.autoencoder.decode(z).sample for z in (codes, codes + 1e-3))
        assert float((at - near).abs().max()) < 1e-5
        encoded = autoencoder.encode(decoded)
        assert float((ours.autoencoder.encode(decoded).latents - encoded).abs().max()) < 1e-5


def test_the_full_size_converts_key_by_key_and_counts_what_was_published() -> None:
    """U-Net: 400,920,579, the 401 M of cin256-v2. Autoencoder: 55,322,782 as configured there, with
    attention in the middle; 53,219,486 without it, which is what the published 53 M counts.
    """
    for attends, millions in ((True, 55), (False, 53)):
        with torch.device("meta"):
            theirs = (
                UNet(**FULL),
                torch.nn.Embedding(1001, 512),
                Autoencoder(**FULL_VQ, attends=attends),
            )
        state = {
            k: v
            for k, v in checkpoint(*theirs).items()
            if "_stage" in k or "unet" in k or "diffusion_model" in k
        }
        ours = convert_latent_diffusion(state, HEADS, LDM, "x.ckpt")
        for mine, its, expected in (
            (ours.unet, theirs[0], 401),
            (ours.autoencoder, theirs[2], millions),
        ):
            count = sum(p.numel() for p in mine.parameters())
            assert count == sum(p.numel() for p in its.parameters())
            assert round(count / 1e6) == expected


def test_what_does_not_fit_is_named() -> None:
    state = checkpoint(*tiny())

    def refused(changed: dict[str, torch.Tensor], message: str) -> None:
        with pytest.raises(UserError, match=message):
            convert_latent_diffusion(changed, HEADS, LDM, "x.ckpt")

    zero = torch.zeros(1)
    refused(state | {"odd": zero}, r"x\.ckpt .* it has odd, which is not known")
    refused(state | {"model.diffusion_model.odd": zero}, "has odd, which is not known")
    refused(state | {"first_stage_model.odd": zero}, "has odd, which is not known")
    refused(state | {"model_ema.odd": zero}, "its average lacks time_embed.0.weight")

    def without(key: str) -> dict[str, torch.Tensor]:
        return {k: v for k, v in state.items() if k != key}

    refused(without("cond_stage_model.embedding.weight"), "is not class-conditional")
    refused(without("first_stage_model.quantize.embedding.weight"), "holds no VQ autoencoder")
    key = "middle_block.1.transformer_blocks.0.ff.net.2.bias"
    refused(without(f"model.diffusion_model.{key}"), r"lacks mid_block\.attentions\.0\.transformer")
    other = NoiseSchedule(ScheduleConfig(name="linear"))
    with pytest.raises(UserError, match="another noise schedule"):
        convert_latent_diffusion(state, HEADS, other, "x.ckpt")


class Callback:
    """What a training checkpoint holds beside its weights."""

    def __setstate__(self, state: dict[str, int]) -> None:
        raise AssertionError("code of the checkpoint ran")


def test_a_training_checkpoint_is_read_and_none_of_its_code_runs(tmp_path: Path) -> None:
    callback = Callback()
    callback.step = 3  # type: ignore[attr-defined]
    state = checkpoint(*tiny())
    torch.save({"state_dict": state, "callbacks": {Callback: callback}}, tmp_path / "a.ckpt")
    assert read_tensors(tmp_path / "a.ckpt").keys() == state.keys()


def test_sampling_is_ddim_of_the_guided_prediction(tmp_path: Path) -> None:
    """Song et al. 2021, eq. 12, on the paper's schedule, guidance as Ho & Salimans 2022 in
    Rombach et al.'s convention; a scale factor in the file divides the latents.
    """
    unet, classes, autoencoder = tiny()
    state = checkpoint(unet, classes, autoencoder)
    torch.save(state | {"scale_factor": torch.tensor(0.5)}, tmp_path / "tiny.ckpt")
    source = generator_source("ldm")
    generator = source.load(source.locate(str(tmp_path / "tiny.ckpt")), compiled=False)
    batch = ImageBatch(["a", "b"], [1, 2], [11, 22], None, 32)
    settings = SamplerConfig(method="ddim", steps=3, guidance=1.5, threshold="none")
    found = generator.sample(batch, settings)

    x = torch.from_numpy(next(image_noise(batch.seeds, (3, 16, 16))))
    abar = state["alphas_cumprod"].double()
    context, null = classes(torch.tensor(batch.labels))[:, None], classes(ROWS[1:])[None]
    with torch.no_grad():
        for t, s in ((999, 500), (500, 0), (0, None)):
            times = torch.tensor([t, t])
            conditional, unconditional = (
                unet(x, times, c) for c in (context, null.expand(2, -1, -1))
            )
            epsilon = unconditional + 1.5 * (conditional - unconditional)
            x0 = (x - (1 - abar[t]).sqrt() * epsilon) / abar[t].sqrt()
            x = x0 if s is None else abar[s].sqrt() * x0 + (1 - abar[s]).sqrt() * epsilon
        pixels = (autoencoder.decode((x / 0.5).float()) + 1) * 127.5
    expected = pixels.round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    # a latent between two codes may fall to either: a few pixels, not the image
    assert np.mean(np.abs(found - expected) > 1) < 0.02
    assert expected.std() > 10


@pytest.mark.parametrize(
    ("batch", "change", "message"),
    [
        (ImageBatch(["a"], [CLASSES], [1], None, 32), {}, "label 3 is not among the 3 classes"),
        (ImageBatch(["a"], [0], [1], np.zeros((1, 8, 8, 3), np.uint8), 32), {}, "a first stage"),
        (ImageBatch(["a"], [0], [1], None, 32), {"threshold": "static"}, "no bounds to clip to"),
        (ImageBatch(["a"], [0], [1], None, 32), {"stop": 0.1}, "which must be clean"),
        (ImageBatch(["a"], [0], [1], None, 32), {"noise_augmentation": 0.1}, "leave it 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    batch: ImageBatch, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    torch.save(checkpoint(*tiny()), tmp_path / "tiny.ckpt")
    generator = generator_source("ldm").load(tmp_path / "tiny.ckpt", compiled=False)
    settings = SamplerConfig(method="ddim", steps=2, threshold="none")
    with pytest.raises(UserError, match=message):
        generator.sample(batch, settings.model_copy(update=change))
