"""Systems trained for the same processor time, built, scored and learned from: the measured board.

Called by benchmarks/fourteen_systems.sh, one system after another. All is in files: what stands is
not made again, so a killed run goes on. Several may run at once, of different systems. A training's
steps follow from its budget and the cost of a step, measured beside a step of a reference: a
machine's speed changes within minutes, and budgets are seconds at one speed. Steps are noted, and
stay, and so is what the training took. Only its steps count for the budget: not reading the images,
not the pictures on the way.

runs/systems/        releases, trainings, sweeps; weights are not committed, their hashes are
OUT/SYSTEM/          plan.json, scores, CAS, loss curves, some images
OUT/systems.json, systems.md, systems.png: the table, and a row of images of each
"""

import argparse
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script

from systems_list import SYSTEMS, System
from systems_picture import draw_systems, keep_images
from systems_table import REFERENCE, facts, write, write_table

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "runs/systems"
OUT = ROOT / "results/fashion-mnist/systems"
REAL = "releases/fashion-mnist-real"
REFERENCE_TRAINING = "fashion-mnist-simple-diffusion-unet"
REFERENCE_STEP = 0.73  # processor seconds of one of its steps, where a budget's second is one
SEEDS = "0,1,2"
FEW_REAL, TIMES = 100, 3  # real images a class, and generated ones for each
FEW_STEPS, ALL_STEPS = "500", "2000"  # of classifiers that see real images, alone or not: the same


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
    with _alone(board, "reference"):
        _reference(board)
    for system in systems:
        measured = board.out / system.name / "measured.json"
        if not measured.is_file():
            _train(board, system)
            recipe = _selected(board, system)
            release = _build(board, system, recipe)
            _score(board, system, release)
            write(measured, facts(board.work, board.out, system, recipe))
            keep_images(board.work / release, board.out / system.name)
        write_table(board.out)
        titles = {REFERENCE: "real images", **{s.name: s.title for s in SYSTEMS}}
        draw_systems(board.out, titles)


def _arguments() -> tuple[Board, list[System]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--budget", type=float, default=2400, help="seconds of training a system")
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--systems", default=",".join(s.name for s in SYSTEMS))
    parser.add_argument(
        "--few",
        action="store_true",
        help="a trial: tiny sweep and classifiers; needs --work, --out",
    )
    given = parser.parse_args()
    named = given.systems.split(",")
    unknown = set(named) - {s.name for s in SYSTEMS}
    if unknown:
        parser.error(f"no system {sorted(unknown)[0]!r}: {', '.join(s.name for s in SYSTEMS)}")
    if given.few and (given.work == WORK or given.out == OUT):
        parser.error("--few: give a --work and an --out of its own")
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
        with _alone(board, recipe):  # LDM-4 and DiT have one autoencoder
            _train_one(board, system, recipe, share, on_latents=bool(system.latents) and last)


def _train_one(
    board: Board, system: System, recipe: str, share: float, *, on_latents: bool
) -> None:
    """Unless it is done, for this system or for another that takes the same training."""
    data = f"{REAL}/latents/{system.latents}" if on_latents else REAL
    record = _record(board, system, recipe)
    _take_over(board, system, recipe)
    if record.is_file() and (board.work / "runs" / recipe / "checkpoint").is_dir():
        return  # the records alone are of a training elsewhere
    if on_latents:
        _encode(board, system)
    steps = _steps(board, system, recipe, data, share)
    begun = (board.work / "runs" / recipe).is_dir()
    used = _finetune(board, system, recipe, data, f"runs/{recipe}", steps)
    plan = _plan_file(board, system, recipe)
    whole = None if begun else used  # of one that was killed the rest alone is known
    write(plan, json.loads(plan.read_text()) | {"used_seconds": whole})
    for name in ("loss.csv", "loss.png", "training.json"):  # the last one last
        source = board.work / "runs" / recipe / "checkpoint" / name
        shutil.copy(source, record.with_name(f"{recipe}-{name}"))
    text = record.read_text()  # its autoencoder, seen from where the commands run
    record.write_text(text.replace(f"{board.work}/", ""))


def _encode(board: Board, system: System) -> None:
    """The real images' latents; those that are there stay."""
    autoencoder = f"runs/{system.trainings[0][0]}/checkpoint"
    with _alone(board, "latents"):
        board.run(
            *("release", "encode", REAL, "--config", "32", "--name", system.latents),
            *("--autoencoder", autoencoder),
        )


def _record(board: Board, system: System, recipe: str) -> Path:
    """The last file that a training leaves of itself in the results."""
    return board.out / system.name / f"{recipe}-training.json"


def _take_over(board: Board, system: System, recipe: str) -> None:
    """The records of the same training of another system, where there are some."""
    own = _record(board, system, recipe)
    others = (_record(board, other, recipe) for other in SYSTEMS if other != system)
    made = next(filter(Path.is_file, others), None)
    if made is None or own.is_file():
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    for file in sorted(made.parent.glob(f"{recipe}-*"), key=lambda file: file == made):
        shutil.copy(file, own.parent)


def _finetune(board: Board, system: System, recipe: str, data: str, out: str, steps: int) -> float:
    before = system.starts.get(recipe)
    start = () if before is None else ("--from", f"runs/{before}/checkpoint")
    return board.run(
        *("finetune-generator", "--recipe", recipe, "--data", data, "--out", out, *start),
        *("--steps", str(steps), "--threads", "1", "--json"),
    )


def _plan_file(board: Board, system: System, recipe: str) -> Path:
    return board.out / system.name / f"{recipe}-plan.json"


def _steps(board: Board, system: System, recipe: str, data: str, share: float) -> int:
    """So many that they take the share of the budget; measured once."""
    file, seconds = _plan_file(board, system, recipe), share * board.budget
    if not file.is_file():
        cost = _cost_of_step(board, recipe, data)
        steps = max(2, round(seconds / (cost["ratio"] * REFERENCE_STEP)))
        write(file, {"seconds": seconds, "steps": steps, "cost": cost})
    plan = json.loads(file.read_text())
    if plan["seconds"] != seconds:
        raise SystemExit(
            f"{file} is of {plan['seconds']:g} seconds, not of {seconds:g}: give another --out and "
            "--work, or the budget it was made with"
        )
    found: int = plan["steps"]
    return found


def _cost_of_step(board: Board, recipe: str, data: str) -> dict[str, Any]:
    """What step_cost.py says of the recipe beside the reference."""
    script = str(ROOT / "benchmarks/step_cost.py")
    rounds = ("--rounds", "1") if board.few else ()
    command = (sys.executable, script, recipe, data, REFERENCE_TRAINING, REAL, *rounds)
    print(time.strftime("%H:%M:%S"), *command, flush=True)
    ended = subprocess.run(command, cwd=board.work, check=True, stdout=subprocess.PIPE, text=True)
    cost: dict[str, Any] = json.loads(ended.stdout)
    return cost


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
    few = {"--steps": "2,3"}
    pairs = zip(sweep[::2], sweep[1::2], strict=True)
    return tuple(
        word
        for name, values in pairs
        for word in (name, few.get(name, ",".join(values.split(",")[:2])))
    )


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
    board.run(
        *("score-release", f"{release}:32", "--real", REAL, "--out", str(out)),
        *("--metrics", "all"),
    )
    _classify(board, out / "cas", ("--train", release), None)
    both = ("--train", REAL, "--train", release)
    real, times = (1, 2) if board.few else (FEW_REAL, TIMES)
    few = ("--per-class", str(real), "--times", str(times))
    _classify(board, out / "real-1000-and-generated", (*both, *few), FEW_STEPS)
    _classify(board, out / "real-60000-and-generated", both, ALL_STEPS)


def _reference(board: Board) -> None:
    """What the others are compared to, of real images alone: classifiers of as many images, and
    those that make as many steps."""
    out, few = board.out / REFERENCE, ("--per-class", "1" if board.few else str(FEW_REAL))
    as_many = ("--train", REAL, "--per-class", str(board.per_class))
    _classify(board, out / f"real-{board.per_class}-a-class", as_many, None)
    _classify(board, out / "real-1000", ("--train", REAL, *few), FEW_STEPS)
    _classify(board, out / "real-60000", ("--train", REAL), ALL_STEPS)
    keep_images(board.work / REAL, out)


def _classify(board: Board, out: Path, sources: Sequence[str], steps: str | None) -> None:
    """One training a seed; finished ones stay. Without steps as many epochs as the recipe says."""
    steps = "2" if board.few else steps
    board.run(
        *("train-classifier", *sources, "--test", REAL, "--seeds", SEEDS),
        *(() if steps is None else ("--steps", steps)),
        *("--out", f"{out}.json"),
    )


@contextmanager
def _alone(board: Board, task: str) -> Iterator[None]:
    """Other runs in the same folder wait meanwhile with the same task."""
    (board.work / "locks").mkdir(exist_ok=True)
    with (board.work / "locks" / task).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
