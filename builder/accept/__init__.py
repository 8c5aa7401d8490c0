"""Accept rules: which images of a stage are kept. One file each, one interface.

A rule is a module with `Settings`, `locate`, `sha256` and `load`, named in a recipe's stage. It
judges an image by itself: a verdict must not depend on the images beside it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from release.commands.named_modules import named_module
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import canonical_json


@dataclass(frozen=True)
class Verdict:
    """reason: why the image is rejected, None if it is kept. score: what the rule measured."""

    reason: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class StageFacts:
    """What a rule may need to know of its stage. class_ids: in label order."""

    resolution: int
    class_ids: tuple[str, ...]
    checkpoint: Path


class AcceptRule(Protocol):
    """A rule, loaded."""

    def judge(self, images: np.ndarray, labels: Sequence[int]) -> Sequence[Verdict]:
        """One verdict for each of uint8[N,H,W,3]; N is the same at every call of a stage."""
        ...


class RuleSource(Protocol):
    """A rule's module. None of ours imports torch before `load`.

    Settings: what a recipe may say; a field that only says where something lies has
    `exclude=True`, since the hash of what lies there decides, not its place.
    locate: the file or folder the rule needs; UserError if it is missing or does not fit.
    sha256: of what is there.
    JUDGES_LABELS = True, where the module has it: a verdict says whether the label is the image's.
    """

    Settings: type[BaseModel]

    def locate(self, settings: Any, stage: StageFacts) -> Path: ...
    def sha256(self, place: Path, settings: Any) -> str: ...
    def load(self, place: Path, settings: Any) -> AcceptRule: ...


@dataclass(frozen=True)
class LocatedRule:
    """A rule with its settings (JSON), found and hashed: what a worker needs to load it."""

    name: str
    settings: str
    place: Path
    sha256: str

    def identity(self) -> dict[str, Any]:
        """All that decides a verdict, and nothing about where things are."""
        settings = rule_source(self.name).Settings.model_validate_json(self.settings)
        return {
            "rule": self.name,
            "settings": settings.model_dump(mode="json"),
            "sha256": self.sha256,
        }

    def load(self) -> AcceptRule:
        """The rule; UserError if what it needs was changed after the build was planned."""
        source = rule_source(self.name)
        settings = source.Settings.model_validate_json(self.settings)
        if source.sha256(self.place, settings) != self.sha256:
            raise UserError(
                f"what accept rule {self.name} judges by ({self.place}) was changed after the "
                "build was planned"
            )
        return source.load(self.place, settings)


MODULES = {
    "classifier-confidence": "builder.accept.classifier_confidence",
    "reference-distance": "builder.accept.reference_distance",
    "safety-checker": "builder.accept.safety_checker",
}


def rule_source(name: str) -> RuleSource:
    """The module of rule `name`: one of ours, or anyone's by its dotted name."""
    members = ("Settings", "locate", "sha256", "load")
    return named_module("accept rule", name, MODULES, members)  # type: ignore[no-any-return]


def locate_rule(name: str, settings: Mapping[str, Any], stage: StageFacts) -> LocatedRule:
    """Check the settings, find and hash what the rule needs; UserError says what does not fit."""
    source = rule_source(name)
    checked = validated(source.Settings, dict(settings), f"accept rule {name}")
    place = source.locate(checked, stage).absolute()  # workers may run in another folder
    text = canonical_json(json.loads(json.dumps(dict(settings))))
    return LocatedRule(name, text, place, source.sha256(place, checked))
