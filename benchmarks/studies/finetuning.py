"""Does fine-tuning a generator on the target set help? The paper's first finding, in kind.

    python benchmarks/studies/finetuning.py --work runs/finetuning \\
        --out results/fashion-mnist/finetuning

No web-trained text-to-image model fits on a CPU, so a stand-in takes its place: the same cascade
trained on Fashion-MNIST's `fit` images inverted in half the cases, shifted by up to 4 pixels both
ways, with jittered contrast. Three generators are compared: that stand-in as it is, the stand-in
fine-tuned on the unchanged images, and a cascade trained on those from scratch for as many steps.
Each makes one release a sampling seed; each release is scored by Fréchet distance to the real
train and test splits and by the accuracy on the real test split of a classifier trained on it
(CAS). Intervals are over seeds of training and sampling (and, for each distance, over images). With
--train-each-seed every sampling seed has trainings of its own, and the intervals are over both;
without it there is one training run each. Everything is a command of this project; rerunning goes
on. On a GPU with many cores:

    python benchmarks/studies/finetuning.py --work runs/finetuning \\
        --out results/fashion-mnist/finetuning --train-each-seed --jobs 12 --batch 250
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cards.measured.report_schema import FinetuningReport
from generation.families.pixel_unet.checkpoint_files import checkpoint_sha256
from generation.training.recipe import BUILTIN
from release.classes.class_list import load_classes
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest
from release.results.result import environment, read_result
from release.results.statistics import student_interval

STAGES = (16, 32)
ARMS = ("stand-in", "fine-tuned", "scratch")
RESULTS = "results"  # folder of each seed's, beside the report that stands for them
SHIFT = 4  # pixels of 32
CONTRAST = (0.5, 1.5)


def main() -> None:
    arguments = parse_arguments()
    work, real = arguments.work, arguments.real
    work.mkdir(parents=True, exist_ok=True)
    if not (real / "manifest.json").is_file():
        command("build-dataset", "--real", "fashion-mnist", "--out", real)
    stand_in = make_stand_in_set(real, work)
    train_generators(arguments, stand_in)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        releases = [(arm, seed) for seed in range(arguments.seeds) for arm in ARMS]
        list(pool.map(lambda which: measure(arguments, *which), releases))
    write_report(arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="data, runs and releases")
    parser.add_argument("--out", type=Path, required=True, help="results")
    parser.add_argument("--real", type=Path, default=Path("releases/fashion-mnist-real"))
    parser.add_argument("--stand-in-steps", default="2000,1200", help="base, super-resolution")
    parser.add_argument("--steps", default="800,500", help="of fine-tuning, and from scratch")
    parser.add_argument("--seeds", type=int, default=3, help="sampling seeds")
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50, help="of sampling")
    parser.add_argument("--train-each-seed", action="store_true", help="and not once for all")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    return parser.parse_args()


def command(*words: str | Path | int, threads: int | None = None) -> None:
    """Run a console command of this project; its error line is enough if it fails."""
    program = Path(sys.executable).parent / str(words[0])
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    print("$", *words, flush=True)
    subprocess.run([program, *map(str, words[1:])], check=True, env=os.environ | limits)


def make_stand_in_set(real: Path, work: Path) -> Path:
    """A release of the disturbed images; the tuning images are not among them."""
    release = work / "stand-in-set"
    classes = load_classes("fashion-mnist")
    class_list = work / "classes.csv"
    rows = [f"{c.label},{c.label}-{c.wnid},{c.name},{c.prompt}" for c in classes]
    class_list.write_text("\n".join(["id,wnid,name,prompt", *rows]) + "\n")
    if (release / "manifest.json").is_file():
        return release
    data = load_images(real, "32", "fit")
    folder = work / "disturbed"
    rng = np.random.Generator(np.random.Philox(0))
    for pixels, label, image_id in zip(data.images, data.labels, data.image_ids, strict=True):
        path = folder / "train" / f"{label}-{classes[label].wnid}" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disturb(pixels[..., 0], rng)).save(path)
    command(
        "build-dataset", "--real", folder, "--out", release, "--views", "16,32", "--crop", "pad"
    )
    return release


def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8[32,32] shifted, its contrast about the mean jittered, inverted in half the cases."""
    down, right = rng.integers(-SHIFT, SHIFT + 1, size=2)
    padded = np.pad(image.astype(np.float64), SHIFT)
    rows, columns = slice(SHIFT - down, SHIFT - down + 32), slice(SHIFT - right, SHIFT - right + 32)
    shifted = padded[rows, columns]
    jittered = shifted.mean() + rng.uniform(*CONTRAST) * (shifted - shifted.mean())
    levels: np.ndarray = np.clip(np.rint(jittered), 0, 255).astype(np.uint8)
    return np.asarray(255 - levels) if rng.random() < 0.5 else levels


def train_generators(arguments: argparse.Namespace, stand_in_set: Path) -> None:
    """Both stages of the three generators; those that wait for nothing go side by side."""
    before, steps = split_steps(arguments.stand_in_steps), split_steps(arguments.steps)

    def finetune(arm: str, stage: int, training: int) -> None:
        first = arm == "stand-in"
        number = (before if first else steps)[STAGES.index(stage)]
        out = checkpoint(arguments.work, arm, stage, training).parent
        recipe = training_recipe(arguments.work, out, stage, number, training, stand_in=first)
        start = ["--from", str(checkpoint(arguments.work, "stand-in", stage, training))]
        command(
            *("finetune-generator", "--recipe", recipe, "--json", "--threads", 1),
            *("--data", stand_in_set if first else arguments.real),
            *("--split", "train" if first else "fit"),
            *("--out", out),
            *(start if arm == "fine-tuned" else []),
            threads=1,
        )

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for arms in (("stand-in", "scratch"), ("fine-tuned",)):
            runs = product(arms, STAGES, range(trainings(arguments)))
            list(pool.map(lambda run: finetune(*run), runs))


def split_steps(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def trainings(arguments: argparse.Namespace) -> int:
    """Of each generator."""
    return int(arguments.seeds) if arguments.train_each_seed else 1


def checkpoint(work: Path, arm: str, stage: int, training: int) -> Path:
    return work / f"{arm}-{stage}-training{training}" / "checkpoint"


def training_recipe(
    work: Path, out: Path, stage: int, steps: int, training: int, *, stand_in: bool
) -> Path:
    """The embedded stage's recipe with so many steps and its own seed; the stand-in's has its own
    class list."""
    text = (BUILTIN / f"fashion-mnist-{stage}.toml").read_text()
    lines = []
    for line in text.splitlines():
        name = line.split("=")[0].strip()
        if name == "steps":
            lines.append(f"steps = {steps}")
        elif name == "seed":
            lines.append(f"seed = {int(line.split('=')[1]) + training}")
        elif name == "classes" and stand_in:
            lines.append(f'classes = "{work / "classes.csv"}"')
        else:
            lines.append(line)
    path = out.with_suffix(".toml")
    path.write_text("\n".join(lines) + "\n")
    return path


def release_recipe(arguments: argparse.Namespace, arm: str, seed: int) -> Path:
    """Unguided, the few-step solver of the embedded recipe."""
    work: Path = arguments.work
    training = seed % trainings(arguments)
    stages = "".join(
        f"""
[[stage]]
resolution = {stage}
generator = "pixel-unet"
checkpoint = "{checkpoint(work, arm, stage, training).resolve()}"
batch = {arguments.batch}
sampler = {{ method = "dpm-solver++", steps = {steps}, guidance = 1.0 }}
"""
        for stage, steps in zip(STAGES, (12, 8), strict=True)
    )
    path = work / f"{arm}-seed{seed}.toml"
    path.write_text(
        f"""name = "{arm}-seed{seed}"
description = "Fashion-MNIST from the generator '{arm}' of benchmarks/studies/finetuning.py"
classes = "fashion-mnist"
dataset = "fashion-mnist"
regime = "B"
license = "mit"
seed = {seed}
{stages}"""
    )
    return path


def measure(arguments: argparse.Namespace, arm: str, seed: int) -> None:
    """Build one release, score it, train a classifier on it; what is there of it is kept."""
    work, out = arguments.work, arguments.out / RESULTS
    release = work / f"release-{arm}-seed{seed}"
    recipe = release_recipe(arguments, arm, seed)
    command(
        *("build-dataset", "--recipe", recipe, "--per-class", arguments.per_class),
        *("--out", release, "--json"),
    )
    made = read_manifest(release).content_sha256
    scores = out / f"release-{arm}-seed{seed}-32-train-efficientnet-lite0-64.json"
    if not is_of(made, scores):
        command("score-release", f"{release}:32", "--real", arguments.real, "--out", out, "--json")
    cas = out / f"cas-{arm}-seed{seed}.json"
    if not is_of(made, cas):
        cas.unlink(missing_ok=True)
        command(
            *("train-classifier", "--train", release, "--test", arguments.real),
            *("--seed", seed, "--out", cas, "--json"),
        )


def is_of(content_sha256: str, path: Path) -> bool:
    """Whether a result is there and was measured on the release of that content."""
    if not path.is_file():
        return False
    subject = read_result(path).subject
    (measured,) = subject.get("train", [subject])
    return bool(measured["content_sha256"] == content_sha256)


def write_report(arguments: argparse.Namespace) -> None:
    """finetuning.json: means with 95% intervals over seeds; a grid of all three."""
    out = arguments.out
    arms = {arm: arm_values(arguments, arm) for arm in ARMS}
    gains = {
        f"fine-tuned less {other}": {
            key: over_seeds(np.subtract(arms["fine-tuned"][key]["by_seed"], arm[key]["by_seed"]))
            for key in ("fd_train", "fd_test", "cas_top1")
        }
        for other, arm in arms.items()
        if other != "fine-tuned"
    }
    report = {
        "kind": "finetuning",
        "dataset": "fashion-mnist",
        "what": "stand-in for a web-trained model: the cascade trained on the train images, half "
        f"of them inverted, shifted by up to {SHIFT} pixels, their contrast jittered",
        "disturbance": {"inverted": 0.5, "shift_pixels": SHIFT, "contrast": CONTRAST},
        "steps": {"stand-in": arguments.stand_in_steps, "fine-tuned, scratch": arguments.steps},
        "images_per_release": 10 * arguments.per_class,
        "sampling_seeds": arguments.seeds,
        "training_seeds": trainings(arguments),
        "sampling_batch": arguments.batch,
        "interval": "95%, Student's t over seeds of training and sampling; paired by seed",
        "arms": arms,
        "differences": gains,
        "environment": environment(),
    }
    FinetuningReport.model_validate(report)
    (out / "finetuning.json").write_text(json.dumps(report, indent=2) + "\n")
    draw_grid(arguments, out / "finetuning.png")
    print(
        json.dumps(
            {arm: {k: v["mean"] for k, v in arms[arm].items() if "mean" in v} for arm in arms}
        )
    )


def arm_values(arguments: argparse.Namespace, arm: str) -> dict[str, Any]:
    found: dict[str, list[float]] = {"fd_train": [], "fd_test": [], "cas_top1": []}
    for seed in range(arguments.seeds):
        name = f"release-{arm}-seed{seed}-32-train-efficientnet-lite0-64.json"
        values = read_result(arguments.out / RESULTS / name).values
        for key in ("fd_train", "fd_test"):
            found[key].append(values[key]["value"])
        cas = read_result(arguments.out / RESULTS / f"cas-{arm}-seed{seed}.json")
        found["cas_top1"].append(cas.values["top1"]["value"])
    checkpoints = {
        str(stage): [
            checkpoint_sha256(checkpoint(arguments.work, arm, stage, training))
            for training in range(trainings(arguments))
        ]
        for stage in STAGES
    }
    return {key: over_seeds(np.array(values)) for key, values in found.items()} | {
        "checkpoints_sha256": checkpoints
    }


def over_seeds(values: np.ndarray) -> dict[str, Any]:
    """Mean and 95% interval, None for one seed."""
    return {
        "mean": float(values.mean()),
        "interval": student_interval(values),
        "by_seed": values.tolist(),
    }


def draw_grid(arguments: argparse.Namespace, path: Path, columns: int = 6) -> None:
    """Rows are classes; blocks of columns the first images of each generator, then real ones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = {
        arm: load_images(arguments.work / f"release-{arm}-seed0", "32", "train") for arm in ARMS
    }
    sets["real"] = load_images(arguments.real, "32", "test")
    blocks = []
    for data in sets.values():
        rows = [np.flatnonzero(data.labels == label)[:columns] for label in range(10)]
        blocks.append(np.vstack([np.hstack(list(data.images[row])) for row in rows]))
        blocks.append(np.full((blocks[0].shape[0], 8, 3), 255, np.uint8))
    figure, axes = plt.subplots(figsize=(12, 5.2), layout="constrained")
    axes.imshow(np.hstack(blocks[:-1]), interpolation="nearest")
    width = columns * 32
    axes.set_xticks([i * (width + 8) + width / 2 for i in range(len(sets))], list(sets))
    axes.set_yticks([32 * i + 16 for i in range(10)], sets["real"].class_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_title(
        "Before and after fine-tuning: the first images of each class, not chosen\n"
        f"stand-in: trained on Fashion-MNIST inverted in half the images, shifted by up to {SHIFT} "
        "pixels, contrast jittered",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
