"""Systems trained for the same processor time, built, scored and learned from: the measured board.

Called by benchmarks/fourteen_systems.sh, one system after another. All is in files: what stands is
not made again, so a killed run goes on. A training's steps follow from its budget and the measured
cost of a step; they are noted, and stay. Only the training's steps count: not reading the images,
not the pictures on the way.

runs/systems/        releases, trainings, sweeps; weights are not committed, their hashes are
OUT/SYSTEM/          plan.json, scores, CAS, loss curves; OUT/systems.json, systems.md: the table
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from systems_list import SYSTEMS, System

ROOT = Path(__file__).resolve().parents[1]
REAL = "releases/fashion-mnist-real"
CALIBRATION = (10, 40)  # steps of two short trainings, whose difference is the cost of a step
ROUNDS = 3  # of timed sampling
SEEDS = "0,1,2"
FEW_REAL, TIMES = 100, 3  # real images a class, and generated ones for each
FEW_STEPS, ALL_STEPS = "500", "2000"  # of classifiers that see real images, alone or not: the same
REFERENCE = "real-alone"  # folder of the classifiers that see no generated images


@dataclass(frozen=True)
class Board:
    """work: where commands run. budget: seconds of processor time a system. per_class: images."""

    work: Path
    out: Path
    budget: float
    per_class: int
    few: bool

    def run(self, *command: str) -> float:
        """Seconds of processor time it took; it ends this run if it fails."""
        print(time.strftime("%H:%M:%S"), *command, flush=True)
        before = _children()
        subprocess.run(command, cwd=self.work, check=True)
        return _children() - before


def main() -> None:
    """All systems that are asked for, then the table of what there is."""
    board, systems = _arguments()
    board.work.mkdir(parents=True, exist_ok=True)
    if not (board.work / REAL / "manifest.json").is_file():
        board.run("build-dataset", "--real", "fashion-mnist", "--out", REAL)
    _reference(board)
    for system in systems:
        measured = board.out / system.name / "measured.json"
        if not measured.is_file():
            _train(board, system)
            recipe = _selected(board, system)
            release = _build(board, system, recipe)
            _score(board, system, release)
            _write(measured, _facts(board, system, recipe))
        _write_table(board.out)


def _arguments() -> tuple[Board, list[System]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/systems")
    parser.add_argument("--out", type=Path, default=ROOT / "results/fashion-mnist/systems")
    parser.add_argument("--budget", type=float, default=2400, help="seconds of training a system")
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--systems", default=",".join(s.name for s in SYSTEMS))
    parser.add_argument("--few", action="store_true", help="a trial: tiny sweep and classifiers")
    given = parser.parse_args()
    named = given.systems.split(",")
    unknown = set(named) - {s.name for s in SYSTEMS}
    if unknown:
        parser.error(f"no system {sorted(unknown)[0]!r}: {', '.join(s.name for s in SYSTEMS)}")
    if not given.few and given.per_class < FEW_REAL * TIMES:
        parser.error(f"--per-class {given.per_class}: give at least {FEW_REAL * TIMES}")
    board = Board(
        given.work.resolve(), given.out.resolve(), given.budget, given.per_class, given.few
    )
    return board, [s for s in SYSTEMS if s.name in named]


def _train(board: Board, system: System) -> None:
    """Every training of the system, for its share of the budget."""
    for number, (recipe, share) in enumerate(system.trainings):
        last = number + 1 == len(system.trainings)
        data = f"{REAL}/latents/{system.latents}" if system.latents and last else REAL
        if system.latents and last:
            autoencoder = f"runs/{system.trainings[0][0]}/checkpoint"
            board.run(
                *("release", "encode", REAL, "--config", "32", "--name", system.latents),
                *("--autoencoder", autoencoder),
            )
        if (board.work / "runs" / recipe / "checkpoint").is_dir():
            continue
        steps = _steps(board, system, recipe, data, share)
        _finetune(board, system, recipe, data, f"runs/{recipe}", steps)
        for name in ("loss.csv", "loss.png", "training.json"):
            source = board.work / "runs" / recipe / "checkpoint" / name
            shutil.copy(source, board.out / system.name / f"{recipe}-{name}")


def _finetune(board: Board, system: System, recipe: str, data: str, out: str, steps: int) -> float:
    before = system.starts.get(recipe)
    start = () if before is None else ("--from", f"runs/{before}/checkpoint")
    return board.run(
        *("finetune-generator", "--recipe", recipe, "--data", data, "--out", out, *start),
        *("--steps", str(steps), "--threads", "1", "--json"),
    )


def _steps(board: Board, system: System, recipe: str, data: str, share: float) -> int:
    """So many that they take the share of the budget; measured once."""
    file = board.out / system.name / f"{recipe}-plan.json"
    if not file.is_file():
        took = []
        for steps in CALIBRATION:
            folder = board.work / "calibration" / recipe
            shutil.rmtree(folder, ignore_errors=True)
            took.append(_finetune(board, system, recipe, data, str(folder), steps))
        cost = (took[1] - took[0]) / (CALIBRATION[1] - CALIBRATION[0])
        seconds = share * board.budget
        if cost <= 0:
            raise SystemExit(
                f"{recipe}: {CALIBRATION[1]} steps took no longer than {CALIBRATION[0]}"
            )
        steps = max(2, round(seconds / cost))
        _write(file, {"seconds": seconds, "seconds_a_step": cost, "steps": steps})
    found: int = json.loads(file.read_text())["steps"]
    return found


def _selected(board: Board, system: System) -> str:
    """The build recipe, with each stage's sampler settings that are best on the tuning images."""
    recipe = system.build
    if system.name == "imagen":  # whose recipe names the checkpoints that ship with the project
        recipe = _with_own_checkpoints(board, system)
    points = ("--per-class", "5" if board.few else "100", "--short-list", "0")
    for side, options in zip(_sides(board, recipe), system.sweeps, strict=True):
        out = board.work / "sweeps" / system.name / str(side)
        sweep = _narrowed(options) if board.few else options
        if not list(out.glob("*-selected.toml")):
            board.run(
                *("select-sampler", "--recipe", recipe, "--real", REAL, "--out", str(out)),
                *("--stage", str(side), *sweep, *points, "--device", "cpu"),
            )
        (chosen,) = out.glob("*-selected.toml")
        recipe = str(chosen)
    shutil.copy(recipe, board.out / system.name / "build.toml")
    return recipe


def _sides(board: Board, recipe: str) -> list[int]:
    """Of a build recipe's stages, in px."""
    from builder.planning.recipe import load_recipe

    os.chdir(board.work)  # where its checkpoints are
    return [stage.resolution for stage in load_recipe(recipe).stages]


def _narrowed(sweep: Sequence[str]) -> tuple[str, ...]:
    """Two points of it, of diffusion models in few steps."""
    method = sweep[sweep.index("--method") + 1]
    if "--steps" not in sweep:
        return (*sweep[:3], ",".join(sweep[3].split(",")[:2]))
    return ("--method", method, "--steps", "2,3")


def _with_own_checkpoints(board: Board, system: System) -> str:
    text = subprocess.run(
        ["build-dataset", "--show-recipe", system.build], capture_output=True, text=True, check=True
    ).stdout
    for recipe, _ in system.trainings:
        text = text.replace(f"builtin:{recipe}", f"runs/{recipe}/checkpoint")
    text = text.replace(f'name = "{system.build}"', f'name = "{system.build}-{system.name}"', 1)
    lines = [line for line in text.splitlines() if not line.startswith("sha256")]
    file = board.work / f"{system.name}.toml"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def _build(board: Board, system: System, recipe: str) -> str:
    release = f"releases/{system.name}"
    board.run(
        *("build-dataset", "--recipe", recipe, "--per-class", str(board.per_class)),
        *("--out", release, "--workers", "1"),
    )
    board.run("release", "verify", release)
    return release


def _score(board: Board, system: System, release: str) -> None:
    """Distances; CAS; the accuracy with few and with all real images beside the generated."""
    out = board.out / system.name
    board.run("score-release", f"{release}:32", "--real", REAL, "--out", str(out))
    _classify(board, out / "cas", ("--train", release), None)
    both = ("--train", REAL, "--train", release)
    real, times = (1, 2) if board.few else (FEW_REAL, TIMES)
    few = ("--per-class", str(real), "--times", str(times))
    _classify(board, out / "real-1000-and-generated", (*both, *few), FEW_STEPS)
    _classify(board, out / "real-60000-and-generated", both, ALL_STEPS)


def _reference(board: Board) -> None:
    """Classifiers of the real images alone, in as many steps or of as many images: what the others
    are compared to."""
    out, few = board.out / REFERENCE, ("--per-class", "1" if board.few else str(FEW_REAL))
    as_many = ("--train", REAL, "--per-class", str(board.per_class))
    _classify(board, out / f"real-{board.per_class}-a-class", as_many, None)
    _classify(board, out / "real-1000", ("--train", REAL, *few), FEW_STEPS)
    _classify(board, out / "real-60000", ("--train", REAL), ALL_STEPS)


def _classify(board: Board, out: Path, sources: Sequence[str], steps: str | None) -> None:
    """One training a seed; without steps as many epochs as the recipe says."""
    if all(out.with_name(f"{out.name}-seed{seed}.json").is_file() for seed in SEEDS.split(",")):
        return
    steps = "2" if board.few else steps
    board.run(
        *("train-classifier", *sources, "--test", REAL, "--seeds", SEEDS),
        *(() if steps is None else ("--steps", steps)),
        *("--out", f"{out}.json"),
    )


def _facts(board: Board, system: System, recipe: str) -> dict[str, Any]:
    """What the table has of a system beside its scores."""
    from generation.families import load_training_recipe, trainable

    trainings = []
    for name, _ in system.trainings:
        training: Any = load_training_recipe(name)
        memory = trainable(training.generator).memory(training, 1)
        plan = json.loads((board.out / system.name / f"{name}-plan.json").read_text())
        flops = 3 * memory.flops / memory.images  # a backward pass costs twice the forward one
        trainings.append(plan | {"recipe": name, "parameters": memory.parameters, "flops": flops})
    return {
        "title": system.title,
        "trainings": trainings,
        **_sampling(board, recipe),
        "hardware": f"{platform.machine()}, one thread of {os.cpu_count()} cores",
        "versions": _versions(),
    }


def _sampling(board: Board, recipe: str) -> dict[str, Any]:
    """FLOPs and seconds of processor time an image takes, over all stages; hashes of weights."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from builder.planning.recipe import load_recipe
    from generation.families import generator_source
    from generation.generator import ImageBatch, Screened

    torch.set_num_threads(1)
    os.chdir(board.work)
    loaded, parents = load_recipe(recipe), None
    flops, seconds, hashes = 0.0, 0.0, {}
    prompt = "T-shirt"
    for stage in loaded.stages:
        source = generator_source(stage.generator)
        folder = source.locate(stage.checkpoint)
        hashes[stage.checkpoint] = source.sha256(folder)
        generator, n = source.load(folder, compiled=False), stage.batch
        prompt = _first_prompt(loaded.classes)
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


def _first_prompt(classes: str) -> str:
    from release.classes.class_list import load_classes

    return load_classes(classes)[0].prompt


def _versions() -> dict[str, str]:
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__}


def _write_table(out: Path) -> None:
    """systems.json and systems.md, of every system that was measured."""
    rows = {
        system.name: json.loads((out / system.name / "measured.json").read_text())
        for system in SYSTEMS
        if (out / system.name / "measured.json").is_file()
    }
    _write(out / "systems.json", rows)
    head = (
        "| system | parameters | steps | processor seconds trained | GFLOPs an image trained | "
        "GFLOPs an image sampled | seconds an image |\n|---|--:|--:|--:|--:|--:|--:|\n"
    )
    (out / "systems.md").write_text(head + "".join(_row(row) for row in rows.values()))


def _row(row: dict[str, Any]) -> str:
    parts = row["trainings"]

    def joined(name: str, scale: float, digits: int) -> str:
        return " + ".join(f"{part[name] / scale:,.{digits}f}" for part in parts)

    cells = (
        row["title"],
        f"{joined('parameters', 1e6, 1)} M",
        joined("steps", 1, 0),
        joined("seconds", 1, 0),
        joined("flops", 1e9, 2),
        f"{row['sampled_flops'] / 1e9:,.1f}",
        f"{row['sampled_seconds']:.3f}",
    )
    return f"| {' | '.join(cells)} |\n"


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write(file: Path, content: Any) -> None:
    """It appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.half")
    half.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    half.replace(file)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
