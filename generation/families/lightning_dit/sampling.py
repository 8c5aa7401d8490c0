"""Sampling LightningDiT. As in its authors' code three of its 32 channels are guided, which is why
its published guidance is high."""

from pathlib import Path

from generation.families.lightning_dit.autoencoder import VaVaeFiles, load_va_vae
from generation.families.lightning_dit.converter import convert
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import decoded_by
from generation.pretrained.published_flow import FlowGenerator, PublishedFlow, normalised_channels
from generation.pretrained.source_files import read_tensors

AVERAGE = "ema"  # the averaged network of a training's file
GUIDED = 3  # channels


def lightning_dit(file: Path, files: VaVaeFiles, placement: Placement) -> FlowGenerator:
    """The checkpoint in `file`, its latents decoded in float32."""
    network = convert(read_tensors(file, AVERAGE), str(file))
    plan = network.plan
    autoencoder, *statistics = load_va_vae(files)
    autoencoder.to(placement.device)
    mean, deviation = (one.to(placement.device) for one in statistics)
    flow = PublishedFlow(
        network=placement.place(network),
        shape=(plan.channels, plan.side, plan.side),
        classes=plan.classes - 1,
        decoded=normalised_channels(lambda z: decoded_by(autoencoder, z), mean, deviation),
        guided=(GUIDED, plan.channels),
    )
    return FlowGenerator(file, flow, placement)
