"""Sampling DiT^DH on latents of a representation autoencoder, whose decoder gives pixels in
[0, 1]."""

from pathlib import Path

import torch
from diffusers import AutoencoderRAE

from generation.families.diffusion_transformer.sampling import published_tensors
from generation.families.rae.converter import convert
from generation.families.rae.network import DiTDHPlan
from generation.networks.guide_fit import guide_difference
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import decoded_by
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.components import load_component
from generation.pretrained.published_flow import FlowGenerator, PublishedFlow, from_data
from release.errors import UserError


def rae(
    file: Path, files: AutoencoderFiles, placement: Placement, guide: Path | None = None
) -> FlowGenerator:
    """The checkpoint in `file`, guided by the one in `guide`; UserError for an autoencoder or a
    guide of other latents."""
    network = convert(published_tensors(file), str(file))
    weaker = None if guide is None else convert(published_tensors(guide), str(guide))
    plan = network.plan
    if weaker is not None and (problem := guide_difference(_task(plan), _task(weaker.plan))):
        raise UserError(f"guide {guide} {problem}")
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
        guide=None if weaker is None else from_data(placement.place(weaker)),
    )
    return FlowGenerator(file, flow, placement)


def _task(plan: DiTDHPlan) -> dict[str, int]:
    """In which a guide must be as the network that it guides."""
    return {"latents of side": plan.side, "channels": plan.channels, "classes": plan.classes}
