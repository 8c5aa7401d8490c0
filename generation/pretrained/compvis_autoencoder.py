"""Autoencoders in the layout of Rombach et al. 2022 (CompVis/latent-diffusion), which many share:
key by key to diffusers' classes."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from generation.pretrained.loading import load_exactly
from release.errors import UserError

Kind = Literal["plain", "resnet", "attention"]
PARTS: dict[Kind, dict[str, str]] = {  # diffusers' name => the checkpoint's
    "plain": {"": ""},
    "resnet": {
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "conv_shortcut": "nin_shortcut",
    },
    "attention": {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    },
}
GROUPS = 32
Module = tuple[str, str, Kind]  # diffusers' name, the checkpoint's name, kind


def convert_kl(state: Mapping[str, Tensor], name: str) -> Any:
    """AutoencoderKL in float32; UserError names a key that is missing or odd."""
    try:
        levels, blocks = counted_in(state)
        last = f"{levels - 1}.attn.0"
        places = ("decoder.mid.attn_1", f"encoder.down.{last}", f"decoder.up.{last}")
        attends, *coarsest = (f"{place}.q.weight" in state for place in places)
        network = _empty_kl(state, levels, blocks, attends, *coarsest)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{name} holds no autoencoder of Rombach et al.'s layout: {error}"
        ) from None
    modules = autoencoder_modules(levels, blocks, attends, *coarsest)
    return load_modules(network, modules, state, name)


def counted_in(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Levels, and the encoder's blocks of each."""
    return (
        next(i for i in count() if f"decoder.up.{i}.block.0.conv1.weight" not in state),
        next(j for j in count() if f"encoder.down.0.block.{j}.conv1.weight" not in state),
    )


def load_modules(
    network: Any, modules: Iterable[Module], state: Mapping[str, Tensor], name: str
) -> Any:
    """`network`, on the meta device, with those modules' tensors."""
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs, kind in modules:
        for mine, its in PARTS[kind].items():
            for leaf in ("weight", "bias"):
                key = ".".join(filter(None, (theirs, its, leaf)))
                if key in state:
                    used.add(key)
                    pointwise = kind == "attention" and its != "norm" and leaf == "weight"
                    value = state[key].flatten(1) if pointwise else state[key]
                    found[".".join(filter(None, (ours, mine, leaf)))] = value
    return load_exactly(network, found, set(state) - used, name)


def autoencoder_modules(
    levels: int, blocks: int, attends: bool, encoding: bool = False, decoding: bool = False
) -> Iterator[Module]:
    """Of every module with weights. attends: in the middle; encoding, decoding: after each block of
    the coarsest level on that side."""
    for name in ("quant_conv", "post_quant_conv"):
        yield name, name, "plain"
    for side in ("encoder", "decoder"):
        yield f"{side}.conv_in", f"{side}.conv_in", "plain"
        yield f"{side}.conv_norm_out", f"{side}.norm_out", "plain"
        yield f"{side}.conv_out", f"{side}.conv_out", "plain"
        for j in range(2):
            yield f"{side}.mid_block.resnets.{j}", f"{side}.mid.block_{j + 1}", "resnet"
        if attends:
            yield f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", "attention"
    for i in range(levels):  # the checkpoint counts both ways from the finest level
        ours, theirs = f"encoder.down_blocks.{i}", f"encoder.down.{i}"
        last = i == levels - 1
        yield from _level(ours, theirs, blocks, encoding and last)
        if i < levels - 1:
            yield f"{ours}.downsamplers.0.conv", f"{theirs}.downsample.conv", "plain"
        ours, theirs = f"decoder.up_blocks.{levels - 1 - i}", f"decoder.up.{i}"
        yield from _level(ours, theirs, blocks + 1, decoding and last)
        if i > 0:
            yield f"{ours}.upsamplers.0.conv", f"{theirs}.upsample.conv", "plain"


def _level(ours: str, theirs: str, blocks: int, attends: bool) -> Iterator[Module]:
    for j in range(blocks):
        yield f"{ours}.resnets.{j}", f"{theirs}.block.{j}", "resnet"
        if attends:
            yield f"{ours}.attentions.{j}", f"{theirs}.attn.{j}", "attention"


def _empty_kl(
    state: Mapping[str, Tensor],
    levels: int,
    blocks: int,
    attends: bool,
    encoding: bool,
    decoding: bool,
) -> Any:
    from diffusers import AutoencoderKL

    widths = [state[f"decoder.up.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    down, up = ([""] * (levels - 1) + ["Attn" * there] for there in (encoding, decoding))
    with torch.device("meta"):
        return AutoencoderKL(
            in_channels=state["encoder.conv_in.weight"].shape[1],
            out_channels=state["decoder.conv_out.weight"].shape[0],
            block_out_channels=tuple(widths),
            down_block_types=tuple(f"{kind}DownEncoderBlock2D" for kind in down),
            up_block_types=tuple(f"{kind}UpDecoderBlock2D" for kind in reversed(up)),
            layers_per_block=blocks,
            latent_channels=state["decoder.conv_in.weight"].shape[1],
            norm_num_groups=GROUPS,
            mid_block_add_attention=attends,
        )
