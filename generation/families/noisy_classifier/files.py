"""Classifiers of noisy images on disk, without importing torch."""

from collections.abc import Sequence
from pathlib import Path

from generation.denoisers.checkpoint_files import checkpoint_sha256, read_config, resolve
from generation.diffusion.sampler_config import ClassifierGuidance
from generation.families.noisy_classifier.family import FAMILY
from release.errors import UserError


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
            "recipe's classes"
        )
