"""What the board's table has of each system beside its scores: network, steps, cost."""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from systems_list import SYSTEMS, System

ROUNDS = 3  # of timed sampling


def facts(work: Path, out: Path, system: System, recipe: str) -> dict[str, Any]:
    """What the table has of a system beside its scores."""
    from generation.families import load_training_recipe, trainable

    trainings = []
    for name, _ in system.trainings:
        training: Any = load_training_recipe(name)
        memory = trainable(training.generator).memory(training, 1)
        plan = json.loads((out / system.name / f"{name}-plan.json").read_text())
        flops = 3 * memory.flops / memory.images  # a backward pass costs twice the forward one
        trainings.append(plan | {"recipe": name, "parameters": memory.parameters, "flops": flops})
    return {
        "title": system.title,
        "trainings": trainings,
        **_sampling(work, recipe),
        "hardware": f"{platform.machine()}, one thread of {os.cpu_count()} cores",
        "versions": _versions(),
    }


def _sampling(work: Path, recipe: str) -> dict[str, Any]:
    """FLOPs and seconds of processor time an image takes, over all stages; hashes of weights."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from builder.planning.recipe import load_recipe
    from generation.families import generator_source
    from generation.generator import ImageBatch, Screened
    from release.classes.class_list import load_classes

    torch.set_num_threads(1)
    os.chdir(work)
    loaded, parents = load_recipe(recipe), None
    flops, seconds, hashes = 0.0, 0.0, {}
    prompt = load_classes(loaded.classes)[0].prompt
    for stage in loaded.stages:
        source = generator_source(stage.generator)
        folder = source.locate(stage.checkpoint)
        hashes[stage.checkpoint] = source.sha256(folder)
        generator, n = source.load(folder, compiled=False), stage.batch
        batch = ImageBatch([prompt] * n, [0] * n, list(range(n)), parents, stage.resolution)
        took = []
        with FlopCounterMode(display=False) as counter:
            made = generator.sample(batch, stage.sampler)
        for _ in range(ROUNDS):
            before = time.process_time()
            generator.sample(batch, stage.sampler)
            took.append(time.process_time() - before)
        parents = np.asarray(made.images if isinstance(made, Screened) else made)
        flops += counter.get_total_flops() / n
        seconds += statistics.median(took) / n
    return {"sampled_flops": flops, "sampled_seconds": seconds, "weights_sha256": hashes}


def _versions() -> dict[str, str]:
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__}


def write_table(out: Path) -> None:
    """systems.json and systems.md, of every system that was measured."""
    rows = {
        system.name: json.loads((out / system.name / "measured.json").read_text())
        for system in SYSTEMS
        if (out / system.name / "measured.json").is_file()
    }
    write(out / "systems.json", rows)
    head = (
        "| system | parameters | steps | processor seconds trained | GFLOPs an image trained | "
        "GFLOPs an image sampled | seconds an image |\n|---|--:|--:|--:|--:|--:|--:|\n"
    )
    _write_text(out / "systems.md", head + "".join(_row(row) for row in rows.values()))


def _row(row: dict[str, Any]) -> str:
    parts = row["trainings"]

    def joined(name: str, scale: float, digits: int) -> str:
        return " + ".join(f"{part[name] / scale:,.{digits}f}" for part in parts)

    cells = (
        row["title"],
        f"{joined('parameters', 1e6, 1)} M",
        joined("steps", 1, 0),
        " + ".join(_used(part) for part in parts),
        joined("flops", 1e9, 2),
        f"{row['sampled_flops'] / 1e9:,.2f}",
        f"{row['sampled_seconds']:.3f}",
    )
    return f"| {' | '.join(cells)} |\n"


def _used(training: dict[str, Any]) -> str:
    """Processor seconds, start and pictures included; of one that was interrupted those planned."""
    used = training["used_seconds"]
    return f"{training['seconds']:,.0f} planned" if used is None else f"{used:,.0f}"


def write(file: Path, content: Any) -> None:
    """As JSON."""
    _write_text(file, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write_text(file: Path, content: str) -> None:
    """It appears whole, whoever else writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}.half")
    half.write_text(content)
    half.replace(file)
