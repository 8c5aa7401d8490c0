"""A latent diffusion checkpoint (Rombach et al. 2022): three networks and a schedule in one file.

The U-Net under `model.diffusion_model` (and once more under `model_ema`, averaged, if its training
kept an average), the class embedding under `cond_stage_model`, the VQ autoencoder under
`first_stage_model`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.converter import convert_unet
from generation.families.adm.shapes import Heads
from generation.pretrained.loading import load_exactly
from release.errors import UserError

UNET = "model.diffusion_model."
AVERAGE = "model_ema."
AVERAGE_STATE = ("decay", "num_updates")
AUTOENCODER = "first_stage_model."
CLASSES = "cond_stage_model.embedding.weight"
# Tables that follow from the betas; the checkpoint stores them beside the weights.
TABLES = (
    "alphas_cumprod_prev",
    "betas",
    "log_one_minus_alphas_cumprod",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "posterior_variance",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
)
SIGNAL = "alphas_cumprod"
SCALE = "scale_factor"
GROUPS = 32

Kind = Literal["plain", "resnet", "attention"]
PARTS: dict[Kind, dict[str, str]] = {  # diffusers' name => the checkpoint's
    "plain": {"": ""},
    "resnet": {
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "conv_shortcut": "nin_shortcut",
    },
    "attention": {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    },
}


@dataclass(frozen=True)
class LatentDiffusionNetworks:
    """unet: UNet2DConditionModel; classes float32[C + 1, D], the null class last; autoencoder:
    VQModel, its scaling_factor what latents were multiplied by.
    """

    unet: Any
    classes: Tensor
    autoencoder: Any


def convert_latent_diffusion(
    state: Mapping[str, Tensor], heads: Heads, schedule: NoiseSchedule, name: str
) -> LatentDiffusionNetworks:
    """The networks in float32; UserError names a key that is missing or odd, or another schedule.

    The averaged U-Net is taken where there is one.
    """
    known = {CLASSES, SIGNAL, SCALE, *TABLES}
    prefixes = (UNET, AVERAGE, AUTOENCODER)
    odd = sorted(k for k in state if k not in known and not k.startswith(prefixes))
    if odd:
        raise UserError(f"{name} does not fit its generator: it has {odd[0]}, which is not known")
    if CLASSES not in state:
        raise UserError(f"{name} is not class-conditional latent diffusion: it lacks {CLASSES}")
    if SIGNAL in state:
        table = torch.from_numpy(schedule.alphas_cumprod).to(state[SIGNAL])
        if table.shape != state[SIGNAL].shape or not torch.allclose(table, state[SIGNAL], 1e-3):
            raise UserError(f"{name} was trained with another noise schedule than its generator's")
    return LatentDiffusionNetworks(
        unet=convert_unet(unet_state(state, name), heads, name),
        classes=state[CLASSES].float(),
        autoencoder=convert_autoencoder(
            _under(AUTOENCODER, state), float(state.get(SCALE, torch.ones(()))), name
        ),
    )


def unet_state(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The U-Net's tensors by the checkpoint's keys, averaged ones where the file has them."""
    last, averaged = _under(UNET, state), _under(AVERAGE, state)
    if not averaged:
        return last
    # the average is stored under names without their dots
    names = {key: f"diffusion_model.{key}".replace(".", "") for key in last}
    missing = [key for key, flat in names.items() if flat not in averaged]
    surplus = sorted(set(averaged) - set(names.values()) - set(AVERAGE_STATE))
    if missing or surplus:
        what = f"lacks {missing[0]}" if missing else f"has {surplus[0]}, which is not known"
        raise UserError(f"{name} does not fit its generator: its average {what}")
    return {key: averaged[flat] for key, flat in names.items()}


def convert_autoencoder(state: Mapping[str, Tensor], scaling_factor: float, name: str) -> Any:
    """VQModel in float32 from the autoencoder's state dict; UserError names a missing or odd key.

    Attention in the middle is there if the file has it; the published 256 px model does.
    """
    try:
        levels = next(i for i in count() if f"decoder.up.{i}.block.0.conv1.weight" not in state)
        blocks = next(j for j in count() if f"encoder.down.0.block.{j}.conv1.weight" not in state)
        attends = "decoder.mid.attn_1.q.weight" in state
        vae = _empty_autoencoder(state, levels, blocks, attends, scaling_factor)
    except KeyError as error:
        raise UserError(f"{name} holds no VQ autoencoder: no {error} there") from None
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs, kind in autoencoder_modules(levels, blocks, attends):
        for mine, its in PARTS[kind].items():
            for leaf in ("weight", "bias"):
                key = ".".join(filter(None, (theirs, its, leaf)))
                if key in state:
                    used.add(key)
                    pointwise = kind == "attention" and its != "norm" and leaf == "weight"
                    value = state[key].flatten(1) if pointwise else state[key]
                    found[".".join(filter(None, (ours, mine, leaf)))] = value
    return load_exactly(vae, found, set(state) - used, name)


def _empty_autoencoder(
    state: Mapping[str, Tensor], levels: int, blocks: int, attends: bool, scaling_factor: float
) -> Any:
    from diffusers import VQModel

    codes, code_width = state["quantize.embedding.weight"].shape
    widths = [state[f"decoder.up.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    with torch.device("meta"):
        return VQModel(
            in_channels=state["encoder.conv_in.weight"].shape[1],
            out_channels=state["decoder.conv_out.weight"].shape[0],
            block_out_channels=tuple(widths),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=blocks,
            latent_channels=state["decoder.conv_in.weight"].shape[1],
            num_vq_embeddings=codes,
            vq_embed_dim=code_width,
            norm_num_groups=GROUPS,
            mid_block_add_attention=attends,
            scaling_factor=scaling_factor,
        )


def autoencoder_modules(levels: int, blocks: int, attends: bool) -> Iterator[tuple[str, str, Kind]]:
    """(diffusers' name, the checkpoint's name, kind) of every module with weights."""
    for name in ("quantize.embedding", "quant_conv", "post_quant_conv"):
        yield name, name, "plain"
    for side in ("encoder", "decoder"):
        yield f"{side}.conv_in", f"{side}.conv_in", "plain"
        yield f"{side}.conv_norm_out", f"{side}.norm_out", "plain"
        yield f"{side}.conv_out", f"{side}.conv_out", "plain"
        for j in range(2):
            yield f"{side}.mid_block.resnets.{j}", f"{side}.mid.block_{j + 1}", "resnet"
        if attends:
            yield f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", "attention"
    for i in range(levels):  # the checkpoint counts both ways from the finest level
        ours, theirs = f"encoder.down_blocks.{i}", f"encoder.down.{i}"
        for j in range(blocks):
            yield f"{ours}.resnets.{j}", f"{theirs}.block.{j}", "resnet"
        if i < levels - 1:
            yield f"{ours}.downsamplers.0.conv", f"{theirs}.downsample.conv", "plain"
        ours, theirs = f"decoder.up_blocks.{levels - 1 - i}", f"decoder.up.{i}"
        for j in range(blocks + 1):
            yield f"{ours}.resnets.{j}", f"{theirs}.block.{j}", "resnet"
        if i > 0:
            yield f"{ours}.upsamplers.0.conv", f"{theirs}.upsample.conv", "plain"


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
