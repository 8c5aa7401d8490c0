"""DiT^DH's checkpoints in their authors' layout (bytetriper/RAE), key by key."""

from collections.abc import Iterator, Mapping
from itertools import count
from math import isqrt

import torch
from torch import Tensor

from generation.families.rae.network import DiTDHNetwork, DiTDHPlan, PartPlan
from generation.pretrained.rotary_layout import (
    CLASSES,
    POSITIONS,
    authors_tensors,
    converted,
    rotary_tables,
    shared_names,
    with_leaves,
)
from release.errors import UserError

DEEP, HEAD = "enc_feat_rope", "dec_feat_rope"
FREQUENCIES = "t_embedder.W"


def convert(state: Mapping[str, Tensor], name: str) -> DiTDHNetwork:
    """The network in float32; UserError names a missing or odd key."""
    plan = _plan_in(state, name)
    with torch.device("meta"):
        network = DiTDHNetwork(plan)
    found: DiTDHNetwork = converted(
        network, parameter_names(plan), fixed_tables(network), state, name
    )
    return found


def authors_state(network: DiTDHNetwork) -> dict[str, Tensor]:
    """Its tensors by the authors' keys."""
    return authors_tensors(network, parameter_names(network.plan), fixed_tables(network))


def parameter_names(plan: DiTDHPlan) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor."""
    yield from shared_names(plan.deep.depth + plan.head.depth, normalised=False)
    yield "time.frequencies", FREQUENCIES
    layers = {"patches": "x_embedder.proj", "deep_patches": "s_embedder.proj"}
    yield from with_leaves(layers | {"bridge": "s_projector"})


def fixed_tables(network: DiTDHNetwork) -> dict[str, Tensor]:
    """What follows from the shape, by the authors' keys."""
    plan = network.plan
    return {
        POSITIONS: network.positions()[None],
        **rotary_tables(DEEP, network.turns(plan.deep)),
        **rotary_tables(HEAD, network.turns(plan.head)),
    }


def _plan_in(state: Mapping[str, Tensor], name: str) -> DiTDHPlan:
    depth = next(i for i in count() if f"blocks.{i}.attn.qkv.weight" not in state)
    try:
        widths = [state[f"blocks.{i}.norm1.weight"].shape[0] for i in range(depth)]
        deep, head = (state[f"{part}_embedder.proj.weight"].shape[0] for part in "sx")
        if deep == head:
            raise ValueError(f"its head is {head} wide, as all of it: where it begins is not known")
        reading = widths.index(head)
        return DiTDHPlan(
            side=isqrt(state[POSITIONS].shape[1]),
            channels=state["x_embedder.proj.weight"].shape[1],
            classes=state[CLASSES].shape[0],
            deep=PartPlan(deep, reading, deep // state[f"{DEEP}.freqs_cos"].shape[1]),
            head=PartPlan(head, depth - reading, head // state[f"{HEAD}.freqs_cos"].shape[1]),
            waves=state[FREQUENCIES].shape[0],
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{name} is no DiT^DH in its authors' layout: {error}") from None
