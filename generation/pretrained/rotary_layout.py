"""The authors' layout of LightningDiT, and of JiT and DiT^DH, which descend from it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from generation.networks.rotary_transformer import as_table
from generation.pretrained.loading import load_exactly
from release.errors import UserError

POSITIONS, CLASSES = "pos_embed", "y_embedder.embedding_table.weight"
TIME = {"time.first": "t_embedder.mlp.0", "time.second": "t_embedder.mlp.2"}
END = {"modulation": "adaLN_modulation.1", "out": "linear"}
BLOCK = {
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "gated": "mlp.w12",
    "down": "mlp.w3",
    "modulation": "adaLN_modulation.1",
}
NORMS = {"norm": "norm1", "mlp_norm": "norm2"}
HEAD_NORMS = {"query_norm": "attn.q_norm", "key_norm": "attn.k_norm"}
LEAVES = ("weight", "bias")
CLOSE = 1e-4  # to which a file's fixed tables must be those that its shape gives


def shared_names(depth: int, *, normalised: bool) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor of time, classes, blocks and end."""
    yield "classes.weight", CLASSES
    yield "end.norm.weight", "final_layer.norm_final.weight"
    layers = TIME | {f"end.{ours}": f"final_layer.{theirs}" for ours, theirs in END.items()}
    norms = NORMS | HEAD_NORMS if normalised else NORMS
    for i in range(depth):
        layers |= {f"blocks.{i}.{ours}": f"blocks.{i}.{theirs}" for ours, theirs in BLOCK.items()}
        for ours, theirs in norms.items():
            yield f"blocks.{i}.{ours}.weight", f"blocks.{i}.{theirs}.weight"
    yield from with_leaves(layers)


def with_leaves(layers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Weight and bias of each."""
    for ours, theirs in layers.items():
        for leaf in LEAVES:
            yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def rotary_tables(name: str, turns: Tensor) -> dict[str, Tensor]:
    """The buffers of a module `name` that turns queries and keys."""
    cosines, sines = as_table(turns)
    return {f"{name}.freqs_cos": cosines, f"{name}.freqs_sin": sines}


def converted(
    network: Any,
    names: Iterable[tuple[str, str]],
    fixed: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
) -> Any:
    """`network`, on the meta device, with a file's tensors in float32.

    fixed: tables that follow from the shape, by the authors' keys. UserError names a key that is
    missing or odd, and a table that differs.
    """
    pairs = dict(names)
    for key, table in fixed.items():
        found = state.get(key)
        if found is None:
            raise UserError(f"{source} does not fit its generator: it lacks {key}")
        if found.shape != table.shape or not found.float().allclose(table, atol=CLOSE):
            raise UserError(f"{source} was trained with other positions: {key} differs")
    tensors = {ours: state[theirs] for ours, theirs in pairs.items() if theirs in state}
    left = set(state) - set(pairs.values()) - set(fixed)
    return load_exactly(network, tensors, left, source)


def authors_tensors(
    network: Any, names: Iterable[tuple[str, str]], fixed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The network's tensors by the authors' keys."""
    state = network.state_dict()
    return {theirs: state[ours] for ours, theirs in names} | dict(fixed)
