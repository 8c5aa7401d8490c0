"""Tiny untrained networks of MAR by their authors' keys."""

from pathlib import Path

import torch
from torch import Tensor

from generation.families.mar.autoencoder import NAME
from generation.families.mar.plan import MARPlan
from tests.models.tiny_flows import CHANNELS, compvis_state, tiny_va_vae


def tiny_plan(grid: int = 4, classes: int = 3) -> MARPlan:
    """Two blocks that encode, one that decodes, sixteen heads of two channels."""
    return MARPlan(grid, CHANNELS, classes + 1, 32, (2, 1), 3, 24, 2)


def mar_state(plan: MARPlan, seed: int = 0) -> dict[str, Tensor]:
    """As class MAR saves it, no tensor at zero."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = drawn(outputs, inputs), drawn(outputs)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + drawn(width), drawn(width)

    width, places = plan.width, plan.tokens + plan.buffer
    state["class_emb.weight"], state["fake_latent"] = (
        drawn(plan.classes - 1, width),
        drawn(1, width),
    )
    state["encoder_pos_embed_learned"] = drawn(1, places, width)
    state["decoder_pos_embed_learned"] = drawn(1, places, width)
    state["diffusion_pos_embed_learned"] = drawn(1, plan.tokens, width)
    state["mask_token"] = drawn(1, 1, width)
    linear("z_proj", plan.channels, width)
    linear("decoder_embed", width, width)
    for name in ("z_proj_ln", "encoder_norm", "decoder_norm"):
        norm(name, width)
    for side, depth in zip(("encoder", "decoder"), plan.depth, strict=True):
        for i in range(depth):
            block = f"{side}_blocks.{i}"
            norm(f"{block}.norm1", width)
            linear(f"{block}.attn.qkv", width, 3 * width)
            linear(f"{block}.attn.proj", width, width)
            norm(f"{block}.norm2", width)
            linear(f"{block}.mlp.fc1", width, 4 * width)
            linear(f"{block}.mlp.fc2", 4 * width, width)
    own = plan.denoiser_width
    linear("diffloss.net.time_embed.mlp.0", 256, own)
    linear("diffloss.net.time_embed.mlp.2", own, own)
    linear("diffloss.net.cond_embed", width, own)
    linear("diffloss.net.input_proj", plan.channels, own)
    for i in range(plan.denoiser_depth):
        block = f"diffloss.net.res_blocks.{i}"
        norm(f"{block}.in_ln", own)
        linear(f"{block}.mlp.0", own, own)
        linear(f"{block}.mlp.2", own, own)
        linear(f"{block}.adaLN_modulation.1", own, 3 * own)
    linear("diffloss.net.final_layer.linear", own, 2 * plan.channels)
    linear("diffloss.net.final_layer.adaLN_modulation.1", own, 2 * own)
    return state


def save_mar(file: Path, classes: int = 3, grid: int = 4, levels: int = 2) -> Path:
    """The file of a training, its autoencoder beside it: a latent of 2^(levels - 1) px."""
    plan = tiny_plan(grid, classes)
    kept = {"model": mar_state(plan, 1), "model_ema": mar_state(plan), "epoch": 799}
    torch.save(kept, file)
    torch.save({"model": compvis_state(tiny_va_vae(levels, decodes=False))}, file.parent / NAME)
    return file
