"""Train a tiny stage as one of several processes, and keep its weights:

python -m tests.models.train_together FOLDER
."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from generation.diffusion.schedule import ScheduleConfig
from generation.families.pixel_unet.network import PixelUNet, StageConfig, build_unet
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.prompts.conditioning import embed_conditions
from generation.training.loop.learner import LoopSettings
from generation.training.loop.loop import train
from generation.training.loop.optimizers import OptimizerSettings
from generation.training.processes import end_together
from tests.models.tiny_network import SHAPE, tiny_network
from tests.models.train_tiny import tiny_data, train_stage
from tests.toy_gan import Points, ToyGan


class NoStates:
    def read(self) -> None:
        return None

    def due(self, *_: int) -> bool:
        return False


def train_gan(path: Path) -> None:
    """Two modules, each shared by all processes in its own update."""
    processes = PartialState(cpu=True)
    settings = LoopSettings(
        device=processes.device,
        steps=3,
        parts=2,
        optimizer=OptimizerSettings("adam", 0.01),
        rate=lambda _: 0.01,
    )
    gan = ToyGan()
    train(gan, Points(processes.process_index), settings, NoStates(), processes)
    save_file(
        {f"{n}.{k}": v for n, m in gan.modules.items() for k, v in m.state_dict().items()}, path
    )


def without_attention() -> PixelUNet:
    """Told a class; its tokens, which only cross-attention sees, are of no use."""
    prompts, encoder = embed_conditions("class", ["a", "b"])
    config = StageConfig(
        **{"resolution": 8, "conditioning": "class", "text_encoder": encoder},
        prompts=prompts.prompts,
        schedule=ScheduleConfig(num_steps=100),
    )
    kinds = {f"{way}_block_types": (f"{way.title()}Block2D",) * 2 for way in ("down", "up")}
    torch.manual_seed(0)
    return build_unet(config, prompts, SHAPE | kinds | {"mid_block_type": "UNetMidBlock2D"})


def main(folder: Path) -> None:
    processes = PartialState(cpu=True)
    rank = processes.process_index
    network, config = tiny_network(), PixelUNetTraining(steps=2, batch=8, warmup=0)
    train_stage(network, tiny_data(network), config, folder, lambda _: None, lambda *_: None)
    plain = without_attention()
    train_stage(plain, tiny_data(plain), config, folder / "plain", lambda _: None, lambda *_: None)
    train_gan(folder / f"gan{rank}.safetensors")
    weights = {name: weight.contiguous() for name, weight in network.named_parameters()}
    save_file(weights, folder / f"rank{rank}.safetensors")
    end_together(processes)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
