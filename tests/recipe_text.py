"""Recipes as their authors would write them."""

import json
import tomllib
from pathlib import Path
from typing import Any


def as_toml(recipe: Any) -> str:
    """Tables within the tables stage, network and training stand in a line each."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    tables = {n: content.pop(n) for n in ("stage", "network", "training")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in content.items()]
    for name, table in tables.items():
        lines.append(f"[{name}]")
        for key, value in table.items():
            text = json.dumps(value)
            if isinstance(value, dict):
                text = "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
            lines.append(f"{key} = {text}")
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def tiny_build(
    classes: Path, generator: str, checkpoint: Path, sampler: str, resolution: int = 16
) -> str:
    """A build recipe of one stage. sampler: what stands in its braces."""
    return f"""
name = "tiny"
description = "tiny"
classes = "{classes}"
dataset = "shapes"
regime = "B"
license = "other"
[shard]
classes = 2
indices = 4
""" + tiny_stage(generator, checkpoint, sampler, resolution)


def tiny_stage(generator: str, checkpoint: Path, sampler: str, resolution: int) -> str:
    """One more stage of it."""
    return f"""
[[stage]]
resolution = {resolution}
generator = "{generator}"
checkpoint = "{checkpoint}"
batch = 3
sampler = {{ {sampler} }}
"""
