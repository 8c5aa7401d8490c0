"""Train two tiny stages to the end, or on from where a killed run stopped.

What is random in training is on: caption dropout, flips, augmentation, network dropout,
accumulation; the second stage learns its variance.
"""

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch

from generation.families.pixel_unet.course import PixelUNetCourse, network_course
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.objective import NETWORK
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.data.images import TrainingImages
from generation.training.loop.learner import Learner
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.processes import launched_processes
from generation.training.run import train_course
from tests.models.tiny_network import tiny_network

BASE = PixelUNetTraining(
    steps=9, batch=8, accumulation=2, optimizer="adafactor", warmup=2, flip=True, save_every=2
)
UPSCALER = PixelUNetTraining(steps=6, batch=6, optimizer="adam", warmup=2, save_every=2)
STEPS = BASE.steps + UPSCALER.steps


def tiny_data(network: PixelUNet, count: int = 32) -> TrainingImages:
    generator = torch.Generator().manual_seed(5)

    def images(side: int) -> torch.Tensor:
        shape = (count, network.config.channels, side, side)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    config = network.config
    parents = None if config.low_resolution is None else images(config.low_resolution)
    prompts = torch.arange(count) % 2
    return TrainingImages(images(config.resolution), parents, prompts)


def tiny_course(
    network: PixelUNet, data: TrainingImages, config: PixelUNetTraining
) -> PixelUNetCourse:
    return network_course(network, config, data, launched_processes())


def train_stage(
    network: PixelUNet,
    data: TrainingImages,
    config: PixelUNetTraining,
    folder: Path,
    on_progress: Callable[[int], None],
    on_save: Callable[[PixelUNet, list[float]], None],
    keep: Callable[[PixelUNet, int], None] = lambda _, __: None,
    key: str = "",
) -> tuple[PixelUNet, list[float]]:
    """The averaged network and the losses of a training whose states are in `folder`."""

    def averaged(learner: Learner[Any]) -> PixelUNet:
        return cast(PixelUNet, learner.trained[NETWORK])

    hooks = Hooks(
        on_progress,
        lambda learner: keep(averaged(learner), learner.done),
        lambda learner: on_save(averaged(learner), learner.losses["loss"]),
    )
    states = TrainingStates(folder, key, config.save_every)
    course = tiny_course(network, data, config)
    learner = train_course(course, config, states, launched_processes(), hooks)
    return averaged(learner), learner.losses["loss"]


def train_stages(folder: Path, said: Connection) -> None:
    """`said` gets 1 after each optimiser step."""
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
            on_progress=lambda steps: said.send(steps) if steps == 1 else None,
            on_save=lambda *_: None,
        )
