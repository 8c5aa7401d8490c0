"""LightningDiT, REPA-E, JiT and RAE sampled from files in their authors' layouts, as by hand."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderRAE
from torch import Tensor

from generation.diffusion.noise import image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, guided_source
from generation.families.diffusion_transformer.converter import convert as convert_sit
from generation.families.diffusion_transformer.layout import without_projectors
from generation.families.lightning_dit.autoencoder import STATISTICS, WEIGHTS
from generation.families.repa_e.converter import convert_repa_e
from generation.families.repa_e.work import published_plan
from generation.generator import ImageBatch
from generation.networks.transformer import Transformer
from release.errors import UserError
from tests.models.tiny_flows import (
    repa_e_state,
    save_jit,
    save_lightning,
    save_rae,
    save_rae_guide,
    save_repa_e,
    save_repa_e_end_to_end,
    tiny_ditdh,
    tiny_jit,
    tiny_lightning,
    tiny_va_vae,
)

SEEDS, LABELS = [1, 2, 3], [0, 2, 1]
GUIDED: dict[str, Any] = {"guidance": 2.5, "guidance_interval": (0.0, 0.6), "threshold": "none"}
SETTINGS = {
    "lightning-dit": SamplerConfig(method="euler", steps=4, time_shift=0.3, **GUIDED),
    "repa-e": SamplerConfig(method="euler", steps=4, **GUIDED),
    "repa-e-end-to-end": SamplerConfig(method="euler", steps=4, **GUIDED),
    "jit": SamplerConfig(method="heun-euler", steps=4, **GUIDED),
    "rae": SamplerConfig(method="euler", steps=4, time_shift=0.2, threshold="none"),
}
SAVE: dict[str, Callable[[Path], Path]] = {
    "lightning-dit": save_lightning,
    "repa-e": save_repa_e,
    "repa-e-end-to-end": save_repa_e_end_to_end,
    "jit": save_jit,
    "rae": save_rae,
}
SIDES = {"lightning-dit": 8, "repa-e": 8, "repa-e-end-to-end": 8, "jit": 32, "rae": 16}
Say = Callable[[Tensor, float, int], Tensor]  # of x [C,H,W], the time of its authors, the class


def asked(network: Any) -> Say:
    return lambda x, t, y: network(x[None], torch.tensor([t]), torch.tensor([y]))[0]


def by_hand_lightning(folder: Path, noise: Tensor, label: int) -> Tensor:
    """Times from 0, noise, shifted by 0.3; three channels guided from t = 0.4 on."""
    say, x = asked(tiny_lightning()), noise
    even = [i / 4 for i in range(5)]
    times = [0.3 * t / (1 - 0.7 * t) for t in even]
    for now, then in pairwise(times):
        v = say(x, now, label)
        if now >= 0.4:
            none = say(x, now, 3)
            v = torch.cat([(none + 2.5 * (v - none))[:3], v[3:]])
        x = x + (then - now) * v
    statistics = torch.load(folder / STATISTICS)
    latents = x * statistics["std"][0] + statistics["mean"][0]
    return tiny_va_vae().decode(latents[None]).sample[0]


def by_hand_repa_e(folder: Path, noise: Tensor, label: int) -> Tensor:
    """Latents, decoded by the autoencoder beside the file."""
    autoencoder = AutoencoderKL.from_pretrained(folder / "e2e-vavae-hf").eval()
    return autoencoder.decode(repa_e_latents(noise, label)[None]).sample[0]


def by_hand_end_to_end(_: Path, noise: Tensor, label: int) -> Tensor:
    """The same, decoded by the autoencoder in the file."""
    return tiny_va_vae().decode(repa_e_latents(noise, label)[None]).sample[0]


def repa_e_latents(noise: Tensor, label: int) -> Tensor:
    """Times from 1, noise, to 0; all channels guided up to t = 0.6."""
    state = repa_e_state(side=4, classes=4, depth=1, patch=1)
    kept = {key: t for key, t in state.items() if not key.startswith("bn.")}
    say, x = asked(convert_sit(without_projectors(kept), "tiny")), noise
    for now in (1.0, 0.75, 0.5, 0.25):
        u = say(x, now, label)
        if now <= 0.6:
            none = say(x, now, 3)
            u = none + 2.5 * (u - none)
        x = x - u / 4
    deviation = state["bn.running_var"].sqrt().view(-1, 1, 1)
    return x * deviation + state["bn.running_mean"].view(-1, 1, 1)


def by_hand_jit(_: Path, noise: Tensor, label: int) -> Tensor:
    """Noise of 32 / 256; Heun's steps, the last Euler's; guided from t = 0.4 on."""
    say = asked(tiny_jit(4, 3, 8))

    def velocity(x: Tensor, t: float) -> Tensor:
        image = say(x, t, label)
        if t >= 0.4:
            none = say(x, t, 3)
            image = none + 2.5 * (image - none)
        return (image - x) / max(1 - t, 0.05)

    x = noise * 32 / 256
    for i in range(3):
        first = velocity(x, i / 4)
        x = x + (first + velocity(x + first / 4, (i + 1) / 4)) / 8
    return x + velocity(x, 0.75) / 4


def by_hand_rae(folder: Path, noise: Tensor, label: int) -> Tensor:
    """Times from 1, noise, to 0, shifted by 5 towards noise."""
    say, x = asked(tiny_ditdh(4, 3, 64)), noise
    times = [5 * s / (1 + 4 * s) for s in (1.0, 0.75, 0.5, 0.25, 0.0)]
    for now, then in pairwise(times):
        x = x + (then - now) * say(x, now, label)
    autoencoder = AutoencoderRAE.from_pretrained(folder / "RAE-dinov2-wReg-base-ViTXL-n08")
    return 2 * autoencoder.eval().decode(x[None]).sample[0] - 1


BY_HAND = {
    "lightning-dit": by_hand_lightning,
    "repa-e": by_hand_repa_e,
    "repa-e-end-to-end": by_hand_end_to_end,
    "jit": by_hand_jit,
    "rae": by_hand_rae,
}


@pytest.mark.parametrize("name", SAVE)
def test_a_file_is_sampled_as_by_hand(name: str, tmp_path: Path) -> None:
    file = SAVE[name](tmp_path / "network.pt")
    source, side = generator_source(name), SIDES[name]
    assert source.locate(str(file)) == file
    generator = source.load(file, compiled=False)
    images = generator.sample(ImageBatch(["a"] * 3, LABELS, SEEDS, None, side), SETTINGS[name])
    assert (images.shape, images.dtype) == ((3, side, side, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 3
    channels = {"rae": 64, "jit": 3}.get(name, 4)
    grid = side if name == "jit" else 4
    noise = next(image_noise(SEEDS, (channels, grid, grid)))
    for image, one, label in zip(images, noise, LABELS, strict=True):
        with torch.no_grad():
            pixels = BY_HAND[name](tmp_path, torch.from_numpy(one.copy()), label)
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0)
        assert levels.std() > 1
        np.testing.assert_allclose(image.astype(int), levels.int(), atol=1)


@pytest.mark.parametrize("name", SAVE)
def test_settings_labels_and_parents_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    generator = generator_source(name).load(SAVE[name](tmp_path / "network.pt"), False)
    side, settings = SIDES[name], SETTINGS[name]
    batch = ImageBatch(["a"], [0], [1], None, side)
    parents = np.zeros((1, 4, 4, 3), np.uint8)
    for wrong, changes, words in (
        (batch, {"method": "ddpm", "time_shift": None}, "is sampled by euler, heun"),
        (batch, {"threshold": "static"}, "a flow has no estimate to clip"),
        (batch, {"noise_augmentation": 0.2}, "knows no noise in parents"),
        (ImageBatch(["a"], [3], [1], None, side), {}, "label 3 is not among the 3 classes"),
        (ImageBatch(["a"], [0], [1], parents, side), {}, "it must be a first stage"),
    ):
        with pytest.raises(UserError, match=words):
            generator.sample(wrong, settings.model_copy(update=changes))


def test_rae_is_led_away_from_a_weaker_network_as_by_hand(tmp_path: Path) -> None:
    file, guide = save_rae(tmp_path / "rae.pt"), save_rae_guide(tmp_path / "weak.pt")
    source = guided_source("rae")
    assert source.guide_problem(file, guide) is None
    settings = SamplerConfig(method="euler", steps=3, guidance=1.7, threshold="none")
    generator = source.load_guided(file, guide, compiled=False)
    (image,) = generator.sample(ImageBatch(["a"], [2], [5], None, 16), settings)
    strong, weak = asked(tiny_ditdh(4, 3, 64)), tiny_ditdh(4, 3, 64)
    weak.end.out.weight.data.mul_(0.5)
    x = torch.from_numpy(next(image_noise([5], (64, 4, 4)))[0].copy())
    with torch.no_grad():
        for now in (1.0, 2 / 3, 1 / 3):
            weaker = asked(weak)(x, now, 2)
            x = x - (weaker + 1.7 * (strong(x, now, 2) - weaker)) / 3
        folder = tmp_path / "RAE-dinov2-wReg-base-ViTXL-n08"
        pixels = AutoencoderRAE.from_pretrained(folder).eval().decode(x[None]).sample[0]
    levels = (pixels * 255).round().clamp(0, 255).permute(1, 2, 0)
    np.testing.assert_allclose(image.astype(int), levels.int(), atol=1)
    other = save_rae_guide(tmp_path / "other.pt", classes=4)
    with pytest.raises(UserError, match=r"guide .*other\.pt has classes 5, the network it is to"):
        source.load_guided(file, other, compiled=False)


def test_the_sde_is_refused_for_noise_of_another_deviation(tmp_path: Path) -> None:
    generator = generator_source("jit").load(save_jit(tmp_path / "network.pt"), False)
    settings = SamplerConfig(method="euler-maruyama", steps=4, threshold="none")
    with pytest.raises(UserError, match=r"begins at noise of deviation 0\.125, which the SDE does"):
        generator.sample(ImageBatch(["a"], [0], [1], None, 32), settings)


@pytest.mark.parametrize("name", ["lightning-dit", "repa-e", "rae"])
def test_the_hash_covers_the_autoencoder(name: str, tmp_path: Path) -> None:
    file = SAVE[name](tmp_path / "network.pt")
    source = generator_source(name)
    before = source.sha256(file)
    if name == "lightning-dit":
        torch.save({"mean": torch.zeros(4), "std": torch.ones(4)}, tmp_path / STATISTICS)
    else:
        (weights,) = tmp_path.glob("*/diffusion_pytorch_model.safetensors")
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    assert source.sha256(file) != before


def test_latents_of_another_autoencoder_are_refused(tmp_path: Path) -> None:
    from tests.models.tiny_autoencoders import save_autoencoder
    from tests.models.tiny_flows import save_representation_autoencoder

    file = save_repa_e(tmp_path / "network.pt")
    save_autoencoder(tmp_path / "e2e-vavae-hf", latent=3)
    with pytest.raises(UserError, match=r"makes latents of 4 channels, autoencoder .* of 3"):
        generator_source("repa-e").load(file, False)
    file = save_rae(tmp_path / "rae.pt")
    save_representation_autoencoder(tmp_path / "RAE-dinov2-wReg-base-ViTXL-n08", 3, 4)
    with pytest.raises(UserError, match=r"latents of \(64, 4, 4\), autoencoder .* \(64, 3, 3\)"):
        generator_source("rae").load(file, False)


def test_an_end_to_end_file_holds_its_autoencoder_whole(tmp_path: Path) -> None:
    source, file = generator_source("repa-e-end-to-end"), save_repa_e_end_to_end(tmp_path / "a.pt")
    before, content = source.sha256(file), torch.load(file)
    del content["vae"]["decoder.norm_out.bias"]
    torch.save(content, file)
    assert source.sha256(file) != before
    with pytest.raises(
        UserError, match=r"a\.pt, autoencoder does not fit .* decoder.conv_norm_out"
    ):
        source.load(file, False)
    with pytest.raises(UserError, match=r"b\.pt holds no state dict"):
        source.load(save_repa_e(tmp_path / "b.pt"), False)


def test_repa_es_keys_are_all_mapped() -> None:
    state = repa_e_state()
    found = convert_repa_e(state, "tiny")
    rest = {key for key in state if not key.startswith(("projectors.", "bn."))}
    assert len(found.network.state_dict()) == len(rest) - 1  # the positions follow from the shape
    assert torch.equal(found.mean, state["bn.running_mean"])
    without = {key: t for key, t in state.items() if key != "bn.running_var"}
    with pytest.raises(UserError, match=r"it lacks bn\.running_var of its latents"):
        convert_repa_e(without, "REPA-E.pt")
    with pytest.raises(UserError, match=r"it has bn\.weight, which is not known"):
        convert_repa_e(state | {"bn.weight": torch.zeros(4)}, "REPA-E.pt")


def test_repa_es_full_network_has_the_published_size() -> None:
    """SiT-XL's 675 M."""
    with torch.device("meta"):
        network = Transformer(published_plan())
    count = sum(p.numel() for p in network.parameters()) + network.positions().numel()
    assert round(count / 1e6) == 675


def test_what_a_file_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = save_lightning(tmp_path / "network.pt")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UserError, match=f"{WEIGHTS} is not on this machine: download it from"):
        generator_source("lightning-dit").locate(str(file))
    save_lightning(file)
    torch.save({"mean": torch.zeros(4)}, tmp_path / STATISTICS)
    with pytest.raises(UserError, match="holds no std of 4 channels"):
        generator_source("lightning-dit").load(file, False)
