"""Improved MeanFlow's checkpoints in their authors' layout (Lyy-iiis/imeanflow, branch torch), key
by key. They are evaluation's: without the blocks of the second head, but with its last layer."""

from collections.abc import Iterator, Mapping
from itertools import count

import torch
from torch import Tensor

from generation.families.mean_flow.network import MeanFlowNetwork, MeanFlowPlan
from generation.pretrained.loading import load_exactly
from release.errors import UserError

PREFIX = "net."
LINEAR = "._flax_linear"
TOKENS = ("class_tokens", "omega_tokens", "t_min_tokens", "t_max_tokens", "time_tokens")
EMBEDDERS = {  # here: the authors'
    "time": "h_embedder",
    "guidance": "omega_embedder",
    "start": "cfg_t_start_embedder",
    "end": "cfg_t_end_embedder",
}
BLOCK_NAMES = {
    "norm.weight": "norm1.weight",
    "mlp_norm.weight": "norm2.weight",
    "query_norm.weight": "attn.q_norm.weight",
    "key_norm.weight": "attn.k_norm.weight",
    "query.weight": f"attn.q_proj{LINEAR}.weight",
    "key.weight": f"attn.k_proj{LINEAR}.weight",
    "value.weight": f"attn.v_proj{LINEAR}.weight",
    "projection.weight": f"attn.out_proj{LINEAR}.weight",
    "gated.weight": f"mlp.w1{LINEAR}.weight",
    "linear.weight": f"mlp.w3{LINEAR}.weight",
    "down.weight": f"mlp.w2{LINEAR}.weight",
    "gate": "attn_scale",
    "mlp_gate": "mlp_scale",
}
UNUSED = (
    "v_final_layer.norm.weight",
    *(f"v_final_layer.linear{LINEAR}.{x}" for x in ("weight", "bias")),
)


def parameter_names(shared: int, own: int) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor; shared, own: blocks before and after the heads part."""
    yield "classes.weight", "y_embedder.embedding_table._flax_embedding.weight"
    for i, theirs in enumerate(TOKENS):
        yield f"tokens.{i}", theirs
    for leaf in ("weight", "bias"):
        yield f"patches.{leaf}", f"x_embedder.proj.{leaf}"
        yield f"out.{leaf}", f"u_final_layer.linear{LINEAR}.{leaf}"
        for ours, theirs in EMBEDDERS.items():
            for place, layer in enumerate(("first", "second")):
                yield f"{ours}.{layer}.{leaf}", f"{theirs}.mlp.{2 * place}{LINEAR}.{leaf}"
    yield "norm.weight", "u_final_layer.norm.weight"
    for i in range(shared + own):
        block = f"shared_blocks.{i}" if i < shared else f"u_heads.{i - shared}"
        for ours, theirs in BLOCK_NAMES.items():
            yield f"blocks.{i}.{ours}", f"{block}.{theirs}"


def convert(state: Mapping[str, Tensor], side: int, name: str) -> MeanFlowNetwork:
    """The network in float32, on latents of `side`; UserError names a missing or odd key."""
    odd = sorted(key for key in state if not key.startswith(PREFIX))
    if odd:
        raise UserError(f"{name} does not fit its generator: it has {odd[0]}, which is not known")
    known = {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}
    shared, own = (_blocks(known, part) for part in ("shared_blocks", "u_heads"))
    plan = _plan_in(known, side, shared + own, name)
    names = dict(parameter_names(shared, own))
    found = {ours: known[theirs] for ours, theirs in names.items() if theirs in known}
    with torch.device("meta"):
        network = MeanFlowNetwork(plan)
    left = set(known) - set(names.values()) - set(UNUSED)
    converted: MeanFlowNetwork = load_exactly(network, found, left, name)
    return converted


def authors_state(network: MeanFlowNetwork, own: int) -> dict[str, Tensor]:
    """Its tensors by the authors' keys; own: blocks behind the parting of the heads."""
    state = network.state_dict()
    names = parameter_names(network.plan.depth - own, own)
    return {PREFIX + theirs: state[ours] for ours, theirs in names}


def _blocks(state: Mapping[str, Tensor], part: str) -> int:
    return next(i for i in count() if f"{part}.{i}.norm1.weight" not in state)


def _plan_in(state: Mapping[str, Tensor], side: int, depth: int, name: str) -> MeanFlowPlan:
    try:
        width, channels, patch, _ = state["x_embedder.proj.weight"].shape
        classes = state["y_embedder.embedding_table._flax_embedding.weight"].shape[0]
        hidden = state[f"shared_blocks.0.mlp.w1{LINEAR}.weight"].shape[0]
        heads = width // state["shared_blocks.0.attn.q_norm.weight"].shape[0]
        first, second, third, fourth, fifth = (state[key].shape[0] for key in TOKENS)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{name} is no improved MeanFlow in its authors' layout: {error}") from None
    tokens = (first, second, third, fourth, fifth)
    return MeanFlowPlan(side, channels, classes, patch, width, depth, heads, hidden, tokens)
