"""Train a tiny stage as one of several processes, and keep its weights:

python -m tests.train_together FOLDER
."""

import sys
from pathlib import Path

from accelerate import PartialState
from safetensors.torch import save_file

from generation.families.pixel_unet.recipe import PixelUNetTraining
from tests.tiny_network import tiny_network
from tests.train_tiny import tiny_data, train_stage


def main(folder: Path) -> None:
    rank = PartialState(cpu=True).process_index
    network, config = tiny_network(), PixelUNetTraining(steps=2, batch=8, warmup=0)
    train_stage(network, tiny_data(network), config, folder, lambda _: None, lambda *_: None)
    weights = {name: weight.contiguous() for name, weight in network.named_parameters()}
    save_file(weights, folder / f"rank{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
