"""A stage's checkpoint: a diffusers directory with what the stage adds to it.

config.json, diffusion_pytorch_model.safetensors   the U-Net, as diffusers saves it
stage.json                                         StageConfig
prompts.safetensors                                embeddings of the stage's prompts
training.json, loss.csv, loss.png                  how it was made; not part of the hash
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from generation.families.pixel_unet.checkpoint_files import STAGE_FILE
from generation.families.pixel_unet.network import PixelUNet, StageConfig
from generation.networks.finite import require_finite
from generation.pretrained.diffusers_weights import tensor_file
from generation.prompts.text_encoder import PromptEmbeddings
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import write_atomically

UNREADABLE = (  # what diffusers, safetensors and json raise for parts of files and other files
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError),
    SafetensorError,
)


def save_checkpoint(network: PixelUNet, folder: Path, dtype: torch.dtype) -> None:
    """Write `network` to `folder`, its weights as `dtype`; equal networks make equal bytes.

    stage.json comes last: a folder without it is no checkpoint. UserError, before anything is
    written, for weights that are not finite as `dtype`.
    """
    weights = {k: v.to(dtype).contiguous() for k, v in network.unet.state_dict().items()}
    require_finite(weights.items(), f"the network for {folder}, as {dtype}")
    shape = json.loads(network.unet.to_json_string())
    shape.pop("_name_or_path", None)  # the folder it was read from would change the hash
    prompts = network.prompts
    embeddings = {"tokens": prompts.tokens, "mask": prompts.mask, "pooled": prompts.pooled}
    contents = {
        "config.json": (json.dumps(shape, indent=2, sort_keys=True) + "\n").encode(),
        "diffusion_pytorch_model.safetensors": tensor_file(weights),
        "prompts.safetensors": tensor_file(embeddings),
        STAGE_FILE: (network.config.model_dump_json(indent=2) + "\n").encode(),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)


def _require_sense(shape: Mapping[str, Any]) -> None:
    """ValueError for a negative setting: some pass until the network is used."""
    for name, value in shape.items():
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(v, int | float) and v < 0 for v in values):
            raise ValueError(f"{name} is {value}")


def _require_forward(network: PixelUNet) -> None:
    """What torch raises for settings that only a forward pass reads, found without its arithmetic.

    Weights and images are meta tensors: shapes and kinds, no numbers.
    """
    config = network.config
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(network.unet.config)
        image = torch.empty(1, config.channels, config.resolution, config.resolution)
        time = torch.empty(1)
    small = config.low_resolution
    parent = None if small is None else image.new_empty(1, config.channels, small, small)
    prompt = torch.empty(1, dtype=torch.int64, device="meta")
    PixelUNet(unet, config, network.prompts).to("meta")(image, time, prompt, parent, time)


def load_checkpoint(folder: Path) -> PixelUNet:
    """The network of `folder` in float32, in evaluation mode.

    UserError, one line, if a file is cut, damaged or of another network, or a weight not finite.
    """
    try:
        content = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        embeddings = load_file(folder / "prompts.safetensors")
        unet, found = UNet2DConditionModel.from_pretrained(
            folder, torch_dtype=torch.float32, output_loading_info=True
        )
        lacking = [*found["missing_keys"], *found["mismatched_keys"]]
        if lacking:
            raise ValueError(f"no tensor that fits {lacking[0]}")
        _require_sense(unet.config)
        config = validated(StageConfig, content, str(folder / STAGE_FILE))
        network = PixelUNet(unet, config, PromptEmbeddings(config.prompts, **embeddings))
        _require_forward(network)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder} is not a whole checkpoint: {reason}") from None
    require_finite(unet.state_dict().items(), f"checkpoint {folder}")
    return network.eval().requires_grad_(False)
