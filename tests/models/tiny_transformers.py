"""Tiny networks of DiT and SiT: recipes on pixels and on latents, checkpoints of every layout."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from generation.denoisers.checkpoint import save_checkpoint
from generation.denoisers.recipe import config_of
from generation.families import trainable
from generation.families.diffusion_transformer.converter import authors_state
from generation.families.diffusion_transformer.network import TransformerDenoiser
from generation.networks.transformer import Transformer, TransformerPlan
from tests.models.tiny_autoencoders import save_autoencoder
from tests.models.tiny_models import randomize

PROMPTS = ("apple", "pear", "plum")
NETWORK = {"patch": 2, "width": 16, "depth": 2, "heads": 2}
PLAN = TransformerPlan(4, 4, 8, 4, patch=2, width=384, depth=2, heads=6)
FAMILIES = ("dit", "sit")


def tiny_recipe(family: str, classes: str = "fashion-mnist", **changes: Any) -> Any:
    """On 8 x 8 latents of four channels of 16 px images; changes: of its tables, by their names."""
    tables: dict[str, dict[str, Any]] = {
        "stage": {"resolution": 16, "latents": {"channels": 4, "side": 8}},
        "network": NETWORK,
        "training": {"steps": 4, "batch": 8, "warmup": 1, "save_every": 2, "ema": 0.5},
    }
    for table, change in changes.items():
        tables[table] = tables[table] | change
    return trainable(family).RECIPE.model_validate(
        {"name": "tiny", "description": family, "classes": classes, "generator": family, **tables}
    )


def tiny_denoiser(
    family: str, prompts: tuple[str, ...] = PROMPTS, **changes: Any
) -> TransformerDenoiser:
    """With no weight left at zero."""
    recipe = tiny_recipe(family, **changes)
    torch.manual_seed(0)
    network = trainable(family).family.network(config_of(recipe, prompts, 3))
    randomize(network, 0.2)
    return network.eval().requires_grad_(False)


def save_denoiser(folder: Path, family: str, prompts: tuple[str, ...] = PROMPTS) -> Path:
    """A checkpoint on latents, its autoencoder beside it."""
    from generation.pretrained.autoencoder_files import locate_autoencoder

    autoencoder = save_autoencoder(folder.parent / f"{folder.name}-vae")
    latents = {
        "channels": 4,
        "side": 8,
        "autoencoder": str(autoencoder),
        "sha256": locate_autoencoder(str(autoencoder)).sha256,
        "scaling_factor": 0.5,
        "shift_factor": 0.0,
    }
    network = tiny_denoiser(family, prompts, stage={"latents": latents})
    save_checkpoint(trainable(family).family, network, folder)
    return folder


@dataclass(frozen=True)
class Published:
    """A network in its authors' layout: its tensors by their keys."""

    network: Transformer
    state: dict[str, Tensor]


def published(plan: TransformerPlan = PLAN, **changes: Any) -> Published:
    """Of the narrowest published width."""
    torch.manual_seed(0)
    network = Transformer(replace(plan, **changes))
    randomize(network, 0.05)
    return Published(network.eval(), authors_state(network))


def repa_state(plan: TransformerPlan = PLAN, **changes: Any) -> dict[str, Tensor]:
    """A network in REPA's layout: it says as many channels as it sees, and has two projectors."""
    state = published(plan, out_channels=plan.channels, **changes).state
    for i, features in enumerate((12, 16)):
        widths = (plan.width, 8, 8, features)
        for j in range(3):
            state[f"projectors.{i}.{2 * j}.weight"] = torch.randn(widths[j + 1], widths[j])
            state[f"projectors.{i}.{2 * j}.bias"] = torch.randn(widths[j + 1])
    return state


def save_repa(file: Path, side: int = 4, classes: int = 3, blocks: int = 2) -> Path:
    """The file of a training, and the autoencoder beside it, as `save_published` has it."""
    state = repa_state(side=side, classes=classes + 1, depth=1)
    torch.save({"ema": state, "opt": {}, "steps": 4_000_000}, file)
    save_autoencoder(file.parent / "sd-vae-ft-ema", blocks=blocks)
    return file


def save_published(file: Path, side: int = 4, classes: int = 3, blocks: int = 2) -> Path:
    """The file, and the autoencoder beside it; a latent stands for 2^(blocks - 1) pixels a side."""
    torch.save(published(side=side, classes=classes + 1, depth=1).state, file)
    save_autoencoder(file.parent / "sd-vae-ft-ema", blocks=blocks)
    return file


def from_diffusers(network: DiTTransformer2DModel) -> dict[str, Tensor]:
    """Its weights by the keys of the authors' layout."""
    theirs = network.state_dict()
    first = "transformer_blocks.0.norm1.emb"
    names = {
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": f"{first}.timestep_embedder.linear_1",
        "t_embedder.mlp.2": f"{first}.timestep_embedder.linear_2",
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    found = {
        "pos_embed": network.pos_embed.pos_embed,
        "y_embedder.embedding_table.weight": theirs[
            f"{first}.class_embedder.embedding_table.weight"
        ],
    }
    for i in range(len(network.transformer_blocks)):
        block = f"transformer_blocks.{i}"
        names |= {
            f"blocks.{i}.attn.proj": f"{block}.attn1.to_out.0",
            f"blocks.{i}.mlp.fc1": f"{block}.ff.net.0.proj",
            f"blocks.{i}.mlp.fc2": f"{block}.ff.net.2",
            f"blocks.{i}.adaLN_modulation.1": f"{block}.norm1.linear",
        }
        for leaf in ("weight", "bias"):
            parts = [theirs[f"{block}.attn1.to_{part}.{leaf}"] for part in "qkv"]
            found[f"blocks.{i}.attn.qkv.{leaf}"] = torch.cat(parts)
    for ours, name in names.items():
        for leaf in ("weight", "bias"):
            found[f"{ours}.{leaf}"] = theirs[f"{name}.{leaf}"]
    return found
