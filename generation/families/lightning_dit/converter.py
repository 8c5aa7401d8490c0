"""LightningDiT's checkpoints in their authors' layout (hustvl/LightningDiT), key by key."""

from collections.abc import Iterator, Mapping
from itertools import count
from math import isqrt

import torch
from torch import Tensor

from generation.families.lightning_dit.network import LightningNetwork, LightningPlan
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

ROTARY = "feat_rope"


def convert(state: Mapping[str, Tensor], name: str) -> LightningNetwork:
    """The network in float32; UserError names a missing or odd key."""
    plan = _plan_in(state, name)
    with torch.device("meta"):
        network = LightningNetwork(plan)
    found: LightningNetwork = converted(
        network, parameter_names(plan), fixed_tables(network), state, name
    )
    return found


def authors_state(network: LightningNetwork) -> dict[str, Tensor]:
    """Its tensors by the authors' keys."""
    return authors_tensors(network, parameter_names(network.plan), fixed_tables(network))


def parameter_names(plan: LightningPlan) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor."""
    yield from shared_names(plan.depth, normalised=plan.normalised)
    yield from with_leaves({"patches": "x_embedder.proj"})


def fixed_tables(network: LightningNetwork) -> dict[str, Tensor]:
    """What follows from the shape, by the authors' keys."""
    return {POSITIONS: network.positions()[None]} | rotary_tables(ROTARY, network.turns())


def _plan_in(state: Mapping[str, Tensor], name: str) -> LightningPlan:
    try:
        width, channels, patch, _ = state["x_embedder.proj.weight"].shape
        return LightningPlan(
            grid=isqrt(state[POSITIONS].shape[1]),
            channels=channels,
            classes=state[CLASSES].shape[0],
            patch=patch,
            width=width,
            depth=next(i for i in count() if f"blocks.{i}.attn.qkv.weight" not in state),
            heads=width // state[f"{ROTARY}.freqs_cos"].shape[1],
            normalised="blocks.0.attn.q_norm.weight" in state,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{name} is no LightningDiT in its authors' layout: {error}") from None
