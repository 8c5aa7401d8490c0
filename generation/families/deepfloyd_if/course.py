"""A training of a stage of DeepFloyd IF: objective and data, checkpoints and sample grids."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.deepfloyd_if.network import IFNetwork
from generation.families.deepfloyd_if.objective import NETWORK, IFObjective, StageSchedules
from generation.families.deepfloyd_if.pipeline import enlarge, guided_denoiser
from generation.generator import Screened
from generation.pretrained.components import to_uint8
from generation.pretrained.diffusers_weights import save_weights
from generation.pretrained.finetuned import FineTuned
from generation.training.images import ImageBatches, to_signal
from generation.training.learner import Learner
from release.files.commit import write_atomically

PER_PROMPT = 4  # samples in each row of a grid
MOST_PROMPTS = 8  # rows of a grid
SAMPLER = SamplerConfig(method="dpm-solver++", steps=12)


@dataclass(frozen=True)
class IFCourse:
    """A stage's training. files: what its checkpoints have of their start, by name."""

    objective: IFObjective
    data: ImageBatches
    schedules: StageSchedules
    about: FineTuned
    files: Mapping[str, bytes]

    def save(self, learner: Learner[Any], folder: Path) -> None:
        """The averaged U-Net as float16, as DeepFloyd publishes it, and what it came from.

        UserError, before anything is written, for weights that are not finite as float16.
        """
        save_weights(_trained(learner).unet, folder / "unet", torch.float16)
        for name, content in self.files.items():
            write_atomically(folder / name, content)
        self.about.write(folder)

    def samples(self, learner: Learner[Any]) -> np.ndarray:
        """A row a prompt, of the first MOST_PROMPTS: PER_PROMPT samples of a first stage; of a
        second one the parent of the prompt's first training image, enlarged, and what comes of it.
        """
        network = _trained(learner)
        count = min(network.prompts.null, MOST_PROMPTS)
        was_training = network.training
        network.eval()
        rows = [self._row(network, prompt) for prompt in range(count)]
        network.train(was_training)
        return np.vstack(rows)

    @torch.no_grad()
    def _row(self, network: IFNetwork, prompt: int) -> np.ndarray:
        """uint8[H,W',3]."""
        parent = self._parent(prompt)
        weight, count = next(network.parameters()), PER_PROMPT if parent is None else 1
        seeds = range(prompt * PER_PROMPT, prompt * PER_PROMPT + count)
        numbers = torch.full((count,), prompt, device=weight.device)
        text = network.prompts.rows(numbers).to(weight.dtype)
        seen = None if parent is None else parent.to(weight.device)
        denoise = guided_denoiser(network.unet, text, 1.0, seen, 0)
        side, schedules = self.about.resolution, self.schedules
        with ahead_of_need(image_noise(seeds, (3, side, side))) as noise:
            x0 = sample(
                denoise,
                schedules.images,
                schedules.prediction,
                SAMPLER,
                lambda: torch.from_numpy(noise()).to(weight.device),
            )
        made = to_uint8(x0 if seen is None else torch.cat([seen, x0]))
        return np.hstack(list(made.images if isinstance(made, Screened) else made))

    def _parent(self, prompt: int) -> Tensor | None:
        """float32[1,3,H,W]: that of the prompt's first image, enlarged and clean."""
        images = self.data.data
        if images.parents is None:
            return None
        first = int(torch.argmax((images.conditions == prompt).int()))
        return enlarge(to_signal(images.parents[first : first + 1]), self.about.resolution)


def _trained(learner: Learner[Any]) -> IFNetwork:
    network = learner.trained[NETWORK]
    assert isinstance(network, IFNetwork)
    return network
