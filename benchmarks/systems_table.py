"""The board's tables: each system's scores, and its network, steps and cost."""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from systems_list import SYSTEMS, System

from release.results.result import read_result
from release.results.statistics import student_interval

ROUNDS = 3  # of timed sampling
REFERENCE = "real-alone"  # folder of the classifiers that see no generated images
CLASSIFIERS = {  # name of the result files, and of those of real images alone beside them
    "cas": "real-*-a-class",
    "real-1000-and-generated": "real-1000",
    "real-60000-and-generated": "real-60000",
}
SCORES = (
    "How it was measured, and how to read it: docs/generators.md, The measured board.\n\n"
    "| system | FD to train | FD to train, extrapolated | precision | recall | CAS, % | "
    "CAS over real | 1,000 real + generated, % | 60,000 real + generated, % |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
)
COSTS = (
    "| system | parameters | steps | processor seconds trained | GFLOPs an image trained | "
    "GFLOPs an image sampled | seconds an image |\n|---|--:|--:|--:|--:|--:|--:|\n"
)


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
        generator, n = source.load(folder, compiled=False), loaded.stages[0].batch
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
    scores = "".join(_scores(out, name, row["title"]) for name, row in rows.items())
    costs = "".join(_costs(row) for row in rows.values())
    _write_text(out / "systems.md", f"{SCORES}{_real_alone(out)}{scores}\n{COSTS}{costs}")


def _real_alone(out: Path) -> str:
    """The row of the classifiers that see no generated images."""
    cas, *others = (_mean(_accuracies(out / REFERENCE, name)) for name in CLASSIFIERS.values())
    return f"| real images alone | | | | | {cas} | 1 | {' | '.join(others)} |\n"


def _scores(out: Path, system: str, title: str) -> str:
    """Distances with 95% intervals over images; precision and recall; accuracies in %, mean and
    standard deviation over seeds; CAS over that of as many real images with its 95% interval over
    seeds."""
    (file,) = (out / system).glob("*-train-*.json")
    values = read_result(file).values
    found = [_accuracies(out / system, name) for name in CLASSIFIERS]
    of_real = found[0] / _accuracies(out / REFERENCE, CLASSIFIERS["cas"])
    interval = student_interval(of_real)
    assert interval is not None, f"{system}: one seed has no interval"
    low, high = interval
    cells = (
        title,
        *(_distance(values[name]) for name in ("fd_train", "fd_infinity_train")),
        *(f"{values[name]['value']:.2f}" for name in ("precision_train", "recall_train")),
        _mean(found[0]),
        f"{of_real.mean():.3f} ({low:.3f} to {high:.3f})",
        *map(_mean, found[1:]),
    )
    return f"| {' | '.join(cells)} |\n"


def _accuracies(folder: Path, name: str) -> np.ndarray:
    """Top-1 of each seed, in their order."""
    files = sorted(folder.glob(f"{name}-seed*.json"))
    return np.array([read_result(file).values["top1"]["value"] for file in files])


def _mean(accuracies: np.ndarray) -> str:
    percent = 100 * accuracies
    return f"{percent.mean():.1f} ± {percent.std(ddof=1):.1f}"


def _distance(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:,.0f} ({low:,.0f} to {high:,.0f})"


def _costs(row: dict[str, Any]) -> str:
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
