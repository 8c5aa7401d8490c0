"""A stage's exemplars, found: which images of which release they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.exemplars.recipe import ExemplarRecipe
from release.classes.class_list import class_difference
from release.errors import UserError
from release.files.storage import ReleasePath, release_path
from release.layout.image_sets import split_files, stated_latents
from release.layout.manifest import Manifest, read_manifest
from release.layout.shard_files import readable, shard_schema


@dataclass(frozen=True)
class LocatedExemplars:
    """release: the folder or URL; sha256: of its content. All but the first decides images."""

    release: str
    sha256: str
    config: str
    split: str
    per_class: int
    strength: float

    def __str__(self) -> str:
        return f"{self.release}:{self.config}:{self.split}"

    @property
    def place(self) -> ReleasePath:
        return release_path(self.release)

    def number(self, index: int) -> int:
        """Which exemplar of its class image `index` begins from."""
        return index % self.per_class

    def identity(self) -> dict[str, Any]:
        """What goes into a stage's fingerprint."""
        return {
            "release": self.sha256,
            "config": self.config,
            "split": self.split,
            "per_class": self.per_class,
            "strength": self.strength,
        }

    def origin(self, named: str) -> dict[str, Any]:
        """What the manifest says of them; named: the release, as the recipe has it."""
        return self.identity() | {"release": named, "sha256": self.sha256}


def stated_exemplars(origin: Mapping[str, Any]) -> LocatedExemplars:
    """What LocatedExemplars.origin said."""
    return LocatedExemplars(
        release=origin["release"],
        sha256=origin["sha256"],
        config=origin["config"],
        split=origin["split"],
        per_class=origin["per_class"],
        strength=origin["strength"],
    )


def locate_exemplars(
    asked: ExemplarRecipe, resolution: int, class_ids: Sequence[str]
) -> LocatedExemplars:
    """Find them for a stage of `resolution` px and classes `class_ids`, in label order.

    A relative path starts where the command runs; workers, wherever they run, get an absolute one.
    UserError for a release that is not finished, not real, of other classes or other content than
    the recipe wants, and for a configuration or split that it does not have.
    """
    place = release_path(asked.release)
    manifest = read_manifest(place)
    _require_real(place, manifest, class_ids)
    if asked.sha256 is not None and asked.sha256 != manifest.content_sha256:
        raise other_content(place, manifest.content_sha256, asked.sha256)
    config = asked.config or str(resolution)
    if config in manifest.training_views:
        raise UserError(
            f"[stage.exemplars] of {place}: configuration {config} is a training view, which the "
            "release's hash does not cover; name the one that it was made from"
        )
    split = asked.split or default_split(place, config)
    split_files(place, config, split)
    return LocatedExemplars(
        release=str(place.absolute()),
        sha256=manifest.content_sha256,
        config=config,
        split=split,
        per_class=asked.per_class,
        strength=asked.strength,
    )


def _require_real(place: ReleasePath, manifest: Manifest, class_ids: Sequence[str]) -> None:
    """UserError unless its images are real, pixels, and of these classes."""
    if manifest.kind != "real" or stated_latents(place) is not None:
        held = "generated images" if manifest.kind != "real" else "latents"
        raise UserError(f"[stage.exemplars]: {place} holds {held}; exemplars are real images")
    difference = class_difference(class_ids, [entry.wnid for entry in manifest.classes])
    if difference is not None:
        raise UserError(
            f"[stage.exemplars]: the recipe and {place} have different class lists: {difference}"
        )


def default_split(place: ReleasePath, config: str) -> str:
    """fit where tuning images are marked, else train."""
    first, *_ = split_files(place, config, "train")
    with readable(first):
        return "fit" if "tuning" in shard_schema(first).names else "train"


def other_content(place: ReleasePath, found: str, wanted: str) -> UserError:
    """For a release that is another, or was changed since."""
    return UserError(
        f"exemplars: release {place} is not the one that is wanted: its content is {found[:12]}…, "
        f"wanted is {wanted[:12]}…; put that one in its place"
    )
