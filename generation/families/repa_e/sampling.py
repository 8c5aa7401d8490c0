"""Sampling REPA-E: SiT's network, its time counted from the data; all channels are guided."""

from pathlib import Path
from typing import Any

from generation.families.diffusion_transformer.sampling import published_tensors
from generation.families.repa_e.converter import EndToEnd, convert_repa_e
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import Autoencoder, decoded_by
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.compvis_autoencoder import convert_kl
from generation.pretrained.published_flow import (
    FlowGenerator,
    PublishedFlow,
    from_data,
    normalised_channels,
)
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

OWN = "vae"  # as which a file keeps the autoencoder that learned with the network


def repa_e(file: Path, files: AutoencoderFiles, placement: Placement) -> FlowGenerator:
    """The checkpoint in `file`, its latents decoded in float32."""
    found = convert_repa_e(published_tensors(file), str(file))
    channels = found.network.plan.channels
    if files.channels != channels:
        raise UserError(
            f"{file} makes latents of {channels} channels, autoencoder {files.name} of "
            f"{files.channels}: give the one that it was trained with"
        )
    return _generator(file, found, Autoencoder(files, placement.device).network, placement)


def repa_e_end_to_end(file: Path, placement: Placement) -> FlowGenerator:
    """The same, its autoencoder from the same file, in Rombach et al.'s layout."""
    found = convert_repa_e(published_tensors(file), str(file))
    autoencoder = convert_kl(read_tensors(file, OWN), f"{file}, autoencoder")
    return _generator(file, found, autoencoder.to(placement.device), placement)


def _generator(
    file: Path, found: EndToEnd, autoencoder: Any, placement: Placement
) -> FlowGenerator:
    plan, device = found.network.plan, placement.device
    flow = PublishedFlow(
        network=from_data(placement.place(found.network)),
        shape=(plan.channels, plan.side, plan.side),
        classes=plan.classes - 1,
        decoded=normalised_channels(
            lambda z: decoded_by(autoencoder, z), found.mean.to(device), found.deviation.to(device)
        ),
    )
    return FlowGenerator(file, flow, placement)
