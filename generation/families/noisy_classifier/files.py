"""Classifiers of noisy images on disk, without importing torch."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from generation.denoisers.checkpoint_files import checkpoint_sha256, read_config, resolve
from generation.diffusion.sampler_config import ClassifierGuidance
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.noisy_classifier.family import FAMILY
from release.errors import UserError

MOST_APART = 0.02  # shares of noise: it is asked about a level by the nearest one that it learned


def locate_classifier(guidance: ClassifierGuidance, resolution: int) -> tuple[Path, str]:
    """Folder and hash; UserError if it is none, sees other images, or was changed since a plan."""
    folder = resolve(FAMILY, guidance.checkpoint)
    side = read_config(FAMILY, folder).stage.resolution
    if side != resolution:
        raise UserError(
            f"the classifier {guidance.checkpoint} sees images of {side} px, its stage makes "
            f"{resolution} px ones"
        )
    found = checkpoint_sha256(folder)
    if guidance.sha256 is not None and found != guidance.sha256:
        raise UserError(
            f"the classifier {guidance.checkpoint} has the wrong hash: {found[:12]}… found, "
            f"{guidance.sha256[:12]}… wanted; restore the file or correct the recipe"
        )
    return folder, found


def require_classes(guidance: ClassifierGuidance, folder: Path, prompts: Sequence[str]) -> None:
    """UserError for a class that it does not know."""
    known = set(read_config(FAMILY, folder).classes)
    lacking = [prompt for prompt in prompts if prompt not in known]
    if lacking:
        raise UserError(
            f"the classifier {guidance.checkpoint} knows no class {lacking[0]!r}: train one on the "
            "recipe's classes; it knows them by the prompts of their list, so to guide to a class "
            "leave [prompts] out"
        )


def require_levels(guidance: ClassifierGuidance, folder: Path, schedule: ScheduleConfig) -> None:
    """UserError for noise levels that it never learned. schedule: of the stage that it guides.

    Tables may differ, as levels are told by their ratio of signal and noise.
    """
    problem = levels_problem(read_config(FAMILY, folder).stage.schedule, schedule)
    if problem is not None:
        raise UserError(
            f"the classifier {guidance.checkpoint} {problem}: train one by the schedule of its "
            f"stage, {schedule.name} of {schedule.num_steps} steps"
        )


@lru_cache
def levels_problem(own: ScheduleConfig, wanted: ScheduleConfig) -> str | None:
    """Why a classifier of schedule `own` knows not all levels of `wanted`, in words that follow its
    name."""
    if own.input_scale != wanted.input_scale:
        return (
            f"sees images at input_scale {own.input_scale:g}, its stage makes them at "
            f"{wanted.input_scale:g}"
        )
    learned, asked = (NoiseSchedule(one).noise_shares for one in (own, wanted))
    apart = np.abs(asked[:, None] - learned).min(axis=1)
    if apart.max() <= MOST_APART:
        return None
    return f"knows no noise of share {asked[apart.argmax()]:.2f}, which its stage's schedule has"
