"""VAR: against its paper in plain arithmetic without a cache, known answers, layout and sizes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from generation.diffusion.noise import uniform
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.families.var.converter import convert_decoder, convert_transformer
from generation.families.var.decoder import MultiScaleDecoder, nearest_mixer
from generation.families.var.network import VAR, Kept
from generation.families.var.plan import PUBLISHED_DECODER, VARPlan, published_plan
from generation.families.var.sampling import by_scales, drawn, kept_logits
from generation.families.var.work import published_work
from generation.generator import ImageBatch
from release.errors import UserError
from tests.models.codes.tiny_var import (
    autoencoder_state,
    save_var,
    tiny_decoder,
    tiny_plan,
    transformer_state,
)

SETTINGS = SamplerConfig(
    method="next-scale", steps=1, guidance=2.5, top_k=9, top_p=0.9, threshold="none"
)


class Reference:
    """Tian et al. 2024 by the authors' tensors, in float64: one image, all scales at once, each
    token masked from later scales."""

    def __init__(self, state: dict[str, Tensor], plan: VARPlan) -> None:
        self.state = {key: t.double() for key, t in state.items()}
        self.plan = plan

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    @staticmethod
    def silu(x: Tensor) -> Tensor:
        return x / (1 + (-x).exp())

    def attention(self, name: str, x: Tensor) -> Tensor:
        width, heads = self.plan.width, self.plan.heads
        zero = torch.zeros(width, dtype=torch.float64)
        bias = torch.cat([self.state[f"{name}.q_bias"], zero, self.state[f"{name}.v_bias"]])
        parts = x @ self.state[f"{name}.mat_qkv.weight"].T + bias
        mask = self.state["attn_bias_for_masking"][0, 0]
        own, said = width // heads, []
        for h in range(heads):
            q, k, v = (
                parts[:, part * width + h * own : part * width + (h + 1) * own] for part in range(3)
            )
            scale = min(float(self.state[f"{name}.scale_mul_1H11"][0, h]), math.log(100))
            q = q / q.norm(dim=1, keepdim=True) * math.exp(scale)
            k = k / k.norm(dim=1, keepdim=True)
            said.append((q @ k.T + mask).softmax(1) @ v)
        return self.linear(f"{name}.proj", torch.cat(said, dim=1))

    def __call__(self, seen: list[Tensor], label: int) -> Tensor:
        """seen float64[C,s,s] of each scale but the first. Returns logits [tokens,codes]."""
        state, plan = self.state, self.plan
        told = state["class_emb.weight"][label]
        tokens = [told + state["pos_start"][0]]
        tokens += [self.linear("word_embed", one.flatten(1).T) for one in seen]
        x = torch.cat(tokens) + state["pos_1LC"][0]
        x = x + state["lvl_embed.weight"][state["lvl_1L"][0].long()]
        for i in range(plan.depth):
            if plan.shared:
                shared = self.linear("shared_ada_lin.1", self.silu(told))
                said = shared.view(6, -1) + state[f"blocks.{i}.ada_gss"][0, 0]
            else:
                said = self.linear(f"blocks.{i}.ada_lin.1", self.silu(told)).view(6, -1)
            g1, g2, s1, s2, b1, b2 = said
            x = x + self.attention(f"blocks.{i}.attn", self.norm(x) * (1 + s1) + b1) * g1
            hidden = self.linear(f"blocks.{i}.ffn.fc1", self.norm(x) * (1 + s2) + b2)
            bent = (hidden + 0.044715 * hidden**3) * math.sqrt(2 / math.pi)
            hidden = hidden / 2 * (1 + bent.tanh())
            x = x + self.linear(f"blocks.{i}.ffn.fc2", hidden) * g2
        scale, shift = self.linear("head_nm.ada_lin.1", self.silu(told)).view(2, -1)
        return self.linear("head", self.norm(x) * (1 + scale) + shift)


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
def test_the_transformer_is_the_papers(shared: bool) -> None:
    plan = tiny_plan(shared=shared)
    state = transformer_state(plan)
    network = convert_transformer(state, "tiny")
    assert network.plan == plan
    torch.manual_seed(1)
    seen = [torch.randn(2, 4, side, side) for side in plan.scales[1:]]
    labels = torch.tensor([2, 3])
    kept: list[Kept | None] = [None] * plan.depth
    made = torch.cat(
        [network(k, seen[k - 1] if k else None, labels, kept) for k in range(3)], dim=1
    )
    for i in range(2):
        wanted = Reference(state, plan)([one[i].double() for one in seen], int(labels[i]))
        assert float(wanted.abs().max()) > 0.1
        np.testing.assert_allclose(made[i], wanted, atol=1e-5, rtol=1e-5)


class DecoderReference:
    """VQGAN's decoder and the sum of the scales' codes, by the authors' tensors, in float64."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {key: t.double() for key, t in state.items()}

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x[None], weight, self.state[f"{name}.bias"], padding=weight.shape[-1] // 2)[
            0
        ]

    def norm(self, name: str, x: Tensor) -> Tensor:
        groups = x.reshape(32, -1)
        centred = groups - groups.mean(1, keepdim=True)
        unit = (centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()).reshape(x.shape)
        weight, bias = (self.state[f"{name}.{leaf}"][:, None, None] for leaf in ("weight", "bias"))
        return unit * weight + bias

    def residual(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", Reference.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", Reference.silu(self.norm(f"{name}.norm2", h)))
        shortcut = f"{name}.nin_shortcut"
        return h + (self.conv(shortcut, x) if f"{shortcut}.weight" in self.state else x)

    def attention(self, name: str, x: Tensor) -> Tensor:
        q, k, v = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", x)).flatten(1).chunk(3)
        said = v @ (q.T @ k / math.sqrt(len(q))).softmax(1).T
        return x + self.conv(f"{name}.proj_out", said.reshape(x.shape))

    def image(self, maps: list[Tensor]) -> Tensor:
        """int64[s,s] of each scale => float64[3,H,W]."""
        side, total = maps[-1].shape[0], torch.zeros(4, 3, 3, dtype=torch.float64)
        for k, codes in enumerate(maps):
            vectors = self.state["quantize.embedding.weight"][codes].permute(2, 0, 1)
            if k < len(maps) - 1:
                vectors = F.interpolate(vectors[None], (side, side), mode="bicubic")[0]
            mixer = [0, 2, 3][
                k
            ]  # the nearest of 1/12, 13/36, 23/36, 11/12 to 0, 1/2, 1, as numpy rounds
            total = (
                total
                + vectors / 2
                + self.conv(f"quantize.quant_resi.qresi_ls.{mixer}", vectors) / 2
            )
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", total))
        x = self.attention("decoder.mid.attn_1", self.residual("decoder.mid.block_1", x))
        x = self.residual("decoder.mid.block_2", x)
        x = self.attention("decoder.up.1.attn.0", self.residual("decoder.up.1.block.0", x))
        x = self.conv(
            "decoder.up.1.upsample.conv", x.repeat_interleave(2, 1).repeat_interleave(2, 2)
        )
        x = self.residual("decoder.up.0.block.0", x)
        x = self.conv("decoder.conv_out", Reference.silu(self.norm("decoder.norm_out", x)))
        return x.clamp(-1, 1)


@torch.no_grad()
def test_the_decoder_is_the_papers() -> None:
    state = autoencoder_state(tiny_decoder())
    decoder = convert_decoder(state, "tiny")
    assert decoder.plan == tiny_decoder()
    torch.manual_seed(2)
    maps = [torch.randint(12, (1, side, side)) for side in (1, 2, 3)]
    image = torch.zeros(1, 4, 3, 3)
    for k, codes in enumerate(maps):
        image = decoder.added(image, codes, k / 2)
    wanted = DecoderReference(state).image([codes[0] for codes in maps])
    assert float(wanted.abs().max()) > 0.1
    np.testing.assert_allclose(decoder(image)[0], wanted, atol=1e-5, rtol=1e-5)


def test_scales_share_mixers_as_in_the_authors_code() -> None:
    places = [k / 9 for k in range(10)]
    assert [nearest_mixer(place, 4) for place in places] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


def test_top_k_and_top_p_keep_the_likeliest() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]], dtype=torch.float64).log()

    def left(top_k: int | None, top_p: float | None) -> list[float]:
        shares: list[float] = kept_logits(logits, top_k, top_p).softmax(-1)[0].tolist()
        return shares

    assert left(None, None) == pytest.approx([0.4, 0.3, 0.15, 0.1, 0.05])
    assert left(2, None) == pytest.approx([4 / 7, 3 / 7, 0, 0, 0])
    assert left(None, 0.8) == pytest.approx([0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0])
    assert left(3, 0.5) == pytest.approx([4 / 7, 3 / 7, 0, 0, 0])
    assert left(None, 1e-9) == [1, 0, 0, 0, 0]


def test_codes_have_their_probabilities_and_each_is_its_own_images() -> None:
    logits = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(3)) * 2
    numbers = torch.from_numpy(uniform(range(40), 500))
    plain = SamplerConfig(method="next-scale", steps=1, threshold="none")
    codes = drawn(logits.expand(40, 500, 6), numbers, plain)
    found = codes.flatten().bincount(minlength=6) / codes.numel()
    assert float((found - logits[0, 0].softmax(0)).abs().max()) < 4 / math.sqrt(codes.numel())
    again = drawn(logits.expand(2, 500, 6), torch.from_numpy(uniform([17, 3], 500)), plain)
    assert torch.equal(again, codes[[17, 3]])
    edge = torch.tensor([[1 - 2**-53]], dtype=torch.float64)
    last = torch.tensor([[[0.0, 0.0, -1e9]]])
    assert int(drawn(last, edge, plain)) == 1  # never one that has no probability


@torch.no_grad()
def test_guidance_grows_with_the_scales() -> None:
    """Against every scale's logits of both halves, each from a pass of its own."""
    plan = tiny_plan()
    network = convert_transformer(transformer_state(plan), "tiny")
    decoder = convert_decoder(autoencoder_state(tiny_decoder()), "tiny")
    labels, numbers = torch.tensor([0, 2]), torch.from_numpy(uniform([5, 6], plan.tokens))
    made = by_scales(network, decoder, labels, numbers, SETTINGS)
    image, begin = torch.zeros(2, 4, 3, 3), 0
    halves: list[list[Kept | None]] = [[None] * plan.depth for _ in range(2)]
    for k, side in enumerate(plan.scales):
        seen = None if k == 0 else F.interpolate(image, (side, side), mode="area")
        told = (labels, torch.full_like(labels, 3))
        said, null = (network(k, seen, one, kept) for one, kept in zip(told, halves, strict=True))
        t = 1.5 * k / 2  # the authors' cfg, 1 less than the guidance here
        codes = drawn((1 + t) * said - t * null, numbers[:, begin : begin + side**2], SETTINGS)
        image = decoder.added(image, codes.view(2, side, side), k / 2)
        begin += side**2
    torch.testing.assert_close(made, image, atol=1e-5, rtol=1e-5)


PUBLISHED = {(16, 256): 310, (20, 256): 600, (24, 256): 1000, (30, 256): 2000, (36, 512): 2300}


@pytest.mark.parametrize(("depth", "resolution"), PUBLISHED)
def test_full_networks_have_the_published_sizes(depth: int, resolution: int) -> None:
    """The README of FoundationVision/VAR, in millions, as it rounds them."""
    with torch.device("meta"):
        network = VAR(published_plan(depth, resolution))
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[depth, resolution], rel=0.035)


def test_the_work_is_that_of_all_scales_and_of_one_decoding() -> None:
    work = published_work("var_d16.pth", 256)
    assert work is not None
    parameters = 16 * 12 * 1024**2  # of attention and MLPs
    assert 2 * parameters * 680 < work.evaluation < 2.4 * parameters * 680
    assert work.decoding > 1e11
    assert published_work("var_d16.pth", 512) is None
    assert published_work("var_d17.pth", 256) is None
    with torch.device("meta"):
        decoder = MultiScaleDecoder(PUBLISHED_DECODER)
    assert decoder.plan.factor == 16
    assert SETTINGS.network_evaluations == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks.1.extra": torch.zeros(1)}, "has blocks.1.extra, which is not known"),
        ({"blocks.1.attn.q_bias": None}, "lacks blocks.1.qkv.bias"),
        ({"head.bias": None}, "lacks out.bias"),
        ({"lvl_1L": None}, "is no VAR in its authors' layout"),
    ],
)
def test_other_layouts_are_refused_in_a_line(change: dict[str, Any], words: str) -> None:
    state: dict[str, Any] = transformer_state(tiny_plan()) | change
    with pytest.raises(UserError, match=words):
        convert_transformer({name: t for name, t in state.items() if t is not None}, "tiny")


def test_every_key_of_either_file_is_needed() -> None:
    state = transformer_state(tiny_plan())
    for key in set(state) - {"attn_bias_for_masking"}:
        with pytest.raises(UserError):
            convert_transformer({name: t for name, t in state.items() if name != key}, "tiny")
    other = autoencoder_state(tiny_decoder())
    for key in other:
        if key.startswith(("encoder.", "quant_conv.", "quantize.ema", "quantize.quant_resi")):
            continue
        with pytest.raises(UserError):
            convert_decoder({name: t for name, t in other.items() if name != key}, "tiny")


def test_a_file_is_sampled_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = save_var(tmp_path / "var.pth")
    source = generator_source("var")
    assert source.locate(str(file)) == file
    generator = source.load(file, compiled=False)
    batch = ImageBatch(["a", "b", "c"], [0, 2, 1], [1, 2, 3], None, 6)
    images = np.asarray(generator.sample(batch, SETTINGS))
    assert (images.shape, images.dtype) == ((3, 6, 6, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 3
    for changes, words in (
        ({"method": "ddpm"}, "needs method = 'next-scale'"),
        ({"threshold": "static"}, 'threshold = "none"'),
        ({"noise_augmentation": 0.2}, "knows no noise in parents"),
    ):
        with pytest.raises(UserError, match=words):
            generator.sample(batch, SETTINGS.model_copy(update=changes))
    with pytest.raises(UserError, match="label 3 is not among the 3 classes"):
        generator.sample(ImageBatch(["a"], [3], [1], None, 6), SETTINGS)
    (tmp_path / "vae_ch160v4096z32.pth").unlink()
    with pytest.raises(UserError, match="has no autoencoder beside it"):
        source.locate(str(file))
    for settings in ({"steps": 2}, {"method": "ddpm"}):
        with pytest.raises(ValidationError, match="next-scale"):
            SamplerConfig.model_validate(SETTINGS.model_dump() | settings)
