"""Weights of a network as diffusers lays them out: one file, or shards with an index."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save
from torch import Tensor

from generation.networks.finite import require_finite
from release.files.commit import write_atomically

WEIGHTS = "diffusion_pytorch_model{suffix}.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
LARGEST_FILE = "5GB"  # above this there are shards, as the Hub's models have them


def tensor_file(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file whose bytes follow from the tensors, not from their order."""
    return save({name: tensors[name] for name in sorted(tensors)})


def save_weights(
    network: Any, folder: Path, dtype: torch.dtype, largest: str = LARGEST_FILE
) -> None:
    """A diffusers model's config and its weights as `dtype`; equal networks make equal bytes.

    UserError, before anything is written, for weights that are not finite as `dtype`.
    """
    state = {name: w.detach().to("cpu", dtype) for name, w in network.state_dict().items()}
    require_finite(state.items(), f"the network for {folder}, as {dtype}")
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern=WEIGHTS, max_shard_size=largest
    )
    for file, names in plan.filename_to_tensors.items():
        content = tensor_file({name: state[name].contiguous() for name in names})
        write_atomically(folder / file, content)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_atomically(folder / INDEX, _json(index))
    config = json.loads(network.to_json_string())
    config.pop("_name_or_path", None)  # the folder it was read from would change the hash
    write_atomically(folder / "config.json", _json(config))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
