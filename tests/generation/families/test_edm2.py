"""EDM2: against its paper in plain arithmetic; its layout, its sizes; a file sampled by hand."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.noise import image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, guided_source
from generation.families.edm2.converter import convert
from generation.families.edm2.network import EDM2
from generation.families.edm2.plan import SIZES, plan_in, published_plan
from generation.families.edm2.work import named_plan, network_flops
from generation.generator import ImageBatch
from release.errors import UserError
from tests.models.tiny_edm2 import blocks, edm2_state, save_edm2, tiny_plan

SETTINGS = SamplerConfig(method="edm", steps=3, threshold="none")
GUIDED = SETTINGS.model_copy(update={"guidance": 1.7})


class Reference:
    """Karras et al. 2024, configuration G, from the authors' tensors, in float64, one image."""

    def __init__(self, state: dict[str, Tensor], head: int) -> None:
        self.state = {key: t.double() for key, t in state.items()}
        self.head = head

    def weight(self, name: str, gain: float = 1.0) -> Tensor:
        """Equation 47: rows of length 1 times the square root of their own number."""
        w = self.state[f"{name}.weight"]
        rows = w.reshape(len(w), -1)
        count = rows.shape[1]
        lengths = rows.square().sum(1).sqrt()
        return (
            rows / (1e-4 + lengths / math.sqrt(count))[:, None] * gain / math.sqrt(count)
        ).reshape(w.shape)

    def conv(self, name: str, x: Tensor, gain: float = 1.0) -> Tensor:
        w = self.weight(name, gain)
        return F.conv2d(x[None], w, padding=w.shape[-1] // 2)[0]

    @staticmethod
    def unit(x: Tensor, dim: int) -> Tensor:
        return x / (1e-4 + x.square().mean(dim, keepdim=True).sqrt())

    @staticmethod
    def silu(x: Tensor) -> Tensor:
        return x / (1 + (-x).exp()) / 0.596

    @staticmethod
    def sum(a: Tensor, b: Tensor, t: float) -> Tensor:
        return ((1 - t) * a + t * b) / math.hypot(1 - t, t)

    def block(self, name: str, x: Tensor, told: Tensor) -> Tensor:
        kind = name.rpartition("_")[2]
        if kind == "down":
            x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        if kind == "up":
            x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
        skip = f"{name}.conv_skip"
        changed = (lambda x: self.conv(skip, x)) if f"{skip}.weight" in self.state else lambda x: x
        if ".enc." in name:
            x = self.unit(changed(x), 0)
        scale = self.weight(f"{name}.emb_linear", float(self.state[f"{name}.emb_gain"])) @ told + 1
        y = self.conv(f"{name}.conv_res0", self.silu(x)) * scale[:, None, None]
        y = self.conv(f"{name}.conv_res1", self.silu(y))
        x = self.sum(x if ".enc." in name else changed(x), y, 0.3)
        if f"{name}.attn_qkv.weight" in self.state:
            x = self.sum(x, self.attention(name, x), 0.3)
        return x.clamp(-256, 256)

    def attention(self, name: str, x: Tensor) -> Tensor:
        """Rows of the joint matrix go head by head, channel by channel, q, k, v within each."""
        rows = self.conv(f"{name}.attn_qkv", x).flatten(1)
        said = []
        for h in range(len(x) // self.head):
            own = rows[3 * self.head * h : 3 * self.head * (h + 1)]
            q, k, v = (self.unit(own[i::3], 0) for i in range(3))
            said.append(v @ (q.T @ k / math.sqrt(self.head)).softmax(1).T)
        return self.conv(f"{name}.attn_proj", torch.cat(said).reshape(x.shape))

    def __call__(self, x: Tensor, sigma: float, label: int | None, names: list[str]) -> Tensor:
        """E[x0 | x], float64[C,S,S]."""
        waves = math.log(sigma) / 4 * self.state["unet.emb_fourier.freqs"]
        waves = (waves + self.state["unet.emb_fourier.phases"]).cos() * math.sqrt(2)
        told = self.weight("unet.emb_noise") @ waves
        if label is not None:
            classes = self.state["unet.emb_label.weight"].shape[1]
            one = torch.zeros(classes, dtype=torch.float64)
            one[label] = math.sqrt(classes)
            told = self.sum(told, self.weight("unet.emb_label") @ one, 0.5)
        told = self.silu(told)
        seen = x / math.sqrt(0.25 + sigma**2)
        seen = torch.cat([seen, torch.ones_like(seen[:1])])
        first = next(k for k in self.state if k.endswith("_conv.weight") and ".enc." in k)
        h = self.conv(first.removesuffix(".weight"), seen)
        skips = [h]
        for name in names:
            if ".dec." in name and "_block" in name:
                other = skips.pop()
                n, m = len(h), len(other)
                scale = math.sqrt((n + m) / 0.5)
                h = torch.cat([h * scale / math.sqrt(n) / 2, other * scale / math.sqrt(m) / 2])
            h = self.block(name, h, told)
            if ".enc." in name:
                skips.append(h)
        said = self.conv("unet.out_conv", h, float(self.state["unet.out_gain"]))
        total = 0.25 + sigma**2
        return x * 0.25 / total + said * sigma * 0.5 / math.sqrt(total)


@torch.no_grad()
@pytest.mark.parametrize("classes", [3, 0])
def test_the_network_is_the_papers(classes: int) -> None:
    plan = replace(tiny_plan(classes=classes, widths=(8, 16, 32), attends=(4, 2)), head=8)
    state = edm2_state(plan)
    network = convert(state, "tiny", head=8)
    names = [name for name, *_ in blocks(plan)]
    torch.manual_seed(1)
    x, sigmas = torch.randn(3, 3, 8, 8).double(), [40.0, 0.7, 0.02]
    labels = [2, 0, 1]
    told = torch.tensor(labels) if classes else None
    made = network(x.float(), torch.tensor(sigmas), told)
    for i, sigma in enumerate(sigmas):
        label = labels[i] if classes else None
        wanted = Reference(state, 8)(x[i], sigma, label, names)
        assert float(wanted.abs().max()) > 0.1
        np.testing.assert_allclose(made[i], wanted, atol=1e-5, rtol=1e-5)


def test_every_key_is_read_once_and_says_the_plan() -> None:
    plan = tiny_plan(widths=(8, 16, 64), attends=(2,))
    state = edm2_state(plan)
    assert plan_in({key: tuple(t.shape) for key, t in state.items()}, "tiny") == plan
    network = convert(state, "tiny")
    weights = sum(t.numel() for key, t in state.items() if "logvar" not in key)
    gains = sum("gain" in key for key in state)
    assert weights - gains == sum(t.numel() for t in network.state_dict().values())
    for key in state:
        if "logvar" in key or "emb_label" in key:  # without it a network knows no classes
            continue
        with pytest.raises(UserError):
            convert({name: t for name, t in state.items() if name != key}, "tiny")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unet.enc.8x8_block0.extra": torch.zeros(1)}, "has unet.enc.8x8_block0.extra, which is"),
        ({"unet.out_gain": None}, "lacks last.weight"),
        ({"unet.emb_noise.weight": None}, "is no EDM2 in its authors' layout"),
        ({"unet.dec.8x8_up.conv_res1.weight": torch.zeros(8, 8, 1, 1)}, "not "),
    ],
)
def test_other_layouts_are_refused_in_a_line(change: dict[str, Any], words: str) -> None:
    state: dict[str, Any] = edm2_state(tiny_plan()) | change
    with pytest.raises(UserError, match=words):
        convert({name: t for name, t in state.items() if t is not None}, "tiny")


# Karras et al. 2024, table 2: millions of parameters and Gflops of one evaluation, ImageNet-512
PUBLISHED = {
    "xs": (125, 46),
    "s": (280, 102),
    "m": (498, 181),
    "l": (777, 282),
    "xl": (1119, 406),
    "xxl": (1523, 552),
}


@pytest.mark.parametrize("size", SIZES)
def test_full_networks_have_the_published_sizes(size: str) -> None:
    plan = published_plan(512, size, 1000)
    with torch.device("meta"):
        network = EDM2(plan)
    millions, _ = PUBLISHED[size]
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def test_flops_of_a_published_network_are_twice_its_published_multiply_adds() -> None:
    flops = network_flops(published_plan(512, "s", 1000))
    assert flops / 2e9 == pytest.approx(PUBLISHED["s"][1], rel=0.02)


def test_published_files_are_known_by_their_names() -> None:
    name = "edm2-img512-xs-uncond-2147483-0.015.safetensors"
    assert named_plan(name) == published_plan(512, "xs", 0)
    assert named_plan("edm2-img64-s-1073741-0.045.safetensors") == published_plan(64, "s", 1000)
    assert named_plan("edm2-img64-s.safetensors") is None
    assert published_plan(64, "s", 1000).resolution == 64
    assert published_plan(512, "s", 1000).resolution == 512


def by_hand(networks: list[Any], x: Tensor, labels: Tensor, weight: float, steps: int) -> Tensor:
    """Algorithm 1 of Karras et al. 2022, its levels written out."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    levels = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        at = torch.full((len(x),), sigma)
        said = [one(x, at, labels if one.plan.classes else None) for one in networks]
        found = said[0] if len(said) == 1 else said[1] + weight * (said[0] - said[1])
        return (x - found) / sigma

    x = x * levels[0]
    for now, after in pairwise(levels):
        first = slope(x, now)
        ahead = x + (after - now) * first
        x = ahead if after == 0 else x + (after - now) * (first + slope(ahead, after)) / 2
    return x


@torch.no_grad()
@pytest.mark.parametrize("classes", [3, 0])
def test_images_are_those_of_algorithm_1_guided_by_either_kind(
    classes: int, tmp_path: Path
) -> None:
    """classes: of the guide; one that knows none is classifier-free guidance, as in EDM2."""
    plan, weaker = tiny_plan(), tiny_plan(classes=classes)
    file = save_edm2(tmp_path / "strong.safetensors", plan)
    guide = save_edm2(tmp_path / "weak.safetensors", weaker, seed=1)
    source = guided_source("edm2")
    assert source.locate(str(file)) == file
    assert source.guide_problem(file, guide) is None
    batch = ImageBatch(["a", "b", "c"], [0, 2, 1], [1, 2, 3], None, 8)
    images = np.asarray(source.load_guided(file, guide, False).sample(batch, GUIDED))
    networks = [convert(edm2_state(plan), "a"), convert(edm2_state(weaker, 1), "b")]
    noise = torch.from_numpy(next(image_noise([1, 2, 3], (3, 8, 8))).copy())
    labels = torch.tensor([0, 2, 1])
    x = by_hand(networks, noise, labels, GUIDED.guidance, GUIDED.steps)
    levels = ((x + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images.astype(int), levels.int(), atol=1)
    alone = np.asarray(source.load(file, False).sample(batch, SETTINGS))
    assert (alone != images).any()


@torch.no_grad()
def test_latents_are_decoded_as_their_authors_do(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    plan = tiny_plan(channels=4)
    file = save_edm2(tmp_path / "latent.safetensors", plan, blocks=4)
    batch = ImageBatch(["a", "b"], [0, 2], [1, 2], None, 64)
    images = np.asarray(generator_source("edm2").load(file, False).sample(batch, SETTINGS))
    assert images.shape == (2, 64, 64, 3)
    noise = torch.from_numpy(next(image_noise([1, 2], (4, 8, 8))).copy())
    network = convert(edm2_state(plan), "a")
    x = by_hand([network], noise, torch.tensor([0, 2]), 1.0, SETTINGS.steps)
    mean = torch.tensor([5.81, 3.25, 0.12, -2.15]).view(4, 1, 1)
    deviation = torch.tensor([4.17, 4.62, 3.71, 3.28]).view(4, 1, 1)
    autoencoder = AutoencoderKL.from_pretrained(tmp_path / "sd-vae-ft-mse").eval()
    pixels = autoencoder.decode(x / 0.5 * deviation + mean).sample
    levels = (pixels * 255).round().clamp(0, 255).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images.astype(int), levels.int(), atol=1)


def test_a_pickle_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "edm2-img64-s-1073741-0.075.pkl").write_bytes(b"\x80\x04.")
    source = generator_source("edm2")
    with pytest.raises(UserError, match=r"is a pickle.*in a clone of NVlabs/edm2") as error:
        source.locate(str(tmp_path / "edm2-img64-s-1073741-0.075.pkl"))
    assert "save_file({k: v.contiguous() for" in str(error.value)
    assert "'edm2-img64-s-1073741-0.075.safetensors'" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(
        UserError, match=r"posthoc-reconstructions/edm2-img64-s\.pkl, convert it in"
    ):
        source.locate(str(tmp_path / "edm2-img64-s.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"is no \.safetensors file"):
        source.locate(str(tmp_path / "cut.safetensors"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = save_edm2(tmp_path / "a.safetensors")
    other = save_edm2(tmp_path / "b.safetensors", tiny_plan(classes=4))
    larger = save_edm2(tmp_path / "c.safetensors", tiny_plan(side=16, attends=(8,)))
    source = guided_source("edm2")
    assert source.guide_problem(file, other) == "knows 4 classes, the network it is to guide 3"
    assert source.guide_problem(file, larger) == "has side 16, the network it is to guide 8"
    sizes: Any = source
    assert sizes.size_problem(file, 16, None) == "makes images of 8 px"
    assert sizes.size_problem(file, 8, 4) == "enlarges no images: it must be a first stage"
    assert not sizes.unconditional(file)
    generator = source.load(file, compiled=False)
    for changes, words in (
        ({"method": "ddpm"}, "needs method = 'edm'"),
        ({"threshold": "static"}, 'threshold = "none"'),
        ({"guidance": 2.0}, "name a weaker network as the stage's guide"),
        ({"noise_augmentation": 0.2}, "knows no noise in parents"),
    ):
        with pytest.raises(UserError, match=words):
            generator.sample(
                ImageBatch(["a"], [0], [1], None, 8), SETTINGS.model_copy(update=changes)
            )
    with pytest.raises(UserError, match="label 3 is not among the 3 classes"):
        generator.sample(ImageBatch(["a"], [3], [1], None, 8), SETTINGS)
