"""Tiny untrained networks of LightningDiT, REPA-E, JiT and RAE's DiT^DH in their authors' layouts,
with their autoencoders."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, AutoencoderRAE
from torch import Tensor, nn

from generation.families.jit import converter as jit_converter
from generation.families.jit.network import JiTNetwork, JiTPlan
from generation.families.lightning_dit import converter as lightning_converter
from generation.families.lightning_dit.autoencoder import STATISTICS, WEIGHTS
from generation.families.lightning_dit.network import LightningNetwork, LightningPlan
from generation.families.rae import converter as rae_converter
from generation.families.rae.generator import AUTOENCODER as RAE
from generation.families.rae.network import DiTDHNetwork, DiTDHPlan, PartPlan
from generation.families.repa_e.generator import AUTOENCODER as END_TO_END
from generation.pretrained.compvis_autoencoder import PARTS, autoencoder_modules
from tests.models.tiny_autoencoders import save_autoencoder
from tests.models.tiny_models import randomize
from tests.models.tiny_transformers import PLAN, repa_state

CHANNELS, DINO = 4, 64  # of latents: of autoencoders; of DINOv2's narrowest features here
Network = TypeVar("Network", bound=nn.Module)
JIT_DEPTH = 12  # the least whose class tokens' place is known


def ready(network: Network, scale: float = 0.3) -> Network:
    """No weight is zero."""
    torch.manual_seed(0)
    randomize(network, scale)
    return network.eval().requires_grad_(False)


def tiny_lightning(
    grid: int = 4, classes: int = 3, patch: int = 1, *, normalised: bool = False
) -> LightningNetwork:
    """Two blocks, two heads of eight channels."""
    plan = LightningPlan(grid, CHANNELS, classes + 1, patch, 16, 2, 2, normalised)
    return ready(LightningNetwork(plan))


def tiny_jit(grid: int = 4, classes: int = 3, patch: int = 2) -> JiTNetwork:
    """Two heads of eight channels, two class tokens."""
    plan = JiTPlan(grid, 3, classes + 1, patch, 6, 16, JIT_DEPTH, 2, tokens=2, joined=4)
    return ready(JiTNetwork(plan), 0.2)


def tiny_ditdh(side: int = 4, classes: int = 3, channels: int = CHANNELS) -> DiTDHNetwork:
    """Two blocks of 16 channels, a head of one block of 24."""
    parts = PartPlan(16, 2, 2), PartPlan(24, 1, 3)
    return ready(DiTDHNetwork(DiTDHPlan(side, channels, classes + 1, *parts, waves=5)))


def tiny_va_vae(levels: int = 2, width: int = 32, decodes: bool = True) -> AutoencoderKL:
    """Attention in the middle and on the coarsest level, as VA-VAE's; decodes: also where it
    decodes."""
    kinds, ups = ([""] * (levels - 1) + ["Attn" * there] for there in (True, decodes))
    network = AutoencoderKL(
        block_out_channels=(width,) * levels,
        down_block_types=tuple(f"{kind}DownEncoderBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpDecoderBlock2D" for kind in reversed(ups)),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=32,
    )
    return ready(network, 0.15)


def compvis_state(network: AutoencoderKL) -> dict[str, Tensor]:
    """Its tensors by the keys of Rombach et al.'s layout."""
    state, levels = network.state_dict(), len(network.config.block_out_channels)
    decodes = network.config.up_block_types[0].startswith("Attn")
    modules = autoencoder_modules(levels, network.config.layers_per_block, True, True, decodes)
    found: dict[str, Tensor] = {}
    for ours, theirs, kind in modules:
        for mine, its in PARTS[kind].items():
            for leaf in ("weight", "bias"):
                key = ".".join(filter(None, (ours, mine, leaf)))
                if key in state:
                    pointwise = kind == "attention" and its != "norm" and leaf == "weight"
                    value = state[key][:, :, None, None] if pointwise else state[key]
                    found[".".join(filter(None, (theirs, its, leaf)))] = value
    assert len(found) == len(state)
    return found


def save_lightning(file: Path, classes: int = 3, grid: int = 4, levels: int = 2) -> Path:
    """The file of a training; VA-VAE and its statistics beside it."""
    state = lightning_converter.authors_state(tiny_lightning(grid, classes))
    torch.save({"model": {}, "ema": state, "opt": {}, "config": "x.yaml"}, file)
    weights = compvis_state(tiny_va_vae(levels))
    extra = {"loss.logvar": torch.zeros(()), "linear_proj.weight": torch.zeros(2, 2, 1, 1)}
    torch.save({"state_dict": weights | extra, "epoch": 3}, file.parent / WEIGHTS)
    torch.manual_seed(1)
    statistics = {
        "mean": torch.randn(1, CHANNELS, 1, 1),
        "std": torch.rand(1, CHANNELS, 1, 1) + 0.5,
    }
    torch.save(statistics, file.parent / STATISTICS)
    return file


def repa_e_state(**changes: Any) -> dict[str, Tensor]:
    """REPA's layout and the batch norm of the latents; changes: of the plan."""
    channels = changes.get("channels", PLAN.channels)
    torch.manual_seed(2)
    return repa_state(**changes) | {
        "bn.running_mean": torch.randn(channels),
        "bn.running_var": torch.rand(channels) + 0.5,
        "bn.num_batches_tracked": torch.tensor(7),
    }


def save_repa_e(file: Path, classes: int = 3, side: int = 4, blocks: int = 2) -> Path:
    """The file of a training and the autoencoder beside it."""
    state = repa_e_state(side=side, classes=classes + 1, depth=1, patch=1)
    torch.save({"ema": state, "opt": {}, "steps": 4_000_000}, file)
    save_autoencoder(file.parent / END_TO_END.split("/")[1], blocks=blocks)
    return file


def save_repa_e_end_to_end(file: Path, classes: int = 3, side: int = 4, levels: int = 2) -> Path:
    """The file of a training that holds its autoencoder and that one's discriminator, too."""
    state = repa_e_state(side=side, classes=classes + 1, depth=1, patch=1)
    own = compvis_state(tiny_va_vae(levels))
    other = {"discriminator": {"main.0.bias": torch.zeros(3)}, "steps": 400_000}
    torch.save({"ema": state, "model": {}, "opt": {}, "vae": own, **other}, file)
    return file


def save_jit(file: Path, classes: int = 3, grid: int = 4, patch: int = 8) -> Path:
    """The file of a training."""
    state = jit_converter.authors_state(tiny_jit(grid, classes, patch))
    other = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    torch.save({"model": other, "model_ema1": state, "model_ema2": other, "epoch": 599}, file)
    return file


def save_rae(file: Path, classes: int = 3, side: int = 4, patch: int = 4) -> Path:
    """The file of a training and the autoencoder beside it; images of side x patch px."""
    state = rae_converter.authors_state(tiny_ditdh(side, classes, DINO))
    torch.save({"ema": state, "model": {}}, file)
    save_representation_autoencoder(file.parent / RAE.split("/")[1], side, patch)
    return file


def save_rae_guide(file: Path, classes: int = 3, side: int = 4) -> Path:
    """Another network of the same latents."""
    network = tiny_ditdh(side, classes, DINO)
    network.end.out.weight.data.mul_(0.5)
    torch.save({"ema": rae_converter.authors_state(network)}, file)
    return file


def save_representation_autoencoder(folder: Path, side: int, patch: int) -> None:
    """A decoder of one layer; an encoder of one, which makes side x side features."""
    torch.manual_seed(0)
    network = AutoencoderRAE(
        encoder_hidden_size=DINO,
        encoder_num_hidden_layers=1,
        encoder_patch_size=14,
        encoder_input_size=14 * side,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        patch_size=patch,
        latents_mean=torch.randn(DINO, side, side).tolist(),
        latents_std=(torch.rand(DINO, side, side) + 0.5).tolist(),
    )
    randomize(network, 0.1)
    network.save_pretrained(folder)
