"""LightningDiT, JiT and DiT^DH against their papers in plain arithmetic, from the authors' keys."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from generation.families.jit import converter as jit
from generation.families.jit.network import JiTNetwork
from generation.families.jit.work import published_plan as jit_plan
from generation.families.lightning_dit import converter as lightning
from generation.families.lightning_dit.network import LightningNetwork
from generation.families.lightning_dit.work import published_plan as lightning_plan
from generation.families.rae import converter as rae
from generation.families.rae.network import DiTDHNetwork
from generation.families.rae.work import published_plan as rae_plan
from release.errors import UserError
from tests.models.tiny_flows import tiny_ditdh, tiny_jit, tiny_lightning

Place = tuple[int, int] | None  # row and column of a token; None: of the class
State = dict[str, Tensor]


class Reference:
    """Layers of one image, in float64, by the authors' names."""

    def __init__(self, state: State) -> None:
        self.state = {key.removeprefix("net."): tensor.double() for key, tensor in state.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def rms(self, name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.state[f"{name}.weight"]

    def embedded(self, waves: list[float]) -> Tensor:
        first = self.linear("t_embedder.mlp.0", torch.tensor(waves).double())
        return self.linear("t_embedder.mlp.2", silu(first))

    def time(self, t: float) -> Tensor:
        angles = [t * math.exp(-math.log(10000) * i / 128) for i in range(128)]
        return self.embedded([math.cos(a) for a in angles] + [math.sin(a) for a in angles])

    def patches(self, name: str, x: Tensor, patch: int) -> Tensor:
        """[C,H,W] => [T,D], without a bias where there is none."""
        found = []
        for row in range(0, x.shape[1], patch):
            for column in range(0, x.shape[2], patch):
                seen = x[:, row : row + patch, column : column + patch]
                found.append((self.state[f"{name}.weight"] * seen).sum((1, 2, 3)))
        return torch.stack(found) + self.state.get(f"{name}.bias", torch.zeros(()))

    def block(self, name: str, x: Tensor, c: Tensor, places: list[Place], heads: int) -> Tensor:
        """c [D] for all tokens or [T,D]."""
        told = self.linear(f"{name}.adaLN_modulation.1", silu(c)).chunk(6, dim=-1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = told
        seen = self.rms(f"{name}.norm1", x) * (1 + scale) + shift
        x = x + gate * self.attention(f"{name}.attn", seen, places, heads)
        seen = self.rms(f"{name}.norm2", x) * (1 + mlp_scale) + mlp_shift
        one, other = self.linear(f"{name}.mlp.w12", seen).chunk(2, dim=-1)
        return x + mlp_gate * self.linear(f"{name}.mlp.w3", silu(one) * other)

    def attention(self, name: str, x: Tensor, places: list[Place], heads: int) -> Tensor:
        query, key, value = self.linear(f"{name}.qkv", x).chunk(3, dim=-1)
        width, parts = x.shape[1] // heads, []
        for h in range(heads):
            at = slice(h * width, (h + 1) * width)
            q, k = query[:, at], key[:, at]
            if f"{name}.q_norm.weight" in self.state:
                q, k = self.rms(f"{name}.q_norm", q), self.rms(f"{name}.k_norm", k)
            q, k = turned(q, places), turned(k, places)
            parts.append((q @ k.T / math.sqrt(width)).softmax(-1) @ value[:, at])
        return self.linear(f"{name}.proj", torch.cat(parts, dim=1))

    def end(self, x: Tensor, c: Tensor, shape: tuple[int, ...], patch: int) -> Tensor:
        """[T,D] => [C,H,W]."""
        shift, scale = self.linear("final_layer.adaLN_modulation.1", silu(c)).chunk(2, dim=-1)
        seen = self.rms("final_layer.norm_final", x) * (1 + scale) + shift
        said = self.linear("final_layer.linear", seen)
        out = torch.empty(shape, dtype=torch.float64)
        for i, token in enumerate(said):
            row, column = (patch * at for at in divmod(i, shape[2] // patch))
            pixels = token.reshape(patch, patch, shape[0]).permute(2, 0, 1)
            out[:, row : row + patch, column : column + patch] = pixels
        return out


def turned(head: Tensor, places: list[Place]) -> Tensor:
    """[T,W]: half of the channels by the row, half by the column, each pair by its own angle."""
    out, half = head.clone(), head.shape[1] // 2
    for token, place in enumerate(places):
        if place is None:
            continue
        for i in range(0, head.shape[1], 2):
            part, own = divmod(i, half)
            angle = place[part] / 10000 ** (own / half)
            a, b = head[token, i], head[token, i + 1]
            out[token, i] = a * math.cos(angle) - b * math.sin(angle)
            out[token, i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def grid_of(side: int) -> list[Place]:
    return [(row, column) for row in range(side) for column in range(side)]


def fixed(side: int, width: int) -> Tensor:
    """[T,width]: sines, then cosines of the column, then of the row."""
    rows, quarter = [], width // 4
    for row in range(side):
        for column in range(side):
            for_place = []
            for at in (column, row):
                angles = [at / 10000 ** (i / quarter) for i in range(quarter)]
                for_place += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(for_place)
    return torch.tensor(rows).double()


def lightning_reference(state: State, x: Tensor, t: float, y: int) -> Tensor:
    r = Reference(state)
    tokens = r.patches("x_embedder.proj", x, 2)
    tokens = tokens + fixed(4, 16)
    c = r.time(t) + r.state["y_embedder.embedding_table.weight"][y]
    for i in range(2):
        tokens = r.block(f"blocks.{i}", tokens, c, grid_of(4), heads=2)
    return r.end(tokens, c, tuple(x.shape), patch=2)


def jit_reference(state: State, x: Tensor, t: float, y: int) -> Tensor:
    r = Reference(state)
    label = r.state["y_embedder.embedding_table.weight"][y]
    c, places = r.time(t) + label, grid_of(4)
    reduced = r.patches("x_embedder.proj1", x, 2)
    tokens = reduced @ r.state["x_embedder.proj2.weight"][:, :, 0, 0].T
    tokens = tokens + r.state["x_embedder.proj2.bias"] + fixed(4, 16)
    for i in range(12):
        if i == 4:
            tokens = torch.cat([label + r.state["in_context_posemb"][0], tokens])
            places = [None, None, *places]
        tokens = r.block(f"blocks.{i}", tokens, c, places, heads=2)
    return r.end(tokens[2:], c, tuple(x.shape), patch=2)


def rae_reference(state: State, x: Tensor, t: float, y: int) -> Tensor:
    r = Reference(state)
    angles = [2 * math.pi * t * float(w) for w in r.state["t_embedder.W"]]
    time = r.embedded([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    c = silu(time + r.state["y_embedder.embedding_table.weight"][y])
    read = r.patches("s_embedder.proj", x, 1) + fixed(4, 16)
    for i in range(2):
        read = r.block(f"blocks.{i}", read, c, grid_of(4), heads=2)
    told = r.linear("s_projector", silu(time + read))
    tokens = r.block("blocks.2", r.patches("x_embedder.proj", x, 1), told, grid_of(4), heads=3)
    return r.end(tokens, told, tuple(x.shape), patch=1)


NETWORKS: dict[str, tuple[Any, Callable[[], Any], Any]] = {
    "lightning-dit": (lightning, lambda: tiny_lightning(patch=2), lightning_reference),
    "lightning-dit, normalised": (
        lightning,
        lambda: tiny_lightning(patch=2, normalised=True),
        lightning_reference,
    ),
    "jit": (jit, tiny_jit, jit_reference),
    "rae": (rae, tiny_ditdh, rae_reference),
}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_the_papers(name: str) -> None:
    converter, made, reference = NETWORKS[name]
    state = converter.authors_state(made())
    network = converter.convert(state, "tiny").double()
    plan = network.plan
    torch.manual_seed(1)
    x = torch.randn(3, plan.channels, plan.side, plan.side).double()
    t, y = [0.0, 0.37, 1.0], [2, 0, 3]
    said = network(x, torch.tensor(t).double(), torch.tensor(y))
    for i in range(3):
        wanted = reference(state, x[i], t[i], y[i])
        assert float(wanted.abs().max()) > 0.1
        np.testing.assert_allclose(said[i], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_key_is_mapped_once_and_the_way_back_gives_the_same(name: str) -> None:
    converter, made, _ = NETWORKS[name]
    network = made()
    state = converter.authors_state(network)
    again = converter.convert(state, "tiny")
    assert again.plan == network.plan
    assert len(state) == len(network.state_dict()) + len(converter.fixed_tables(network))
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("lightning-dit", {"blocks.0.attn.x": torch.zeros(1)}, "it has blocks.0.attn.x, which is"),
        ("lightning-dit", {"blocks.1.mlp.w3.bias": None}, "it lacks blocks.1.down.bias"),
        ("lightning-dit", {"feat_rope.freqs_sin": None}, "it lacks feat_rope.freqs_sin"),
        ("lightning-dit", {"pos_embed": torch.zeros(1, 16, 16)}, "other positions: pos_embed"),
        ("lightning-dit", {"pos_embed": None}, "is no LightningDiT in its authors' layout"),
        ("jit", {"ema.x": torch.zeros(1)}, "it has ema.x, which is not known"),
        ("jit", {"net.in_context_posemb": None}, "is no JiT in its authors' layout"),
        ("jit", {"net.final_layer.linear.bias": None}, "it lacks end.out.bias"),
        ("jit", {"net.blocks.11.attn.qkv.weight": None}, "of its 11 blocks, where class tokens"),
        ("rae", {"t_embedder.mlp.4.bias": torch.zeros(1)}, "it has t_embedder.mlp.4.bias, which"),
        ("rae", {"s_projector.bias": None}, "it lacks bridge.bias"),
        ("rae", {"dec_feat_rope.freqs_cos": torch.zeros(16, 8)}, "dec_feat_rope.freqs_cos differs"),
        ("rae", {"t_embedder.W": None}, r"is no DiT\^DH in its authors' layout"),
    ],
)
def test_other_layouts_are_refused_in_a_line(name: str, change: State, words: str) -> None:
    converter, made, _ = NETWORKS[name]
    state = converter.authors_state(made()) | change
    with pytest.raises(UserError, match=words) as refused:
        converter.convert({key: t for key, t in state.items() if t is not None}, "file.pt")
    assert "\n" not in str(refused.value)


def millions(network: type, plan: Any) -> int:
    """Of its parameters, with those that do not learn: fixed positions."""
    with torch.device("meta"):
        made = network(plan)
    return round((sum(p.numel() for p in made.parameters()) + made.positions().numel()) / 1e6)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("JiT-B-16.pth", 131),
        ("JiT-L-16.pth", 459),
        ("JiT-H-16.pth", 953),
        ("JiT-B-32.pth", 133),
        ("JiT-L-32.pth", 462),
        ("JiT-H-32.pth", 956),
    ],
)
def test_jit_has_the_published_sizes(name: str, published: int) -> None:
    """Li & He 2025, tables 7 and 8."""
    assert millions(JiTNetwork, jit_plan(name)) == published


def test_the_others_have_the_published_sizes() -> None:
    """Yao et al. 2025, table 3: 675 M; Zheng et al. 2025, table 7: 839 M."""
    name = "lightningdit-xl-imagenet256-800ep.pt"
    assert millions(LightningNetwork, lightning_plan(name)) == 675
    assert millions(DiTDHNetwork, rae_plan("RAE-DiTDH-XL-256x256.pt")) == 839
