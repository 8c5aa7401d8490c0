"""What a trial makes: chosen once, from what the images are and the minutes there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from release.errors import UserError
from release.images.crop_rules import CropRule

CHAIN = {16: (16,), 32: (16, 32), 64: (16, 32, 64)}  # the stages that lead to a resolution
TRAINING = {16: "small-16", 32: "small-32", 64: "small-64"}
COLOUR = {16: "tiny-resnet-32", 32: "tiny-resnet-32", 64: "tiny-resnet-64"}
GREY = {16: "fashion-mnist-small", 32: "fashion-mnist-small", 64: "tiny-resnet-64"}
EVALUATIONS = {16: 2 * 12, 32: 8, 64: 8}  # of a stage's network for an image; guidance takes two
SHARES = {16: (1.0,), 32: (0.6, 0.4), 64: (0.4, 0.3, 0.3)}  # of the generator's time, by stage
GENERATOR_SHARE = 0.75  # of what the classifiers leave of the minutes
LEAST_MAKING_SHARE = 0.1  # of the minutes for making images, however short they are
CLASSIFIERS_SHARE = 0.35  # of the minutes at most, where the images are not very many
STARTS_S = 90.0  # of the commands, import and reports: what no setting here decides
UPDATES, BATCH = 400, 64  # of the classifier on the real images
VISITS = 1 + 1 + 2 + 1 + 2  # of the five arms, in visits of the real images
LEAST_STEPS = 200  # of a generator's stage: below, its images show nothing
ROOM = 1.25  # over the minutes that a plan takes, in what is advised: paces vary
FEW_STEPS = 50  # to which their number is rounded
BUSY = 0.25  # share of the cores: what others took, if more, is told of a plan


class Asked(BaseModel):
    """What the user asked for; None: chosen here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: str
    minutes: Annotated[float, Field(gt=0)]
    res: int | None
    per_class: int | None
    times: float
    seeds: tuple[int, ...]
    test_share: float
    split_seed: int
    classifier: str | None
    bad_images: Literal["stop", "skip"] = "stop"
    crop: CropRule | None = None


@dataclass(frozen=True)
class Found:
    """The imported images. side: the median of the shorter ones', in px; train: images of train;
    least, most: of its rarest and commonest class; copies: test images that stand in train, too."""

    dataset: str
    classes: int
    train: int
    least: int
    most: int
    test: int
    test_split: str
    side: int
    colour: bool
    copies: int = 0

    def __str__(self) -> str:
        colour = "in colour" if self.colour else "grey"
        copies = "" if self.copies == 0 else f"; {told_copies(self.copies)}"
        return (
            f"{self.dataset}: {self.classes} classes, {self.train:,} images to train on "
            f"(the rarest class has {self.least:,}), {self.test:,} to test on, {colour}, "
            f"their shorter sides {self.side} px by the median{copies}"
        )


@dataclass(frozen=True)
class Paces:
    """Measured here: seconds of a step of 64 images by stage; of a classifier's step, an image.

    busy: share of the cores that other programs took just before.
    """

    stages: dict[int, float]
    batches: dict[int, int]
    classifier: float
    workers: int
    busy: float = 0.0


class Plan(BaseModel):
    """All that a trial's commands are made from, so that a rerun makes the same ones.

    per_class: real images of each class, None for all; mean_per_class: of those, on average;
    real_per_class: of all there are, 0 in plans of before it was told. times: generated images for
    each real one. generated: of each class. images: identity of the images as they were looked at,
    "" in plans of before. minutes: by the paces of this machine. place: the trial's folder,
    which the commands and what they record name; "" in plans of before it was told. busy: share of
    the cores that other programs took when it was timed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: Asked
    dataset: str
    classes: int
    test_split: str
    resolution: int
    steps: dict[int, int]
    per_class: int | None
    mean_per_class: float
    real_per_class: float = 0.0
    times: float
    generated: int
    classifier: str
    epochs: int
    minutes: float
    place: str = ""
    images: str = ""
    busy: float = 0.0

    @property
    def is_least(self) -> bool:
        """Whether a stage of the generator gets no more steps than any trial gives."""
        return min(self.steps.values()) <= LEAST_STEPS

    @property
    def chain(self) -> tuple[int, ...]:
        """Resolutions of the stages, the base first."""
        return CHAIN[self.resolution]

    @property
    def told_steps(self) -> str:
        """Of each stage, in words."""
        return " and ".join(f"{self.steps[side]:,} steps at {side} px" for side in self.chain)

    def __str__(self) -> str:
        seeds = len(self.asked.seeds)
        least = ", the least that says something" if self.minutes > self.asked.minutes else ""
        return (
            f"plan, about {math.ceil(self.minutes)} min here{told_busy(self.busy)}{least}: "
            f"a generator ({self.told_steps}), "
            f"{self.generated * self.classes:,} images of it, {5 * seeds} trainings of "
            f"{self.classifier} ({seeds} seed{'' if seeds == 1 else 's'} of real, generated, both, "
            "both at equal updates, real visited twice)"
        )


def told_copies(copies: int) -> str:
    """What is said of test images that were trained on."""
    many = "1 test image is a copy" if copies == 1 else f"{copies:,} test images are copies"
    return f"{many} of training images, which makes every accuracy look better: take them away"


def told_busy(share: float) -> str:
    """What is said beside a time that was measured on a busy machine."""
    return f", timed while others took {share:.0%} of the cores" if share > BUSY else ""


def require_resolution(asked: Asked) -> None:
    """UserError for one that no recipes lead to."""
    if asked.res is not None and asked.res not in CHAIN:
        raise UserError(f"--res {asked.res}: known are {', '.join(map(str, CHAIN))}")


def chosen_resolution(asked: Asked, side: int, has_gpu: bool) -> int:
    """What was asked for; else what the images have, and on CPUs 32 px at most."""
    if asked.res is not None:
        return asked.res
    most = 64 if has_gpu else 32
    return max(res for res in CHAIN if res <= max(min(side, most), min(CHAIN)))


def chosen_classifier(asked: Asked, resolution: int, *, colour: bool) -> str:
    """A built-in recipe or what was asked for."""
    return asked.classifier or (COLOUR if colour else GREY)[resolution]


def make_plan(asked: Asked, found: Found, resolution: int, classifier: str, paces: Paces) -> Plan:
    """What fits into the minutes. UserError if the least that makes sense takes twice as many."""
    there = mean = found.train / found.classes
    per_class = None if (asked.per_class or found.most) >= found.most else asked.per_class
    if per_class is not None:
        _require_mean(per_class, found)
        mean = per_class
    real = mean * found.classes
    seconds = 60 * asked.minutes
    # the rarest class has to have the epochs' worth of updates, too: all see as many
    seen = UPDATES * BATCH * VISITS * len(asked.seeds)
    share = CLASSIFIERS_SHARE * seconds / (seen * paces.classifier / paces.workers)
    epochs = max(1, round(min(1.0, share) * UPDATES * BATCH / real))
    classifying = epochs * real * VISITS * len(asked.seeds) * paces.classifier / paces.workers
    left = max(0.0, seconds - STARTS_S - classifying)
    steps = _steps(resolution, GENERATOR_SHARE * left, paces)
    training = sum(steps[side] * paces.stages[side] for side in CHAIN[resolution])
    each = sum(EVALUATIONS[s] * paces.stages[s] / paces.batches[s] / 3 for s in CHAIN[resolution])
    affordable = max((1 - GENERATOR_SHARE) * left, LEAST_MAKING_SHARE * seconds) / each
    times = min(asked.times, max(1.0 / mean, round(affordable / real, 2)))
    generated = max(1, round(times * mean))
    total = STARTS_S + classifying + training + generated * found.classes * each
    plan = Plan(
        asked=asked,
        dataset=found.dataset,
        classes=found.classes,
        test_split=found.test_split,
        resolution=resolution,
        steps=steps,
        per_class=per_class,
        mean_per_class=mean,
        real_per_class=there,
        times=times,
        generated=generated,
        classifier=classifier,
        epochs=epochs,
        minutes=total / 60,
        busy=paces.busy,
    )
    if total > 2 * seconds:
        roomy = math.ceil(ROOM * plan.minutes)
        ways = [f"--minutes {roomy}"]
        ways += ["--res 16"] if resolution > min(CHAIN) else []
        ways += ["one seed (--seeds 0)"] if len(asked.seeds) > 1 else []
        later = ", or try again when these are done" if paces.busy > BUSY else ""
        raise UserError(
            f"--minutes {asked.minutes:g}: the least that says something about {real:,.0f} images "
            f"takes about {plan.minutes:.0f} min here, {roomy} with room to spare"
            f"{told_busy(paces.busy)}; give "
            f"{' or '.join(ways)}{later}"
        )
    return plan


def _require_mean(per_class: int, found: Found) -> None:
    """UserError for more images than a class has on average, and fewer than some have: how many
    images that makes is known of neither."""
    mean = found.train / found.classes
    if per_class > mean:
        raise UserError(
            f"--per-class {per_class}: a class has {mean:g} images on average, the commonest "
            f"{found.most}: give {int(mean)} at most, or leave it out to take all"
        )


def _steps(resolution: int, seconds: float, paces: Paces) -> dict[int, int]:
    """Of each stage, in its share of the time."""
    from generation.families import load_training_recipe

    found = {}
    for side, share in zip(CHAIN[resolution], SHARES[resolution], strict=True):
        most = load_training_recipe(TRAINING[side]).training.steps
        affordable = int(share * seconds / paces.stages[side]) // FEW_STEPS * FEW_STEPS
        found[side] = min(most, max(LEAST_STEPS, affordable))
    return found


def require_same(plan: Plan, asked: Asked, out: Path) -> None:
    """UserError if the folder's trial was asked for otherwise, or made in another place.

    Other seeds are no other trial.
    """
    before, now = (of.model_dump(exclude={"seeds"}) for of in (plan.asked, asked))
    changed = [
        f"{name} was {_told(before[name])}, is {_told(now[name])}"
        for name in now
        if before[name] != now[name]
    ]
    if changed:
        raise UserError(
            f"--out {out} holds another trial: {'; '.join(changed)}; give these as they were, or "
            "name another --out"
        )
    if plan.place != str(out):
        why = f"made in {plan.place}, which its files name: move it back"
        if not plan.place:
            why = "of an earlier version, which named its files otherwise: finish it with that one"
        raise UserError(f"--out {out} holds a trial {why}, or name another --out")


def _told(value: Any) -> str:
    if value is None:
        return "not given"
    return (
        ",".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )
