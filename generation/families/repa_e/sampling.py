"""Sampling REPA-E: SiT's network, its time counted from the data; all channels are guided."""

from pathlib import Path

from generation.families.diffusion_transformer.sampling import published_tensors
from generation.families.repa_e.converter import convert_repa_e
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import Autoencoder, decoded_by
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.published_flow import (
    FlowGenerator,
    PublishedFlow,
    from_data,
    normalised_channels,
)
from release.errors import UserError


def repa_e(file: Path, files: AutoencoderFiles, placement: Placement) -> FlowGenerator:
    """The checkpoint in `file`, its latents decoded in float32."""
    found = convert_repa_e(published_tensors(file), str(file))
    plan, device = found.network.plan, placement.device
    if files.channels != plan.channels:
        raise UserError(
            f"{file} makes latents of {plan.channels} channels, autoencoder {files.name} of "
            f"{files.channels}: give the one that it was trained with"
        )
    network = Autoencoder(files, device).network
    flow = PublishedFlow(
        network=from_data(placement.place(found.network)),
        shape=(plan.channels, plan.side, plan.side),
        classes=plan.classes - 1,
        decoded=normalised_channels(
            lambda z: decoded_by(network, z), found.mean.to(device), found.deviation.to(device)
        ),
    )
    return FlowGenerator(file, flow, placement)
