"""Tiny untrained networks of EDM2, by their authors' keys."""

from math import pi
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from generation.families.edm2.converter import block_names
from generation.families.edm2.plan import EDM2Plan
from tests.models.tiny_autoencoders import save_autoencoder


def tiny_plan(
    side: int = 8,
    channels: int = 3,
    classes: int = 3,
    widths: tuple[int, ...] = (8, 64),
    attends: tuple[int, ...] = (4,),
) -> EDM2Plan:
    # widths by which a CPU computes each row of a batch alike: multiples of 8, and of 32
    return EDM2Plan(side, channels, widths, 1, attends, classes, 8, 32)


def edm2_state(plan: EDM2Plan, seed: int = 0) -> dict[str, Tensor]:
    """Of class Precond: random, no gain at zero, uncertainty's head included."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    state = {
        "logvar_fourier.freqs": drawn(8),
        "logvar_fourier.phases": drawn(8),
        "logvar_linear.weight": drawn(1, 8),
        "unet.emb_fourier.freqs": 2 * pi * drawn(plan.noise),
        "unet.emb_fourier.phases": 2 * pi * torch.rand(plan.noise, generator=generator),
        "unet.emb_noise.weight": drawn(plan.embedding, plan.noise),
        f"unet.enc.{plan.side}x{plan.side}_conv.weight": drawn(
            plan.widths[0], plan.channels + 1, 3, 3
        ),
        "unet.out_conv.weight": drawn(plan.channels, plan.widths[0], 3, 3),
        "unet.out_gain": torch.tensor(0.8),
    }
    if plan.classes:
        state["unet.emb_label.weight"] = drawn(plan.embedding, plan.classes)
    for name, inputs, width, attends in blocks(plan):
        first = width if ".enc." in name else inputs
        state |= {
            f"{name}.emb_gain": drawn(1).reshape([]),
            f"{name}.conv_res0.weight": drawn(width, first, 3, 3),
            f"{name}.emb_linear.weight": drawn(width, plan.embedding),
            f"{name}.conv_res1.weight": drawn(width, width, 3, 3),
        }
        if inputs != width:
            state[f"{name}.conv_skip.weight"] = drawn(width, inputs, 1, 1)
        if attends:
            state[f"{name}.attn_qkv.weight"] = drawn(3 * width, width, 1, 1)
            state[f"{name}.attn_proj.weight"] = drawn(width, width, 1, 1)
    return state


def blocks(plan: EDM2Plan) -> list[tuple[str, int, int, bool]]:
    """Name, channels in and out, attention, as the authors' constructor has them."""
    found, skips, width = [], [plan.widths[0]], plan.widths[0]
    for _, name in block_names(plan):
        side = int(name.split(".")[2].partition("x")[0])
        wanted = plan.widths[(plan.side // side).bit_length() - 1]
        kind = name.rpartition("_")[2]
        if not kind.startswith("block"):  # a change of size, or the middle
            found.append((name, width, width, kind == "in0"))
            if kind == "down":
                skips.append(width)
            continue
        inputs = width if ".enc." in name else width + skips.pop()
        width = wanted
        found.append((name, inputs, width, side in plan.attends))
        if ".enc." in name:
            skips.append(width)
    return found


def save_edm2(file: Path, plan: EDM2Plan | None = None, seed: int = 0, blocks: int = 2) -> Path:
    """A file of a network on latents with its autoencoder beside it, whose latents stand for
    2^(blocks - 1) pixels a side."""
    plan = plan or tiny_plan()
    save_file(edm2_state(plan, seed), file)
    if plan.channels == 4:
        save_autoencoder(file.parent / "sd-vae-ft-mse", blocks=blocks)
    return file
