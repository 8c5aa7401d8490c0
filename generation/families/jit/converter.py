"""JiT's checkpoints in their authors' layout (LTH14/JiT), key by key."""

from collections.abc import Iterator, Mapping
from itertools import count
from math import isqrt

import torch
from torch import Tensor

from generation.families.jit.network import JiTNetwork, JiTPlan
from generation.pretrained.rotary_layout import (
    CLASSES,
    POSITIONS,
    authors_tensors,
    converted,
    shared_names,
    with_leaves,
)
from release.errors import UserError

PREFIX = "net."
JOINED = {12: 4, 24: 8, 32: 10}  # by depth, which no tensor tells
AT_PATCHES = "x_embedder.proj"


def convert(state: Mapping[str, Tensor], name: str) -> JiTNetwork:
    """The network in float32; UserError names a missing or odd key."""
    odd = sorted(key for key in state if not key.startswith(PREFIX))
    if odd:
        raise UserError(f"{name} does not fit its generator: it has {odd[0]}, which is not known")
    known = {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}
    plan = _plan_in(known, name)
    with torch.device("meta"):
        network = JiTNetwork(plan)
    found: JiTNetwork = converted(
        network, parameter_names(plan), fixed_tables(network), known, name
    )
    return found


def authors_state(network: JiTNetwork) -> dict[str, Tensor]:
    """Its tensors by the authors' keys."""
    state = authors_tensors(network, parameter_names(network.plan), fixed_tables(network))
    return {PREFIX + key: tensor for key, tensor in state.items()}


def parameter_names(plan: JiTPlan) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor."""
    yield from shared_names(plan.depth, normalised=True)
    yield "tokens", "in_context_posemb"
    yield "reduced.weight", f"{AT_PATCHES}1.weight"
    yield from with_leaves({"patches": f"{AT_PATCHES}2"})


def fixed_tables(network: JiTNetwork) -> dict[str, Tensor]:
    """What follows from the shape, by the authors' keys."""
    return {POSITIONS: network.positions()[None]}


def _plan_in(state: Mapping[str, Tensor], name: str) -> JiTPlan:
    depth = next(i for i in count() if f"blocks.{i}.attn.qkv.weight" not in state)
    try:
        bottleneck, channels, patch, _ = state[f"{AT_PATCHES}1.weight"].shape
        width = state[f"{AT_PATCHES}2.weight"].shape[0]
        if depth not in JOINED:
            known = ", ".join(map(str, JOINED))
            raise ValueError(f"of its {depth} blocks, where class tokens join is known of {known}")
        return JiTPlan(
            grid=isqrt(state[POSITIONS].shape[1]),
            channels=channels,
            classes=state[CLASSES].shape[0],
            patch=patch,
            bottleneck=bottleneck,
            width=width,
            depth=depth,
            heads=width // state["blocks.0.attn.q_norm.weight"].shape[0],
            tokens=state["in_context_posemb"].shape[1],
            joined=JOINED[depth],
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{name} is no JiT in its authors' layout: {error}") from None
