"""VAR's two files by their authors' keys (FoundationVision/VAR), to the networks here.

var_d16.pth and its like hold the transformer; vae_ch160v4096z32.pth the autoencoder, whose encoding
half is of no use to sampling.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor

from generation.families.var.decoder import MultiScaleDecoder
from generation.families.var.network import VAR
from generation.families.var.plan import DecoderPlan, VARPlan
from generation.pretrained.loading import load_exactly
from release.errors import UserError

MASK = "attn_bias_for_masking"  # of training, which has all scales at once
LEVELS = "lvl_1L"  # which scale each token is of
ENCODING = ("encoder.", "quant_conv.", "quantize.ema_vocab_hit_SV")
NAMES = {  # here: the authors'
    "classes.weight": "class_emb.weight",
    "start": "pos_start",
    "positions": "pos_1LC",
    "levels.weight": "lvl_embed.weight",
}
LAYERS = {
    "codes": "word_embed",
    "modulation": "head_nm.ada_lin.1",
    "out": "head",
    "shared": "shared_ada_lin.1",
}
BLOCK_LAYERS = {
    "projection": "attn.proj",
    "first": "ffn.fc1",
    "second": "ffn.fc2",
    "modulation": "ada_lin.1",
}
BLOCK_NAMES = {
    "scales": "attn.scale_mul_1H11",
    "qkv.weight": "attn.mat_qkv.weight",
    "own": "ada_gss",
}
BIASES = ("attn.q_bias", "attn.zero_k_bias", "attn.v_bias")  # of the one matrix
PARTS = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
PARTS |= {"shortcut": "nin_shortcut"}
ATTENTION = {"norm": "norm", "qkv": "qkv", "projection": "proj_out"}


def with_leaves(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Of layers, their weights and biases."""
    for ours, theirs in names.items():
        for leaf in ("weight", "bias"):
            yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def transformer_names(depth: int) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor that may be there, the biases of q, k, v apart."""
    yield from NAMES.items()
    yield from with_leaves(LAYERS)
    for i in range(depth):
        block = f"blocks.{i}."
        yield from ((block + ours, block + theirs) for ours, theirs in BLOCK_NAMES.items())
        layers = {block + ours: block + theirs for ours, theirs in BLOCK_LAYERS.items()}
        yield from with_leaves(layers)


def convert_transformer(state: Mapping[str, Tensor], name: str) -> VAR:
    """The network in float32; UserError names a key that is missing or odd."""
    plan = _plan_in(state, name)
    with torch.device("meta"):
        network = VAR(plan)
    names = dict(transformer_names(plan.depth))
    found = {ours: state[theirs] for ours, theirs in names.items() if theirs in state}
    used = {MASK, LEVELS, *names.values()}
    for i in range(plan.depth):
        biases = [f"blocks.{i}.{bias}" for bias in BIASES]
        if all(bias in state for bias in biases):
            found[f"blocks.{i}.qkv.bias"] = torch.cat([state[bias] for bias in biases])
            used |= set(biases)
    wanted = network.state_dict()
    found = {key: _without_ones(t, wanted.get(key)) for key, t in found.items()}
    converted: VAR = load_exactly(network, found, set(state) - used, name)
    return converted


def decoder_names(plan: DecoderPlan) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor that may be there."""
    yield "codebook.weight", "quantize.embedding.weight"
    layers = {
        "before": "post_quant_conv",
        "first": "decoder.conv_in",
        "norm": "decoder.norm_out",
        "last": "decoder.conv_out",
        **{f"mixers.{i}": f"quantize.quant_resi.qresi_ls.{i}" for i in range(plan.mixers)},
    }
    layers |= _under("middle.0", "decoder.mid.block_1", PARTS)
    layers |= _under("middle.1", "decoder.mid.attn_1", ATTENTION)
    layers |= _under("middle.2", "decoder.mid.block_2", PARTS)
    for place, level in enumerate(reversed(range(len(plan.widths)))):
        number = count()
        for i in range(plan.blocks):
            ours = f"levels.{place}.{next(number)}"
            layers |= _under(ours, f"decoder.up.{level}.block.{i}", PARTS)
            if place == 0:
                ours = f"levels.{place}.{next(number)}"
                layers |= _under(ours, f"decoder.up.{level}.attn.{i}", ATTENTION)
        layers[f"levels.{place}.{next(number)}.conv"] = f"decoder.up.{level}.upsample.conv"
    yield from with_leaves(layers)


def convert_decoder(state: Mapping[str, Tensor], name: str) -> MultiScaleDecoder:
    """The decoding half in float32; UserError names a key that is missing or odd."""
    plan = _decoder_plan_in(state, name)
    with torch.device("meta"):
        network = MultiScaleDecoder(plan)
    names = dict(decoder_names(plan))
    found = {ours: state[theirs] for ours, theirs in names.items() if theirs in state}
    left = {key for key in state if key not in names.values() and not key.startswith(ENCODING)}
    converted: MultiScaleDecoder = load_exactly(network, found, left, name)
    return converted


def _under(ours: str, theirs: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{one}": f"{theirs}.{other}" for one, other in parts.items()}


def _without_ones(tensor: Tensor, wanted: Tensor | None) -> Tensor:
    """The authors' [1,L,C], [1,H,1,1] and [1,1,6,C] as the networks here have them."""
    if wanted is None or tensor.shape == wanted.shape or tensor.numel() != wanted.numel():
        return tensor
    return tensor.reshape(wanted.shape)


def _plan_in(state: Mapping[str, Tensor], name: str) -> VARPlan:
    try:
        classes, width = state["class_emb.weight"].shape
        heads = state["blocks.0.attn.scale_mul_1H11"].numel()
        counts = state[LEVELS].flatten().bincount().tolist()
        hidden = state["blocks.0.ffn.fc1.weight"].shape[0]
        codes = state["head.weight"].shape[0]
        code_width = state["word_embed.weight"].shape[1]
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"{name} is no VAR in its authors' layout: {error}") from None
    depth = next(i for i in count() if f"blocks.{i}.attn.mat_qkv.weight" not in state)
    scales = tuple(round(number**0.5) for number in counts)
    shared = "shared_ada_lin.1.weight" in state
    return VARPlan(scales, classes, width, depth, heads, hidden, codes, code_width, shared)


def _decoder_plan_in(state: Mapping[str, Any], name: str) -> DecoderPlan:
    try:
        codes, code_width = state["quantize.embedding.weight"].shape
        depth = _count(state, "decoder.up.{}.block.0.conv1.weight")
        widths = (state[f"decoder.up.{i}.block.0.conv1.weight"].shape[0] for i in range(depth))
        blocks = _count(state, "decoder.up.0.block.{}.conv1.weight")
        mixers = _count(state, "quantize.quant_resi.qresi_ls.{}.weight")
        plan = DecoderPlan(code_width, codes, tuple(widths), blocks, mixers)
    except (KeyError, ValueError) as error:
        raise UserError(f"{name} is no autoencoder of VAR: {error}") from None
    if not (depth and blocks and mixers):
        raise UserError(f"{name} is no autoencoder of VAR: it lacks a decoder or its mixers")
    return plan


def _count(state: Mapping[str, Any], key: str) -> int:
    return next(i for i in count() if key.format(i) not in state)
