"""DiT's and SiT's checkpoints in their authors' layout, to the network here, key by key.

One layout of both (facebookresearch/DiT, willisma/SiT). A training's file keeps the averaged
network under "ema", beside optimizer and arguments; a published one is the network alone.
"""

from collections.abc import Iterator, Mapping
from itertools import count

from torch import Tensor

from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.loading import load_exactly
from release.errors import UserError

NAMES = {  # here: the authors'
    "patches": "x_embedder.proj",
    "time.first": "t_embedder.mlp.0",
    "time.second": "t_embedder.mlp.2",
    "modulation": "final_layer.adaLN_modulation.1",
    "out": "final_layer.linear",
}
BLOCK_NAMES = {
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "first": "mlp.fc1",
    "second": "mlp.fc2",
    "modulation": "adaLN_modulation.1",
}
POSITIONS, CLASSES = "pos_embed", "y_embedder.embedding_table.weight"
HEAD_WIDTHS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # heads by width, which no tensor tells


def parameter_names(depth: int) -> Iterator[tuple[str, str]]:
    """(here, the authors') of each tensor but the positions, which are fixed."""
    yield "classes.weight", CLASSES
    layers = [*NAMES.items()]
    layers += [
        (f"blocks.{i}.{ours}", f"blocks.{i}.{theirs}")
        for i in range(depth)
        for ours, theirs in BLOCK_NAMES.items()
    ]
    for ours, theirs in layers:
        for leaf in ("weight", "bias"):
            yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def plan_in(state: Mapping[str, Tensor], name: str, heads: int | None = None) -> TransformerPlan:
    """The shape that the tensors tell; UserError if they are of another network.

    heads: by default those of the published network of its width.
    """
    try:
        width, channels, patch, _ = state["x_embedder.proj.weight"].shape
        tokens = state[POSITIONS].shape[1]
        outputs = state["final_layer.linear.weight"].shape[0]
        classes = state[CLASSES].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{name} is no DiT or SiT in its authors' layout: {error}") from None
    depth = next(i for i in count() if f"blocks.{i}.attn.qkv.weight" not in state)
    heads = heads or HEAD_WIDTHS.get(width)
    if heads is None:
        raise UserError(
            f"{name} has width {width}, which is none of the published ones "
            f"({', '.join(map(str, HEAD_WIDTHS))}): its heads are not known"
        )
    return TransformerPlan(
        side=round(tokens**0.5) * patch,
        channels=channels,
        out_channels=outputs // patch**2,
        classes=classes,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
    )


def convert(state: Mapping[str, Tensor], name: str, heads: int | None = None) -> Transformer:
    """The network in float32; UserError names a key that is missing or odd."""
    import torch

    plan = plan_in(state, name, heads)
    names = dict(parameter_names(plan.depth))
    found = {ours: state[theirs] for ours, theirs in names.items() if theirs in state}
    with torch.device("meta"):
        network = Transformer(plan)
    _require_positions(state[POSITIONS], network, name)
    left = set(state) - set(names.values()) - {POSITIONS}
    converted: Transformer = load_exactly(network, found, left, name)
    return converted


def authors_state(network: Transformer) -> dict[str, Tensor]:
    """The network's tensors by the authors' keys."""
    state = network.state_dict()
    found = {theirs: state[ours] for ours, theirs in parameter_names(network.plan.depth)}
    return found | {POSITIONS: network.positions()[None]}


def _require_positions(found: Tensor, network: Transformer, name: str) -> None:
    """UserError if the file's fixed positions are not those that its shape gives."""
    wanted = network.positions()
    if found.shape != (1, *wanted.shape) or not found[0].float().allclose(wanted, atol=1e-4):
        raise UserError(f"{name} was trained with other positions than DiT's: {POSITIONS} differs")
