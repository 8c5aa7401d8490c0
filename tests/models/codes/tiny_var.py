"""Tiny untrained networks of VAR by their authors' keys."""

from pathlib import Path

import torch
from torch import Tensor

from generation.families.var.plan import DecoderPlan, VARPlan


def tiny_plan(
    scales: tuple[int, ...] = (1, 2, 3), classes: int = 3, shared: bool = False
) -> VARPlan:
    """Two blocks, two heads of eight channels."""
    return VARPlan(scales, classes + 1, 16, 2, 2, 24, 12, 4, shared)


def tiny_decoder(levels: int = 2) -> DecoderPlan:
    """One block a level; an image is 2^(levels - 1) times its finest map of codes."""
    return DecoderPlan(4, 12, (32,) * (levels - 1) + (64,), 1)


def transformer_state(plan: VARPlan, seed: int = 0) -> dict[str, Tensor]:
    """As class VAR saves it, no weight at zero but those of the keys' bias."""
    generator = torch.Generator().manual_seed(seed)
    width = plan.width

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        return {f"{name}.weight": drawn(outputs, inputs), f"{name}.bias": drawn(outputs)}

    counts = torch.tensor([side**2 for side in plan.scales])
    levels = torch.repeat_interleave(torch.arange(len(plan.scales)), counts)[None]
    later = levels[:, :, None] < levels[:, None]
    state = {
        "lvl_1L": levels,
        "attn_bias_for_masking": torch.where(later, -torch.inf, 0.0)[None],
        "class_emb.weight": drawn(plan.classes, width),
        "pos_start": drawn(1, plan.scales[0] ** 2, width),
        "pos_1LC": drawn(1, plan.tokens, width),
        "lvl_embed.weight": drawn(len(plan.scales), width),
        **linear("word_embed", plan.code_width, width),
        **linear("head_nm.ada_lin.1", width, 2 * width),
        **linear("head", width, plan.codes),
    }
    if plan.shared:
        state |= linear("shared_ada_lin.1", width, 6 * width)
    for i in range(plan.depth):
        block = f"blocks.{i}"
        state |= {
            f"{block}.attn.scale_mul_1H11": drawn(1, plan.heads, 1, 1) + 1,
            f"{block}.attn.mat_qkv.weight": drawn(3 * width, width),
            f"{block}.attn.q_bias": drawn(width),
            f"{block}.attn.zero_k_bias": torch.zeros(width),
            f"{block}.attn.v_bias": drawn(width),
            **linear(f"{block}.attn.proj", width, width),
            **linear(f"{block}.ffn.fc1", width, plan.hidden),
            **linear(f"{block}.ffn.fc2", plan.hidden, width),
        }
        if plan.shared:
            state[f"{block}.ada_gss"] = drawn(1, 1, 6, width)
        else:
            state |= linear(f"{block}.ada_lin.1", width, 6 * width)
    return state


def autoencoder_state(plan: DecoderPlan, seed: int = 0) -> dict[str, Tensor]:
    """As class VQVAE saves it; of the encoding half a few tensors."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(name: str, inputs: int, outputs: int, side: int = 3) -> None:
        state[f"{name}.weight"] = (
            torch.randn(outputs, inputs, side, side, generator=generator) * 0.1
        )
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) * 0.1
        state[f"{name}.bias"] = torch.randn(width, generator=generator) * 0.1

    def residual(name: str, inputs: int, width: int) -> None:
        norm(f"{name}.norm1", inputs)
        add(f"{name}.conv1", inputs, width)
        norm(f"{name}.norm2", width)
        add(f"{name}.conv2", width, width)
        if inputs != width:
            add(f"{name}.nin_shortcut", inputs, width, 1)

    def attention(name: str, width: int) -> None:
        norm(f"{name}.norm", width)
        add(f"{name}.qkv", width, 3 * width, 1)
        add(f"{name}.proj_out", width, width, 1)

    code, width = plan.code_width, plan.widths[-1]
    state["quantize.embedding.weight"] = torch.randn(plan.codes, code, generator=generator)
    state["quantize.ema_vocab_hit_SV"] = torch.zeros(3, plan.codes)
    for i in range(plan.mixers):
        add(f"quantize.quant_resi.qresi_ls.{i}", code, code)
    for name in ("quant_conv", "post_quant_conv"):
        add(name, code, code)
    add("encoder.conv_in", 3, 32)
    add("decoder.conv_in", code, width)
    residual("decoder.mid.block_1", width, width)
    attention("decoder.mid.attn_1", width)
    residual("decoder.mid.block_2", width, width)
    for level in reversed(range(len(plan.widths))):
        for i in range(plan.blocks):
            residual(f"decoder.up.{level}.block.{i}", width, plan.widths[level])
            width = plan.widths[level]
            if level == len(plan.widths) - 1:
                attention(f"decoder.up.{level}.attn.{i}", width)
        if level:
            add(f"decoder.up.{level}.upsample.conv", width, width)
    norm("decoder.norm_out", width)
    add("decoder.conv_out", width, 3)
    return state


def save_var(file: Path, plan: VARPlan | None = None, levels: int = 2) -> Path:
    """The transformer's file, the autoencoder's beside it."""
    torch.save(transformer_state(plan or tiny_plan()), file)
    torch.save(autoencoder_state(tiny_decoder(levels)), file.parent / "vae_ch160v4096z32.pth")
    return file
