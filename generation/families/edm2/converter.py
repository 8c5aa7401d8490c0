"""EDM2's checkpoints by their authors' keys (NVlabs/edm2, class Precond), to the network here.

A weight becomes gain * w / (|w| / sqrt(n) + epsilon) / sqrt(n), n the values an output is made of:
equation 47, at every call there and once here. Of the class embedding one column is what a class
adds. The heads of uncertainty, which training alone looks at, are left out.
"""

from collections.abc import Iterator, Mapping
from math import sqrt

import torch
from torch import Tensor

from generation.families.edm2.network import EDM2, EPSILON
from generation.families.edm2.plan import HEAD_WIDTH, EDM2Plan, plan_in
from generation.pretrained.loading import load_exactly

UNUSED = ("logvar_fourier.freqs", "logvar_fourier.phases", "logvar_linear.weight")
BUFFERS = {"frequencies": "unet.emb_fourier.freqs", "phases": "unet.emb_fourier.phases"}
OUT_GAIN = "unet.out_gain"
LEAVES = {  # of a block, here: the authors'
    "first": "conv_res0",
    "second": "conv_res1",
    "embedding": "emb_linear",
    "skip": "conv_skip",
    "attention.qkv": "attn_qkv",
    "attention.projection": "attn_proj",
}


def block_names(plan: EDM2Plan) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each block, in order."""
    sides = [plan.side >> level for level in range(len(plan.widths))]
    down = [
        f"{side}x{side}_{name}"
        for level, side in enumerate(sides)
        for name in ([] if level == 0 else ["down"]) + [f"block{i}" for i in range(plan.blocks)]
    ]
    up = [
        f"{side}x{side}_{name}"
        for side in reversed(sides)
        for name in (["in0", "in1"] if side == sides[-1] else ["up"])
        + [f"block{i}" for i in range(plan.blocks + 1)]
    ]
    for ours, theirs in (("encoder", down), ("decoder", up)):
        for number, name in enumerate(theirs):
            yield f"{ours}.{number}", f"unet.{ours[:3]}.{name}"


def weight_names(plan: EDM2Plan) -> Iterator[tuple[str, str, str | None]]:
    """(here, the authors', its gain) of every weight that may be there, classes apart."""
    first = f"unet.enc.{plan.side}x{plan.side}_conv.weight"
    yield "noise.weight", "unet.emb_noise.weight", None
    yield "first.weight", first, None
    yield "last.weight", "unet.out_conv.weight", OUT_GAIN
    for ours, theirs in block_names(plan):
        for leaf, name in LEAVES.items():
            gain = f"{theirs}.emb_gain" if leaf == "embedding" else None
            yield f"{ours}.{leaf}.weight", f"{theirs}.{name}.weight", gain


def convert(state: Mapping[str, Tensor], name: str, head: int = HEAD_WIDTH) -> EDM2:
    """The network in float32; UserError names a key that is missing or odd."""
    plan = plan_in({key: tuple(t.shape) for key, t in state.items()}, name, head)
    with torch.device("meta"):
        network = EDM2(plan)
    found = {ours: state[theirs] for ours, theirs in BUFFERS.items() if theirs in state}
    used = {*UNUSED, *BUFFERS.values()}
    for ours, theirs, gain in weight_names(plan):
        if theirs in state and (gain is None or gain in state):
            scale = 1.0 if gain is None else float(state[gain])
            found[ours] = unit_magnitude(state[theirs]) * (scale / _root(state[theirs]))
            used |= {theirs, *([] if gain is None else [gain])}
    if plan.classes:
        found["classes.weight"] = unit_magnitude(state["unet.emb_label.weight"]).T.contiguous()
        used.add("unet.emb_label.weight")
    converted: EDM2 = load_exactly(network, found, set(state) - used, name)
    return converted


def unit_magnitude(weight: Tensor) -> Tensor:
    """Each output's values, their mean square 1 (equation 66)."""
    w = weight.float()
    norm = torch.linalg.vector_norm(w.flatten(1), dim=1).reshape(-1, *[1] * (w.ndim - 1))
    unit: Tensor = w / (EPSILON + norm / _root(w))
    return unit


def _root(weight: Tensor) -> float:
    return sqrt(weight[0].numel())
