"""What BigGAN-deep takes of arithmetic: the shapes of its public weights' config.json."""

import torch

from generation.families.biggan.network import BigGANConfig, Generator
from generation.networks.flops import Work, counted_flops

# doubles the side, input and output width in units of channel_width, from 4 x 4 on
LAYERS = {
    128: "-16:16 +16:16 -16:16 +16:8 -8:8 +8:4 -4:4 +4:2 -2:2 +2:1",
    256: "-16:16 +16:16 -16:16 +16:8 -8:8 +8:8 -8:8 +8:4 -4:4 +4:2 -2:2 +2:1",
    512: "-16:16 +16:16 -16:16 +16:8 -8:8 +8:8 -8:8 +8:4 -4:4 +4:2 -2:2 +2:1 -1:1 +1:1",
}


def published_shape(resolution: int) -> BigGANConfig:
    """Of the public weights of that side."""
    layers = [
        (text[0] == "+", *map(int, text[1:].split(":"))) for text in LAYERS[resolution].split()
    ]
    return BigGANConfig.model_validate(
        {
            "output_dim": resolution,
            "z_dim": 128,
            "channel_width": 128,
            "num_classes": 1000,
            "layers": layers,
            "attention_layer_position": 8,
            "eps": 1e-4,
            "n_stats": 51,
        }
    )


def published_work(resolution: int) -> Work:
    """In float32, as it is sampled."""
    shape = published_shape(resolution)
    with torch.device("meta"):
        network = Generator(shape)
        condition = torch.zeros(1, 2 * shape.z_dim)
        return Work(counted_flops(lambda: network(condition, 1.0)), precision="single")
