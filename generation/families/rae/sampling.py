"""Sampling DiT^DH on latents of a representation autoencoder, whose decoder gives pixels in
[0, 1]."""

from pathlib import Path

import torch
from diffusers import AutoencoderRAE

from generation.denoisers.published_flow import FlowGenerator, PublishedFlow, from_data
from generation.families.diffusion_transformer.sampling import published_tensors
from generation.families.rae.converter import convert
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import decoded_by
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.components import load_component
from release.errors import UserError


def rae(file: Path, files: AutoencoderFiles, placement: Placement) -> FlowGenerator:
    """The checkpoint in `file`; UserError for an autoencoder of other latents."""
    network = convert(published_tensors(file), str(file))
    plan = network.plan
    shape = (plan.channels, plan.side, plan.side)
    autoencoder = load_component(AutoencoderRAE, files.folder, torch.float32)
    autoencoder.to(placement.device)
    made = (autoencoder.config.encoder_hidden_size, *2 * (round(autoencoder.num_patches**0.5),))
    if made != shape:
        raise UserError(f"{file} makes latents of {shape}, autoencoder {files.name} of {made}")
    flow = PublishedFlow(
        network=from_data(placement.place(network)),
        shape=shape,
        classes=plan.classes - 1,
        decoded=lambda z: 2 * decoded_by(autoencoder, z) - 1,
    )
    return FlowGenerator(file, flow, placement)
