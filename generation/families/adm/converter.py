"""OpenAI's U-Net (Nichol & Dhariwal 2021; Dhariwal & Nichol 2021) as one of diffusers' U-Nets.

With self-attention alone it becomes a UNet2DModel; with transformer blocks that look at a context
(Rombach et al. 2022, appendix E.2.1) a UNet2DConditionModel. What shapes tell is read from them.
What they cannot tell is the heads and the order of q, k, v in one matrix: networks that differ in
them have the same keys and counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from generation.families.adm.shapes import Heads, Shape
from generation.pretrained.loading import load_exactly
from release.errors import UserError

Kind = Literal["plain", "resnet", "attention", "transformer"]
GROUPS = 32  # of every group norm of the published networks
CONTEXT = "middle_block.1.transformer_blocks.{}.attn2.to_k.weight"
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
PARTS: dict[Kind, dict[str, str]] = {
    "plain": {"": ""},
    "resnet": RESNET,
    "attention": {"group_norm": "norm", "to_out.0": "proj_out"},
}
LABELS = "label_emb.weight"


def read_shape(state: Mapping[str, Tensor], name: str) -> Shape:
    """The network's shape; UserError if the keys are not those of such a U-Net."""
    try:
        return _read_shape(state)
    except (KeyError, ZeroDivisionError) as error:
        raise UserError(f"{name} is not a checkpoint of OpenAI's U-Net: no {error} there") from None


def _read_shape(state: Mapping[str, Tensor]) -> Shape:
    up_blocks = next(k for k in count() if f"output_blocks.{k}.0.in_layers.0.weight" not in state)
    ups = [u for k in range(up_blocks) if (u := _upsampler(state, k)) is not None]
    levels = len(ups) + 1
    blocks = up_blocks // levels  # each level goes up through one more block than it came down
    firsts = [(levels - 1 - level) * blocks for level in range(levels)]
    widths = tuple(state[f"output_blocks.{k}.0.out_layers.3.weight"].shape[0] for k in firsts)
    emb = state["output_blocks.0.0.emb_layers.1.weight"].shape[0]
    return Shape(
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=state["out.2.weight"].shape[0],
        widths=widths,
        attends=tuple(f"output_blocks.{k}.1.proj_out.weight" in state for k in firsts),
        blocks=blocks - 1,
        resblock_updown=any("in_layers" in up for up in ups),
        scale_shift=emb == 2 * widths[-1],
        classes=state[LABELS].shape[0] if LABELS in state else None,
        context=state[CONTEXT.format(0)].shape[1] if CONTEXT.format(0) in state else None,
        depth=next(i for i in count() if CONTEXT.format(i) not in state),
    )


def _upsampler(state: Mapping[str, Tensor], block: int) -> str | None:
    for key in ("conv.weight", "in_layers.0.weight"):
        for place in (1, 2):
            if f"output_blocks.{block}.{place}.{key}" in state:
                return key
    return None


def modules(shape: Shape) -> Iterator[tuple[str, str, Kind]]:
    """(diffusers' name, OpenAI's name, kind) of every module with weights."""
    updown: Kind = "resnet" if shape.resblock_updown else "plain"
    attention: Kind = "attention" if shape.context is None else "transformer"
    last = len(shape.widths) - 1
    yield "time_embedding.linear_1", "time_embed.0", "plain"
    yield "time_embedding.linear_2", "time_embed.2", "plain"
    yield "conv_in", "input_blocks.0.0", "plain"
    k = 1
    for i, attends in enumerate(shape.attends):
        for j in range(shape.blocks):
            yield f"down_blocks.{i}.resnets.{j}", f"input_blocks.{k}.0", "resnet"
            if attends:
                yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{k}.1", attention
            k += 1
        if i < last:
            ours, theirs = ("", "") if shape.resblock_updown else (".conv", ".op")
            yield f"down_blocks.{i}.downsamplers.0{ours}", f"input_blocks.{k}.0{theirs}", updown
            k += 1
    yield "mid_block.resnets.0", "middle_block.0", "resnet"
    yield "mid_block.attentions.0", "middle_block.1", attention
    yield "mid_block.resnets.1", "middle_block.2", "resnet"
    k = 0
    for i, attends in enumerate(reversed(shape.attends)):
        for j in range(shape.blocks + 1):
            yield f"up_blocks.{i}.resnets.{j}", f"output_blocks.{k}.0", "resnet"
            if attends:
                yield f"up_blocks.{i}.attentions.{j}", f"output_blocks.{k}.1", attention
            k += 1
        if i < last:
            end = "" if shape.resblock_updown else ".conv"
            place = 2 if attends else 1
            yield f"up_blocks.{i}.upsamplers.0{end}", f"output_blocks.{k - 1}.{place}{end}", updown
    yield "conv_norm_out", "out.0", "plain"
    yield "conv_out", "out.2", "plain"


def rename(
    state: Mapping[str, Tensor], shape: Shape, heads: Heads
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors by diffusers' keys, and the keys of `state` that were used."""
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs, kind in modules(shape):
        if kind == "transformer":  # diffusers' blocks are those of latent diffusion, by name too
            own = [key for key in state if key.startswith(f"{theirs}.")]
            used.update(own)
            found |= {ours + key.removeprefix(theirs): state[key] for key in own}
            continue
        if kind == "attention":
            for leaf in ("weight", "bias"):
                if (key := f"{theirs}.qkv.{leaf}") in state:
                    used.add(key)
                    for name, value in zip("qkv", split_qkv(state[key], heads), strict=True):
                        found[f"{ours}.to_{name}.{leaf}"] = value
        for mine, its in PARTS[kind].items():
            for leaf in ("weight", "bias"):
                key = ".".join(filter(None, (theirs, its, leaf)))
                if key in state:
                    used.add(key)
                    value = state[key].squeeze(-1) if its == "proj_out" else state[key]
                    found[".".join(filter(None, (ours, mine, leaf)))] = value
    return found, used


def split_qkv(qkv: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """q, k, v, each [C] or [C,C], heads one after another, from [3C] or [3C,C,1]."""
    qkv = qkv.reshape(qkv.shape[:2])
    if not heads.legacy:
        return qkv.chunk(3)
    channels = len(qkv) // 3
    rest = qkv.shape[1:]
    by_head = qkv.reshape(heads.at(channels), 3, -1, *rest)
    return tuple(by_head[:, i].reshape(channels, *rest) for i in range(3))


def convert_unet(state: Mapping[str, Tensor], heads: Heads, name: str) -> Any:
    """A U-Net in float32 from OpenAI's state dict; UserError names a missing or odd key."""
    shape = read_shape(state, name)
    unet = planned_unet(shape, heads, name)
    found, used = rename(state, shape, heads)
    if shape.classes is not None:
        found["class_embedding.weight"] = state[LABELS]
        used.add(LABELS)
    return load_exactly(unet, found, set(state) - used, name)


def planned_unet(shape: Shape, heads: Heads, name: str) -> Any:
    """The U-Net without its weights, on torch's meta device."""
    with torch.device("meta"):
        return new_unet(shape, heads, name)


def new_unet(shape: Shape, heads: Heads, name: str) -> Any:
    """The U-Net with weights drawn from torch's generator; UserError for heads that do not fit."""
    unet = _empty_unet(shape) if shape.context is None else _empty_conditional_unet(shape)
    _set_heads(unet, heads, name)
    return unet


def openai_state(unet: Any, shape: Shape, heads: Heads) -> dict[str, Tensor]:
    """The tensors of a U-Net with self-attention alone by OpenAI's keys: `rename`, turned round."""
    state = unet.state_dict()
    found: dict[str, Tensor] = {}
    for ours, theirs, kind in modules(shape):
        for leaf in ("weight", "bias"):
            if kind == "attention":
                qkv = [state[f"{ours}.to_{name}.{leaf}"] for name in "qkv"]
                joined = join_qkv(qkv, heads)
                found[f"{theirs}.qkv.{leaf}"] = joined[..., None] if leaf == "weight" else joined
            for mine, its in PARTS[kind].items():
                key = ".".join(filter(None, (ours, mine, leaf)))
                if key in state:
                    value = state[key][..., None] if _is_projection(its, leaf) else state[key]
                    found[".".join(filter(None, (theirs, its, leaf)))] = value
    if shape.classes is not None:
        found[LABELS] = state["class_embedding.weight"]
    return found


def join_qkv(parts: Sequence[Tensor], heads: Heads) -> Tensor:
    """[3C] or [3C,C] from q, k, v, each [C] or [C,C]: `split_qkv`, turned round."""
    if not heads.legacy:
        return torch.cat(list(parts))
    channels, rest = len(parts[0]), parts[0].shape[1:]
    by_head = [part.reshape(heads.at(channels), -1, *rest) for part in parts]
    return torch.stack(by_head, dim=1).reshape(3 * channels, *rest)


def _is_projection(name: str, leaf: str) -> bool:
    """Whether it is a convolution of kernel 1 over a row with OpenAI, a matrix with diffusers."""
    return name == "proj_out" and leaf == "weight"


def _empty_unet(shape: Shape) -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(
        **_settings(shape),
        down_block_types=tuple(_block(a, "Down", shape) for a in shape.attends),
        up_block_types=tuple(_block(a, "Up", shape) for a in reversed(shape.attends)),
        downsample_type="resnet" if shape.resblock_updown else "conv",
        upsample_type="resnet" if shape.resblock_updown else "conv",
        attention_head_dim=shape.groups,
        attn_norm_num_groups=shape.groups,
    )


def _empty_conditional_unet(shape: Shape) -> Any:
    from diffusers import UNet2DConditionModel

    attends = ["CrossAttn" if a else "" for a in shape.attends]
    return UNet2DConditionModel(
        **_settings(shape),
        down_block_types=tuple(f"{a}DownBlock2D" for a in attends),
        up_block_types=tuple(f"{a}UpBlock2D" for a in reversed(attends)),
        cross_attention_dim=shape.context,
        transformer_layers_per_block=shape.depth,
    )


def _settings(shape: Shape) -> dict[str, Any]:
    """What both of diffusers' U-Nets call by one name."""
    return {
        "sample_size": shape.side,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": shape.widths,
        "layers_per_block": shape.blocks,
        "resnet_time_scale_shift": "scale_shift" if shape.scale_shift else "default",
        "num_class_embeds": shape.classes,
        "norm_num_groups": shape.groups,
    }


def _block(attends: bool, way: Literal["Down", "Up"], shape: Shape) -> str:
    if attends:
        return f"Attn{way}Block2D"
    return f"Resnet{way}sampleBlock2D" if shape.resblock_updown else f"{way}Block2D"


def _set_heads(unet: Any, heads: Heads, name: str) -> None:
    """diffusers knows one head width for all layers; these networks may have one head count."""
    from diffusers.models.attention_processor import Attention

    for module in unet.modules():
        if isinstance(module, Attention):
            channels = module.inner_dim
            module.heads = heads.at(channels)
            if module.heads == 0 or channels % module.heads:
                raise UserError(f"{name} has {channels} channels, which do not part into heads")
            module.scale = (channels // module.heads) ** -0.5
