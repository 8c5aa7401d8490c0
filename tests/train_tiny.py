"""Train two tiny stages to the end, or on from where a killed run stopped: python FILE FOLDER.

Prints a line after each optimiser step. What is random in training is on: caption dropout, flips,
augmentation, network dropout, accumulation; the second stage learns its variance.
"""

import sys
from pathlib import Path

import torch

from generation.families.pixel_unet.network import PixelUNet
from generation.training.config import TrainingConfig
from generation.training.loop import TrainingSet, train_stage
from tests.tiny_network import PROMPTS, tiny_network

BASE = TrainingConfig(
    steps=9, batch=8, accumulation=2, optimizer="adafactor", warmup=2, flip=True, save_every=2
)
UPSCALER = TrainingConfig(steps=6, batch=6, optimizer="adam", warmup=2, save_every=2)
STEPS = BASE.steps + UPSCALER.steps


def tiny_data(network: PixelUNet, count: int = 32) -> TrainingSet:
    generator = torch.Generator().manual_seed(5)

    def images(side: int) -> torch.Tensor:
        shape = (count, network.config.channels, side, side)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    config = network.config
    parents = None if config.low_resolution is None else images(config.low_resolution)
    prompts = torch.arange(count) % 2
    return TrainingSet(
        images(config.resolution), parents, prompts, len(PROMPTS) - 1, config.prediction
    )


def main(folder: Path) -> None:
    stages = {
        "base": (tiny_network(dropout=0.2), BASE),
        "upscaler": (tiny_network(low_resolution=4, variance="learned"), UPSCALER),
    }
    for name, (network, config) in stages.items():
        train_stage(
            network,
            tiny_data(network),
            config,
            folder / name,
            on_progress=lambda steps: print("step\n" * (steps == 1), end="", flush=True),
            on_save=lambda *_: None,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
