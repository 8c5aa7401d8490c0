"""LoRAs of tiny pipelines, and recipes that train them."""

from pathlib import Path

import torch

from generation.families import generator_source
from generation.families.diffusers.adapter import add_adapter, save_adapter
from generation.families.diffusers.kinds import KINDS
from generation.families.diffusers.recipe import LoraConfig
from generation.pretrained.diffusers_folder import pipeline_class
from generation.pretrained.finetuned import Base, FineTuned

RECIPE = """
name = "tiny"
description = "tiny"
classes = "{folder}/classes.csv"
generator = "diffusers"
start = "{start}"

[stage]
resolution = 16

[lora]
rank = 2
alpha = 4.0

[training]
steps = {steps}
batch = 4
optimizer = "adamw"
learning_rate = 0.01
schedule = "constant"
warmup = 0
clip = 1.0
ema = 0.9
caption_dropout = 0.3
save_every = 2
"""


def save_lora(folder: Path, base: Path, resolution: int = 16) -> Path:
    """As a training writes it, with random weights."""
    import diffusers

    kind = KINDS[pipeline_class(base)]
    network = getattr(diffusers, kind.network).from_pretrained(base / kind.component)
    torch.manual_seed(1)
    add_adapter(network, LoraConfig(rank=2), kind.targets)
    for name, weight in network.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.5)
    save_adapter(network, kind.component, folder)
    told = Base(checkpoint=str(base), sha256=generator_source("diffusers").sha256(base))
    about = FineTuned(generator="diffusers", resolution=resolution, precision="float32", base=told)
    about.write(folder)
    return folder
