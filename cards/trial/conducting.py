"""A trial from the images to its page: import, plan, generator, release, study, answer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from cards.trial.plan import (
    CHAIN,
    TRAINING,
    Asked,
    Found,
    Paces,
    Plan,
    chosen_classifier,
    chosen_resolution,
    make_plan,
    require_same,
)
from cards.trial.recipes import build_recipe, study
from cards.trial.steps import Step, StepLog, run_steps
from release.commands.command import say
from release.errors import UserError
from release.files.commit import write_atomically
from release.files.storage import release_path
from release.layout.manifest import read_manifest
from release.real_sources import open_source
from release.real_sources.source import SourceName

if TYPE_CHECKING:
    from cards.trial.verdict import Verdict

PLAN_FILE, LOG_FILE, ANSWER_FILE = "plan.json", "commands.json", "answer.json"
TESTS = ("test", "validation")  # the split that is tested on: the first of these that there is
VIEWS = "16,32,64"
LOOKED_AT = 64  # images, for their size and colour


def conduct(asked: Asked, out: Path, *, quiet: bool) -> tuple[Path, "Verdict"]:
    """The page and the answer. What is done already is not done again."""
    plan_file = out / PLAN_FILE
    planned = _read_plan(plan_file)
    if planned is not None:
        require_same(planned, asked, out)
    log = StepLog(out / LOG_FILE)
    first = import_step(asked, out)
    run_steps([first], log, quiet=quiet)
    found = look_at(out / "real")
    plan = planned or _plan(asked, found, out, quiet=quiet)
    write_atomically(plan_file, plan.model_dump_json(indent=1).encode())
    write_atomically(out / "build.toml", build_recipe(plan, out).encode())
    write_atomically(out / "study.toml", study(plan, out).encode())
    if not quiet:
        say(f"{found}\n{plan}")
    steps = [first, *later_steps(plan, out)]
    run_steps(steps, log, quiet=quiet)
    return _answer(out, found, steps, log)


def import_step(asked: Asked, out: Path) -> Step:
    """UserError for images that cannot be imported, or not tested on."""
    words = ["build-dataset", "--real", asked.images, "--views", VIEWS]
    if _undivided(asked):
        words += ["--test-share", f"{asked.test_share:g}", "--split-seed", str(asked.split_seed)]
    words += ["--out", str(out / "real")]
    return Step("the images, as a release", tuple(words))


def _undivided(asked: Asked) -> bool:
    """Whether the images come without a split to test on; a finished import is not looked at."""
    try:
        splits = set(open_source(str(SourceName(asked.images))).splits)
    except UserError:
        open_source(
            str(
                SourceName(
                    asked.images,
                    test_share=f"{asked.test_share:g}",
                    split_seed=str(asked.split_seed),
                )
            )
        )
        return True
    if "train" not in splits:
        raise UserError(f"{asked.images} has no split train, only {', '.join(sorted(splits))}")
    return not splits & set(TESTS)


def look_at(real: Path) -> Found:
    """What was imported. UserError for a single class."""
    manifest = read_manifest(release_path(str(real)))
    counts = manifest.per_class("original", "train")
    test_split = next(split for split in TESTS if split in manifest.splits()["original"])
    if len(manifest.classes) < 2:
        raise UserError(f"{real} has one class: a classifier tells at least two apart")
    sides, colour = _sizes_and_colour(real)
    return Found(
        dataset=manifest.dataset,
        classes=len(manifest.classes),
        train=sum(counts.values()),
        least=min(counts[entry.wnid] for entry in manifest.classes),
        test=sum(manifest.per_class("original", test_split).values()),
        test_split=test_split,
        side=int(np.median(sides)),
        colour=colour,
    )


def _sizes_and_colour(real: Path) -> tuple[list[int], bool]:
    """The shorter sides of some images of train, and whether one of them has colour."""
    from release.layout.image_sets import decode, split_files
    from release.layout.shard_files import iterate_shard

    sides, colour = [], False
    file = split_files(release_path(str(real)), "original", "train")[0]
    rows = next(iterate_shard(file, ["image"], LOOKED_AT))
    for data in rows["image"].field("bytes").to_pylist():
        pixels = decode(data)
        sides.append(min(pixels.shape[:2]))
        colour = colour or bool(np.any(pixels != pixels[..., :1]))
    return sides, colour


def _plan(asked: Asked, found: Found, out: Path, *, quiet: bool) -> Plan:
    import torch

    if not quiet:
        say("timing a few steps of each training here ...")
    resolution = chosen_resolution(asked, found.side, torch.cuda.is_available())
    classifier = chosen_classifier(asked, resolution, colour=found.colour)
    return make_plan(asked, found, resolution, classifier, _paces(resolution, classifier, out))


def _paces(resolution: int, classifier: str, out: Path) -> Paces:
    from classifiers.recipes.recipe import load_recipe
    from classifiers.study.cost import multiply_adds, seconds_per_image
    from generation.families import load_training_recipe, trainable
    from generation.training.pace import seconds_a_step
    from release.layout.image_sets import load_images

    seconds, batches = {}, {}
    for side in CHAIN[resolution]:
        recipe = load_training_recipe(TRAINING[side]).with_classes_of(str(out / "real"))
        family = trainable(recipe.generator)
        images = [
            load_images(release_path(str(out / "real")), str(s), "train")
            for s in family.sides(recipe)
        ]
        recipe = family.with_images(recipe, images[0].images, str(out / "real"))
        seconds[side] = seconds_a_step(family, recipe, images)
        batches[side] = recipe.training.batch
    trained = load_recipe(classifier)
    classes = len(images[0].class_ids)
    cost = seconds_per_image(trained, classes, multiply_adds(trained, classes), 1)
    return Paces(seconds, batches, cost, os.cpu_count() or 1)


def later_steps(plan: Plan, out: Path) -> list[Step]:
    """What follows the import."""
    training = [
        Step(
            f"the generator's stage at {side} px",
            (
                *("finetune-generator", "--recipe", TRAINING[side], "--split", "train"),
                *("--data", str(out / "real"), "--steps", str(plan.steps[side])),
                *(() if plan.per_class is None else ("--per-class", str(plan.per_class))),
                *("--out", str(out / "runs" / str(side))),
            ),
        )
        for side in plan.chain
    ]
    build = (
        *("build-dataset", "--recipe", str(out / "build.toml")),
        *("--per-class", str(plan.generated), "--out", str(out / "generated")),
    )
    comparing = ("run-study", str(out / "study.toml"), "--out", str(out / "study"))
    return [
        *training,
        Step("its images", build),
        Step("classifiers on real images, generated ones and both", comparing),
    ]


def _answer(out: Path, found: Found, steps: Sequence[Step], log: StepLog) -> tuple[Path, "Verdict"]:
    from cards.trial.page import write_page
    from cards.trial.verdict import verdict
    from classifiers.study.report_model import StudyReport

    report = StudyReport.model_validate_json((out / "study/report.json").read_bytes())
    answer = verdict(report)
    write_atomically(out / ANSWER_FILE, answer.model_dump_json(indent=1).encode())
    return write_page(out, found, report, answer, steps, log), answer


def _read_plan(path: Path) -> Plan | None:
    if not path.is_file():
        return None
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is damaged: remove it, and the trial is planned anew") from None
