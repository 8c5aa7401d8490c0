"""A latent diffusion checkpoint (Rombach et al. 2022): three networks and a schedule in one file.

The U-Net under `model.diffusion_model` (and once more under `model_ema`, averaged, if its training
kept an average), the class embedding under `cond_stage_model`, the VQ autoencoder under
`first_stage_model`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.converter import convert_unet
from generation.families.adm.shapes import Heads
from generation.pretrained.compvis_autoencoder import (
    GROUPS,
    Module,
    autoencoder_modules,
    counted_in,
    load_modules,
)
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
        levels, blocks = counted_in(state)
        attends = "decoder.mid.attn_1.q.weight" in state
        vae = _empty_autoencoder(state, levels, blocks, attends, scaling_factor)
    except KeyError as error:
        raise UserError(f"{name} holds no VQ autoencoder: no {error} there") from None
    modules = autoencoder_modules(levels, blocks, attends)
    codes: Module = ("quantize.embedding", "quantize.embedding", "plain")
    return load_modules(vae, [codes, *modules], state, name)


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


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
