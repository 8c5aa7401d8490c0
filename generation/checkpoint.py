"""A stage's checkpoint: a diffusers directory with what the stage adds to it.

config.json, diffusion_pytorch_model.safetensors   the U-Net, as diffusers saves it
stage.json                                         StageConfig
prompts.safetensors                                embeddings of the stage's prompts
training.json, loss.csv, loss.png                  how it was made; not part of the hash
"""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from generation.pixel_unet import PixelUNet, StageConfig
from generation.text import PromptEmbeddings


def save_checkpoint(network: PixelUNet, folder: Path, dtype: torch.dtype) -> None:
    """Write `network` to `folder`, its weights as `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = json.loads(network.unet.to_json_string())
    shape.pop("_name_or_path", None)  # the folder it was read from would change the hash
    (folder / "config.json").write_text(json.dumps(shape, indent=2, sort_keys=True) + "\n")
    weights = {k: v.to(dtype).contiguous() for k, v in network.unet.state_dict().items()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    (folder / "stage.json").write_text(network.config.model_dump_json(indent=2) + "\n")
    prompts = network.prompts
    save_file(
        {"tokens": prompts.tokens, "mask": prompts.mask, "pooled": prompts.pooled},
        folder / "prompts.safetensors",
    )


def load_checkpoint(folder: Path) -> PixelUNet:
    """The network of `folder` in float32, in evaluation mode."""
    config = StageConfig.model_validate_json((folder / "stage.json").read_text())
    embeddings = load_file(folder / "prompts.safetensors")
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    network = PixelUNet(unet, config, PromptEmbeddings(config.prompts, **embeddings))
    return network.eval().requires_grad_(False)
