"""MAR's checkpoints by their authors' keys (LTH14/mar), to the networks here."""

from collections.abc import Iterator, Mapping
from itertools import count
from math import isqrt

import torch
from torch import Tensor

from generation.families.mar.network import MAR
from generation.families.mar.plan import MARPlan
from generation.pretrained.loading import load_exactly
from release.errors import UserError

CLASSES, NULL = "class_emb.weight", "fake_latent"  # one embedding here, the null class last
TENSORS = {  # here: the authors'
    "places": "encoder_pos_embed_learned",
    "mask": "mask_token",
    "decoder_places": "decoder_pos_embed_learned",
    "told_places": "diffusion_pos_embed_learned",
}
LAYERS = {
    "first": "z_proj",
    "first_norm": "z_proj_ln",
    "encoder_norm": "encoder_norm",
    "bridge": "decoder_embed",
    "decoder_norm": "decoder_norm",
    "denoiser.time.first": "diffloss.net.time_embed.mlp.0",
    "denoiser.time.second": "diffloss.net.time_embed.mlp.2",
    "denoiser.told": "diffloss.net.cond_embed",
    "denoiser.first": "diffloss.net.input_proj",
    "denoiser.modulation": "diffloss.net.final_layer.adaLN_modulation.1",
    "denoiser.out": "diffloss.net.final_layer.linear",
}
BLOCK = {
    "attention_norm": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "mlp_norm": "norm2",
    "first": "mlp.fc1",
    "second": "mlp.fc2",
}
TOKEN_BLOCK = {
    "norm": "in_ln",
    "first": "mlp.0",
    "second": "mlp.2",
    "modulation": "adaLN_modulation.1",
}


def convert(state: Mapping[str, Tensor], name: str) -> MAR:
    """The networks in float32; UserError names a key that is missing or odd."""
    plan = _plan_in(state, name)
    with torch.device("meta"):
        network = MAR(plan)
    names = dict(tensor_names(plan))
    wanted = network.state_dict()
    found = {
        ours: _without_ones(state[theirs], wanted[ours])
        for ours, theirs in names.items()
        if theirs in state
    }
    found["classes.weight"] = torch.cat([state[CLASSES], state[NULL]])
    converted: MAR = load_exactly(
        network, found, set(state) - {CLASSES, NULL, *names.values()}, name
    )
    return converted


def authors_state(network: MAR) -> dict[str, Tensor]:
    """Its tensors by the authors' keys, in their shapes."""
    tensors = network.state_dict()
    state = {theirs: tensors[ours] for ours, theirs in tensor_names(network.plan)}
    state |= {key: state[key][None] for key in TENSORS.values()}
    state["mask_token"] = state["mask_token"][None]
    classes = tensors["classes.weight"]
    return state | {CLASSES: classes[:-1], NULL: classes[-1:]}


def tensor_names(plan: MARPlan) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor, the classes apart."""
    yield from TENSORS.items()
    layers = dict(LAYERS)
    for side, depth in zip(("encoder", "decoder"), plan.depth, strict=True):
        for i in range(depth):
            layers |= _under(f"{side}.{i}", f"{side}_blocks.{i}", BLOCK)
    for i in range(plan.denoiser_depth):
        layers |= _under(f"denoiser.blocks.{i}", f"diffloss.net.res_blocks.{i}", TOKEN_BLOCK)
    for ours, theirs in layers.items():
        for leaf in ("weight", "bias"):
            yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def _under(ours: str, theirs: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{one}": f"{theirs}.{other}" for one, other in parts.items()}


def _without_ones(tensor: Tensor, wanted: Tensor) -> Tensor:
    """The authors' [1,T,W] and [1,1,W] as the network here has them."""
    return tensor.reshape(wanted.shape) if tensor.numel() == wanted.numel() else tensor


def _plan_in(state: Mapping[str, Tensor], name: str) -> MARPlan:
    try:
        width, channels = state["z_proj.weight"].shape
        tokens = state["diffusion_pos_embed_learned"].shape[1]
        plan = MARPlan(
            grid=isqrt(tokens),
            channels=channels,
            classes=len(state[CLASSES]) + len(state[NULL]),
            width=width,
            depth=(
                _count(state, "encoder_blocks.{}.norm1.weight"),
                _count(state, "decoder_blocks.{}.norm1.weight"),
            ),
            buffer=state["encoder_pos_embed_learned"].shape[1] - tokens,
            denoiser_width=state["diffloss.net.input_proj.weight"].shape[0],
            denoiser_depth=_count(state, "diffloss.net.res_blocks.{}.in_ln.weight"),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{name} is no MAR in its authors' layout: {error}") from None
    if plan.width % plan.heads or plan.buffer < 1 or plan.tokens != tokens:
        raise UserError(
            f"{name} is no MAR that is known here: {plan.width} channels of {plan.heads} heads, "
            f"{tokens} tokens after {plan.buffer}"
        )
    return plan


def _count(state: Mapping[str, Tensor], key: str) -> int:
    return next(i for i in count() if key.format(i) not in state)
