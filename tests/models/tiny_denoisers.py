"""Tiny networks of every family of denoisers: the tables of their recipes, and saved untrained."""

from pathlib import Path
from typing import Any

import torch

from generation.denoisers.checkpoint import save_checkpoint
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserRecipe, config_of
from generation.families import trainable

STAGE: dict[str, Any] = {"resolution": 16, "channels": 3}
UNET = {
    "kind": "unet",
    "base_channels": 8,
    "embedding": 12,
    "multipliers": [1, 2],
    "blocks": [1, 2],
    "attention": [4],
    "heads": 2,
    "dropout": 0.2,
    "dropout_side": 4,
    "wavelet": 1,
}
UVIT = {
    "kind": "uvit",
    "base_channels": 8,
    "embedding": 12,
    "multipliers": [1, 2, 3],
    "blocks": [2, 1],
    "transformer_blocks": 2,
    "heads": 2,
    "dropout": 0.2,
}
RIN = {
    "patch": 4,
    "interface_width": 8,
    "latents": 6,
    "latent_width": 16,
    "blocks": [1, 2],
    "heads": 4,
    "routing_heads": 2,
}
# by name: the generator, its [stage], [network] and [training]
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "unet": (
        "simple-diffusion",
        {"schedule": {"name": "shifted-cosine", "resolution": 16, "num_steps": 100}},
        UNET,
        {"multiscale": 4},
    ),
    "uvit": (
        "simple-diffusion",
        {"schedule": {"name": "shifted-cosine", "resolution": 16, "num_steps": 100}},
        UVIT,
        {"error": "v"},
    ),
    "rin": (
        "rin",
        {
            "prediction": "epsilon",
            "schedule": {"name": "linear-signal", "input_scale": 0.5, "num_steps": 100},
        },
        RIN,
        {"optimizer": "lamb"},
    ),
}
SR3 = {"base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8], "dropout": 0.2}
SR3_STAGE = {"prediction": "epsilon", "schedule": {"name": "linear", "num_steps": 100}}
KINDS |= {
    "sr3": ("sr3", SR3_STAGE | {"low_resolution": 8}, SR3, {}),
    "sr3-base": ("sr3", SR3_STAGE, SR3, {}),
}
LDM = {
    **{"base_channels": 32, "multipliers": [1, 1], "blocks": 1, "attention": [8]},
    **{"heads": 2, "context": 8},
}
KINDS |= {"ldm": ("ldm", {"schedule": {"name": "scaled-linear", "num_steps": 100}}, LDM, {})}
ADM = {
    **{"base_channels": 32, "multipliers": [1, 1], "blocks": 1, "attention": [8]},
    **{"head_width": 16, "dropout": 0.2},
}
COSINE = {"schedule": {"name": "cosine", "num_steps": 100}}
NOISY_PARENTS = {"low_resolution": 8, "augmentation": "noise", "max_augmentation": 0.5}
KINDS |= {
    "adm": ("adm", COSINE, ADM, {"class_dropout": 0.1}),
    "cdm": ("cdm", COSINE | NOISY_PARENTS, ADM, {}),
}
PROMPTS = ("apple", "pear", "plum")


def tiny_recipe(kind: str, classes: str = "fashion-mnist", **changes: dict[str, Any]) -> Any:
    """The recipe of a kind; changes: of its tables, by their names."""
    generator, stage, network, training = KINDS[kind]
    tables = {
        "stage": STAGE | stage,
        "network": network,
        "training": {"steps": 4, "batch": 8, "warmup": 1, "save_every": 2} | training,
    }
    for table, change in changes.items():
        tables[table] = tables[table] | change
    found: type[DenoiserRecipe] = trainable(generator).RECIPE
    return found.model_validate(
        {"name": "tiny", "description": kind, "classes": classes, "generator": generator, **tables}
    )


def tiny_denoiser(
    kind: str, prompts: tuple[str, ...] = PROMPTS, **changes: dict[str, Any]
) -> Denoiser:
    """Untrained, and with no weight left at zero."""
    recipe = tiny_recipe(kind, **changes)
    torch.manual_seed(0)
    network = trainable(recipe.generator).family.network(config_of(recipe, prompts, 3))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval().requires_grad_(False)


def save_denoiser(
    folder: Path, kind: str, prompts: tuple[str, ...] = PROMPTS, **changes: dict[str, Any]
) -> Path:
    """A checkpoint of it."""
    generator = KINDS[kind][0]
    save_checkpoint(trainable(generator).family, tiny_denoiser(kind, prompts, **changes), folder)
    return folder
