"""A LoRA of a network by peft: made, kept in the file that diffusers loads, and read again."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from generation.families.diffusers.generator import LORA_FILE
from generation.families.diffusers.recipe import LoraConfig
from generation.networks.finite import require_finite
from release.errors import UserError
from release.files.commit import write_atomically


def add_adapter(base: Any, config: LoraConfig, targets: tuple[str, ...]) -> None:
    """To the layers of `base` whose names end so, in float32; drawn from torch's generator.

    UserError if there are none, or some that peft has no adapter for.
    """
    import peft

    wanted = list(config.targets or targets)
    shape = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=wanted)  # type: ignore[arg-type]
    try:
        base.add_adapter(shape)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"[lora] targets {', '.join(wanted)}: {reason}") from None
    for name, weight in base.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()


def save_adapter(base: Any, component: str, folder: Path) -> None:
    """The adapter of `base`, which is the pipeline's `component`, with peft's settings of it.

    Equal adapters make equal bytes. UserError, before anything is written, for weights that are not
    finite.
    """
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(base)
    weights = {f"{component}.{n}": own[n].detach().cpu().contiguous() for n in sorted(own)}
    require_finite(weights.items(), f"the LoRA for {folder}")
    (config,) = base.peft_config.values()
    settings = {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": sorted(config.target_modules),
    }
    named = {f"{component}.{name}": value for name, value in settings.items()}
    # one entry alone: safetensors writes several in any order
    metadata = {LORA_ADAPTER_METADATA_KEY: json.dumps(named, sort_keys=True)}
    write_atomically(folder / LORA_FILE, save(weights, metadata))


@torch.no_grad()
def load_adapter(base: Any, component: str, folder: Path) -> None:
    """Into the adapter of `base` the weights of that folder; UserError unless they fit it."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    try:
        found = load_file(folder / LORA_FILE)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / LORA_FILE} is cut or damaged: {error}") from None
    own = {f"{component}.{n}": w for n, w in get_peft_model_state_dict(base).items()}
    differing = [n for n in sorted(own.keys() | found.keys()) if _shape(own, n) != _shape(found, n)]
    if differing:
        name = differing[0]
        raise UserError(
            f"the LoRA of {folder} is not that of the recipe: {name} is {_shape(found, name)} "
            f"there and {_shape(own, name)} here; make [lora] rank and targets the same"
        )
    set_peft_model_state_dict(base, {n.removeprefix(f"{component}."): w for n, w in found.items()})


def _shape(weights: dict[str, Tensor], name: str) -> str:
    return " x ".join(map(str, weights[name].shape)) if name in weights else "missing"
