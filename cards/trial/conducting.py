"""A trial from the images to its page: import, plan, generator, release, study, answer."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import ValidationError

from cards.trial.kept import told_kept
from cards.trial.log import DONE_FILE, UNFINISHED_FILE, StepLog
from cards.trial.own_images import LOOKED_AT, TESTS, Look, look_at
from cards.trial.plan import (
    BUSY,
    CHAIN,
    LEAST_STEPS,
    TRAINING,
    Asked,
    Found,
    Paces,
    Plan,
    chosen_classifier,
    chosen_resolution,
    make_plan,
    require_resolution,
    require_same,
    told_copies,
)
from cards.trial.recipes import build_recipe, study
from cards.trial.steps import LOCK_FILE, Step, held, run_steps, show_path
from release.classes.class_list import load_classes
from release.commands.command import say
from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.commit import delete_folder, write_atomically
from release.files.storage import release_path
from release.layout.manifest import MANIFEST_FILE, Manifest, read_manifest
from release.layout.shard_files import ORIGINAL, read_shard
from release.real_sources.source import first_few

if TYPE_CHECKING:
    from cards.trial.verdict import Verdict

PLAN_FILE, ANSWER_FILE = "plan.json", "answer.json"
RUNS = "runs"  # the generator's trainings
LOOK_S = 1.0


def conduct(asked: Asked, out: Path, *, quiet: bool) -> tuple[Path, "Verdict"]:
    """The page and the answer. What is done already is not done again."""
    require_own_folder(out)
    _planned(asked, out)
    require_known(asked)
    look = look_at(asked)
    with held(out, quiet=quiet) as lock:
        return _conduct(asked, look, out, lock, quiet=quiet)


def _conduct(
    asked: Asked, look: Look, out: Path, lock: int, *, quiet: bool
) -> tuple[Path, "Verdict"]:
    planned = _planned(asked, out)
    if planned is not None and planned.images not in ("", look.identity):
        raise UserError(
            f"the images of {asked.images} are others than when {out} was begun: name another --out"
        )
    resolution = planned.resolution if planned else _resolution(asked, look)
    log = StepLog(out)
    first = import_step(asked, look, resolution, out)
    if planned is not None and _outdated(planned, out):
        delete_folder(out / RUNS)  # at most a training of the old steps, with no state
        planned = None
    if planned is not None:
        _write_plan(planned, out)
    if not quiet:
        known = [] if planned is None else later_steps(planned, out)
        tell_start([first, *known], log, are_all=planned is not None)
    run_steps([first], log, lock, quiet=quiet)
    found = imported(out / "real", look)
    if not quiet:
        say(str(found))
    if planned is None:
        planned = _plan(asked, found, look, resolution, out, quiet=quiet)
        _write_plan(planned, out)
    plan = planned
    if not quiet:
        say(f"{plan}{told_anew(plan, out)}")
    steps = [first, *later_steps(plan, out)]
    run_steps(steps, log, lock, quiet=quiet)
    return _answer(out, found, plan, steps, log)


def _write_plan(plan: Plan, out: Path) -> None:
    """And what its commands read."""
    write_atomically(out / PLAN_FILE, plan.model_dump_json(indent=1).encode())
    write_atomically(out / "build.toml", build_recipe(plan, out).encode())
    write_atomically(out / "study.toml", study(plan, out).encode())


def tell_start(steps: Sequence[Step], log: StepLog, *, are_all: bool) -> None:
    """What is kept from before; and, where commands are to follow, what a shell needs for them.

    are_all: whether `steps` are all that the trial has; else the others are not planned yet.
    """
    kept = told_kept(steps, log)
    if kept is not None:
        say(kept)
    if not (are_all and all(map(log.is_done, steps))):
        show_path()


def require_own_folder(out: Path) -> None:
    """UserError for a folder that holds something else than a trial, which would be mixed with it.

    A trial that was killed before its plan has its lock alone, or a log of its commands.
    """
    held_here = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if held_here <= {LOCK_FILE}:
        return
    if MANIFEST_FILE in held_here:
        what = "is a release"
    elif held_here.isdisjoint({PLAN_FILE, DONE_FILE, UNFINISHED_FILE}):
        what = "holds other files and no trial"
    else:
        return
    raise UserError(f"--out {out} {what}: name a new or empty folder, or one of a trial of before")


def _planned(asked: Asked, out: Path) -> Plan | None:
    """The plan that the folder holds, with the seeds that are asked for now, which its study takes
    up. UserError if it is of another trial."""
    planned = _read_plan(out / PLAN_FILE)
    if planned is None:
        return None
    require_same(planned, asked, out)
    return planned.model_copy(update={"asked": asked})


def require_known(asked: Asked) -> None:
    """UserError for a resolution or a classifier that there is not."""
    from classifiers.recipes.recipe import load_recipe

    require_resolution(asked)
    if asked.classifier is not None:
        load_recipe(asked.classifier)


def _resolution(asked: Asked, look: Look) -> int:
    import torch

    return chosen_resolution(asked, look.side, torch.cuda.is_available())


def import_step(asked: Asked, look: Look, resolution: int, out: Path) -> Step:
    """The import, with the views that the generator's stages learn from."""
    views = ",".join(map(str, CHAIN[resolution]))
    words = ["build-dataset", "--real", asked.images, "--views", views]
    if look.undivided:
        words += ["--test-share", f"{asked.test_share:g}", "--split-seed", str(asked.split_seed)]
    if asked.crop is not None:
        words += ["--crop", asked.crop]
    if asked.bad_images != "stop":
        words += ["--bad-images", asked.bad_images]
    return Step("the images, as a release", (*words, "--out", str(out / "real")))


def imported(real: Path, look: Look) -> Found:
    """What the release of the real images holds."""
    manifest = read_manifest(release_path(str(real)))
    counts = manifest.per_class("original", "train")
    test_split = next(split for split in TESTS if split in manifest.splits()["original"])
    if lacking := [entry.name for entry in manifest.classes if not counts[entry.wnid]]:
        raise UserError(
            f"train has no image of {first_few(lacking)}, which {test_split} has: put images of "
            "each class there, or take the class away"
        )
    return Found(
        dataset=manifest.dataset,
        classes=len(manifest.classes),
        train=sum(counts.values()),
        least=min(counts[entry.wnid] for entry in manifest.classes),
        most=max(counts[entry.wnid] for entry in manifest.classes),
        test=sum(manifest.per_class("original", test_split).values()),
        test_split=test_split,
        side=look.side,
        colour=look.colour,
        copies=_copies(real, manifest, test_split),
    )


def _copies(real: Path, manifest: Manifest, test_split: str) -> int:
    """How many images of the split that is tested on stand in train, too, byte for byte."""

    def hashes(split: str) -> list[str]:
        files = [r.path for r in manifest.shards if r.config == ORIGINAL and r.split == split]
        columns = [read_shard(real / file, ["original_sha256"]).column(0) for file in files]
        return [value for column in columns for value in column.to_pylist()]

    trained = set(hashes("train"))
    return sum(value in trained for value in hashes(test_split))


def _outdated(planned: Plan, out: Path) -> bool:
    """Whether it was timed on a machine that is much less busy now, and may be made anew."""
    settled = planned.busy <= BUSY or _is_trained(out)
    return not settled and planned.busy - _taken_by_others() > BUSY


def _is_trained(out: Path) -> bool:
    """Whether a training has saved a state, of the steps that the plan says."""
    from generation.training.loop.state_files import STATE_FILE

    return any((out / RUNS).glob(f"*/{STATE_FILE}"))


def told_anew(plan: Plan, out: Path) -> str:
    """How a plan that was timed on a busy machine is timed anew; "" where that is too late."""
    from generation.families import load_training_recipe

    if plan.busy <= BUSY or _is_trained(out):
        return ""
    base = plan.chain[0]
    saved = load_training_recipe(TRAINING[base]).training.save_every
    return (
        f"; Ctrl-C before step {min(saved, plan.steps[base])} of the generator's stage at {base} "
        "px, and run again when the machine is quieter, to time it anew"
    )


def _taken_by_others() -> float:
    """Share of the cores that is busy while this process waits."""
    return float(psutil.cpu_percent(interval=LOOK_S)) / 100


def _plan(
    asked: Asked, found: Found, look: Look, resolution: int, out: Path, *, quiet: bool
) -> Plan:
    classifier = chosen_classifier(asked, resolution, colour=found.colour)
    paces = _paces(resolution, classifier, out, quiet=quiet)
    plan = make_plan(asked, found, resolution, classifier, paces)
    return plan.model_copy(update={"place": str(out), "images": look.identity})


def _paces(resolution: int, classifier: str, out: Path, *, quiet: bool) -> Paces:
    """By a few steps of each training, timed here. quiet: without progress."""
    from classifiers.recipes.recipe import load_recipe
    from classifiers.study.cost import multiply_adds, seconds_per_image

    seconds, batches, busy = {}, {}, _taken_by_others()
    chain = CHAIN[resolution]
    with progress_bar(len(chain) + 1, "timing here", "trainings", quiet=quiet) as advance:
        for side in chain:
            seconds[side], batches[side] = _stage_pace(TRAINING[side], out / "real")
            advance(1)
        trained, classes = load_recipe(classifier), len(load_classes(str(out / "real")))
        cost = seconds_per_image(trained, classes, multiply_adds(trained, classes), 1)
        advance(1)
    return Paces(seconds, batches, cost, os.cpu_count() or 1, busy)


def _stage_pace(name: str, real: Path) -> tuple[float, int]:
    """Seconds of a step of a training recipe on some of the images, and its batch."""
    from generation.families import load_training_recipe, trainable
    from generation.training.data.training_set import Wanted, open_training_set
    from generation.training.pace import seconds_a_step
    from release.streaming.image_cache import DEFAULT_GIGABYTES, image_cache

    recipe = load_training_recipe(name).with_classes_of(str(real))
    family = trainable(recipe.generator)
    wanted = Wanted(release_path(str(real)), "train", family.sides(recipe), LOOKED_AT)
    images = open_training_set(wanted, math.inf, image_cache(None, DEFAULT_GIGABYTES))
    recipe = family.with_images(recipe, images, str(real))
    return seconds_a_step(family, recipe, images), recipe.training.batch


def later_steps(plan: Plan, out: Path) -> list[Step]:
    """What follows the import."""
    training = [
        Step(
            f"the generator's stage at {side} px",
            (
                *("finetune-generator", "--recipe", TRAINING[side], "--split", "train"),
                *("--data", str(out / "real"), "--steps", str(plan.steps[side])),
                *(() if plan.per_class is None else ("--per-class", str(plan.per_class))),
                *("--out", str(out / RUNS / str(side))),
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
        Step("its images", build, reads=out / "build.toml"),
        Step(
            "classifiers on real images, generated ones and both",
            comparing,
            shown=False,
            reads=out / "study.toml",
        ),
    ]


def _answer(
    out: Path, found: Found, plan: Plan, steps: Sequence[Step], log: StepLog
) -> tuple[Path, "Verdict"]:
    from cards.trial.page import write_page
    from cards.trial.verdict import verdict
    from classifiers.study.report_model import StudyReport

    report = StudyReport.model_validate_json((out / "study/report.json").read_bytes())
    answer = verdict(report)
    if found.copies:
        told = f"{told_copies(found.copies)}, and try again with another --out."
        answer = answer.model_copy(update={"sentences": (*answer.sentences, told)})
    if plan.is_least:
        first, headline, *others = answer.sentences
        answer = answer.model_copy(update={"sentences": (first, headline, of_least(plan), *others)})
    write_atomically(out / ANSWER_FILE, answer.model_dump_json(indent=1).encode())
    return write_page(out, found, plan, report, answer, steps, log), answer


def of_least(plan: Plan) -> str:
    """What is said of a generator with a stage that was trained as shortly as any trial's is."""
    return (
        f"The generator was trained for {plan.told_steps}; {LEAST_STEPS} is the least that any "
        "trial gives a stage. Look at its images first: where they show nothing, more --minutes "
        "come before more seeds."
    )


def _read_plan(path: Path) -> Plan | None:
    if not path.is_file():
        return None
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} is damaged, or of something else than a trial: remove it, and the trial is "
            "planned anew, or name another --out"
        ) from None
