"""Networks to and from their checkpoints."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from generation.denoisers.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE, read_config
from generation.denoisers.family import Family
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import config_as_json
from generation.networks.finite import require_finite
from release.errors import UserError
from release.files.commit import write_atomically

MISFIT = (RuntimeError, ValueError, LookupError, TypeError)  # of weights and a network


def save_checkpoint(family: Family, network: Denoiser, folder: Path) -> None:
    """Write `network` to `folder`; equal networks make equal bytes.

    network.json comes last: a folder without it is no checkpoint. UserError, before anything is
    written, for weights that are not finite.
    """
    weights = {name: t.contiguous() for name, t in sorted(network.weights().items())}
    require_finite(weights.items(), f"the network for {folder}")
    content = config_as_json(family.name, network.config)
    write_atomically(folder / WEIGHTS_FILE, save(weights))
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / CONFIG_FILE, text.encode())


def load_checkpoint(family: Family, folder: Path) -> Denoiser:
    """The network of `folder`, in evaluation mode.

    UserError, one line, if a file is cut, damaged or of another network, or a weight not finite.
    """
    config = read_config(family, folder)
    try:
        with torch.device("meta"):
            network = family.network(config)
        network.load_state_dict(load_file(folder / WEIGHTS_FILE), assign=True)
    except (*MISFIT, OSError, SafetensorError) as error:
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise UserError(f"{folder} is not a whole checkpoint: {reason}") from None
    require_finite(network.state_dict().items(), f"checkpoint {folder}")
    return network.eval().requires_grad_(False)
