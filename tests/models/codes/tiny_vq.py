"""A tiny recipe of the autoencoder that is trained here."""

from typing import Any

from generation.families.vq_autoencoder.recipe import AutoencoderRecipe


def tiny_recipe(classes: str = "fashion-mnist", **changes: dict[str, Any]) -> AutoencoderRecipe:
    """Of 16 px images in colour, latents of 4 x 4; changes: of its tables, by their names."""
    tables: dict[str, dict[str, Any]] = {
        "stage": {"resolution": 16, "channels": 3},
        "network": {
            **{"base_channels": 32, "multipliers": [1, 1, 1], "blocks": 1},
            **{"latent_channels": 3, "codes": 16},
        },
        "training": {
            **{"steps": 4, "batch": 8, "warmup": 1, "save_every": 2, "adversarial": 0.5},
            **{"discriminator_channels": 8, "discriminator_layers": 2},
        },
    }
    for table, change in changes.items():
        tables[table] = tables[table] | change
    about = {"name": "tiny", "description": "vq", "classes": classes, "generator": "vq-autoencoder"}
    return AutoencoderRecipe.model_validate(about | tables)
