"""VQ-VAE-2 as generators name it: generation/generator.py. To import it is to import no torch."""

from pathlib import Path

from generation.families.vq_vae_2.checkpoint_files import (
    HASHED_FILES,
    is_ours,
    prior_folder,
    read_autoencoder,
    read_priors,
)
from generation.generator import Generator
from generation.networks.image_sizes import from_nothing, one_size
from generation.pretrained.source_files import files_sha256


def locate(checkpoint: str) -> Path:
    """The checkpoint's folder; UserError if it is none of the priors."""
    return prior_folder(checkpoint)


def sha256(folder: Path) -> str:
    """One hash over the files that decide the pixels."""
    return files_sha256(folder, HASHED_FILES)


def trained_resolution(folder: Path) -> int | None:
    """The side of its images in px; None for a folder that holds no such checkpoint."""
    return read_autoencoder(prior_folder(str(folder))).resolution if is_ours(folder) else None


def known_prompts(folder: Path) -> tuple[str, ...]:
    """Those of the classes that the priors learned."""
    return read_priors(folder).classes


def methods() -> tuple[str, ...]:
    """The sampler methods that it takes."""
    return ("native",)


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps it from making `resolution` px images from `parent` px ones."""
    own = None if folder is None else one_size(read_autoencoder(folder).resolution, resolution)
    return own or from_nothing(parent)


def load(folder: Path, compiled: bool) -> Generator:
    """On the GPU if there is one, else on the CPU; float32 on both."""
    from dataclasses import replace

    import torch

    from generation.families.vq_vae_2.checkpoint import load_networks
    from generation.families.vq_vae_2.sampling import CodeGenerator
    from generation.networks.placement import best_placement

    networks, placement = load_networks(folder), best_placement(compiled=False)
    for name in ("top", "bottom") if compiled else ():
        networks.priors[name].compile()
    autoencoder = placement.place(networks.autoencoder, torch.float32)
    priors = placement.place(networks.priors, torch.float32)
    return CodeGenerator(replace(networks, autoencoder=autoencoder, priors=priors))
