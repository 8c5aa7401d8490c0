"""Scores of releases against every split of a real one: features → states → values → Result."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np

from metrics.features.extractors import Extractor
from metrics.features.image_lists import ImageSet
from metrics.features.release_features import iterate_features, split_identity
from metrics.scoring.metric import Metric, Value, Values, WholeSet
from metrics.scoring.metric_list import (
    NEEDS,
    STATE_KINDS,
    is_possible,
)
from metrics.scoring.reference_files import ReferenceFile
from metrics.scoring.reference_splits import (
    held_out_split,
    others,
    references_needed,
    train_split,
)
from metrics.scoring.result_values import ScoredValue
from metrics.states.agreement import logit_columns
from metrics.states.copies import Nearest, ids_by_key, name_pairs, nearest_images
from metrics.states.sample import SAMPLE_IMAGES, Sample
from release.classes.class_list import same_classes
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.files.hash_named import find_checked, write_checked
from release.results.result import Result, environment

STATE_LAYOUT = 3  # of the states on disk: raised when their fields change


@dataclass(frozen=True)
class Scorer:
    """What the releases scored in one command share.

    sample: images a set that metrics on pairs of images read. files: statistics of other tools.
    """

    extractor: Extractor
    metrics: Mapping[str, Metric]
    cache: Path
    on_images: Callable[[int], None] = lambda _: None
    sample: int = SAMPLE_IMAGES
    files: Sequence[ReferenceFile] = ()
    _references: dict[str, dict[str, Any]] = field(default_factory=dict)
    _identities: dict[str, str] = field(default_factory=dict)

    def require_possible(self, subject: ImageSet, references: Sequence[ImageSet]) -> None:
        """UserError, before any feature is there, for what cannot be scored or compared."""
        for reference in references:
            _require_same_classes(subject, reference)
        for name, metric in self.metrics.items():
            if not is_possible(metric, self.extractor, subject.manifest.classes):
                raise UserError(
                    f"metric {name!r} needs {NEEDS[metric.needs or 'logits']}; "
                    f"{self.extractor.protocol.extractor} has none"
                )
        for file in self.files:
            dimensions = self.extractor.sample.features.shape[1]
            file.require_features(self.extractor.protocol.sha256, dimensions)

    def score(self, subject: ImageSet, references: Sequence[ImageSet]) -> Result:
        """The values of `subject`; a reference that is the subject itself is left out."""
        self.require_possible(subject, references)
        needed = references_needed(self.metrics.values(), references, subject)
        images = self._pass(subject, _state_kinds(self.metrics.values()))
        read = others(needed, subject)
        values: Values = {}
        for name, metric in self.metrics.items():
            state = images[metric.kind]
            found = self._values(metric, state, subject, read)
            settings = {"metric": name, "settings": self._settings(metric)}
            values |= {key: settings | value for key, value in found.items()}
        return self._result(subject, needed, _with_class_names(values, subject))

    def _values(
        self, metric: Metric, state: Any, subject: ImageSet, references: Sequence[ImageSet]
    ) -> Values:
        match metric.against:
            case "nothing":
                return metric.values(state)
            case "references":
                found = self._against_all(metric, state, references)
                return {key: self._named(value, subject) for key, value in found.items()}
            case "train":
                return self._against_train(metric, state, subject, references)
            case "held-out":
                return self._against_held_out(metric, state, references)

    def _named(self, value: Value, subject: ImageSet) -> Value:
        """The images of `easiest` by their ids in place of sampling keys."""
        if "easiest" not in value:
            return value
        ids = ids_by_key(subject, {entry["image"] for entry in value["easiest"]}, self.cache)
        easiest = [entry | {"image": ids[entry["image"]]} for entry in value["easiest"]]
        return value | {"easiest": easiest}

    def _settings(self, metric: Metric) -> dict[str, Any]:
        return metric.settings | ({"sample": self.sample} if "sample" in metric.settings else {})

    def _against_all(self, metric: Metric, state: Any, references: Sequence[ImageSet]) -> Values:
        values: Values = {}
        for reference in references:
            target = self.reference_states(reference)[metric.kind]
            found = metric.values(state, target)
            extra = {"reference_n": int(target.n), "reference_sha256": self._images(reference)}
            values |= {f"{key}_{reference.split}": v | extra for key, v in found.items()}
        for file in self.files:
            if metric.kind in file.states:
                found = metric.values(state, file.states[metric.kind])
                source = {"reference_n": file.n, "reference_sha256": file.sha256}
                values |= {f"{key}_{file.name}": v | source for key, v in found.items()}
        return values

    def _against_train(
        self, metric: Metric, state: Sample, subject: ImageSet, references: Sequence[ImageSet]
    ) -> Values:
        train, held_out = train_split(references), held_out_split(references)
        if train is None:
            return {}  # nothing to have copied from
        nearest = nearest_images(state, iterate_features(train, self.extractor, self.cache))
        calibration = held_out and self._held_out_nearest(held_out, train)
        values = metric.values(state, nearest, calibration)
        values["nearest"]["pairs"] = name_pairs(
            values["nearest"]["pairs"], subject, train, self.cache
        )
        extra = {
            "reference_n": train.count(self.cache),
            "reference_sha256": self._images(train),
        }
        return {f"{key}_train": value | extra for key, value in values.items()}

    def _against_held_out(
        self, metric: Metric, state: Sample, references: Sequence[ImageSet]
    ) -> Values:
        """Nothing of a real split that is one of the two itself, as `ratio_left_out` says."""
        train, held_out = train_split(references), held_out_split(references)
        if train is None or held_out is None:
            return {}
        other = self.reference_states(held_out)[metric.kind]
        target = self.reference_states(train)[metric.beside or metric.kind]
        extra = {
            "reference_n": train.count(self.cache),
            "reference_sha256": self._images(train),
            "held_out_sha256": self._images(held_out),
        }
        found = metric.values(state, other, target)
        return {f"{key}_{held_out.split}": value | extra for key, value in found.items()}

    def _held_out_nearest(self, held_out: ImageSet, train: ImageSet) -> Nearest:
        name = self._state_name(held_out, f"nearest in {_files(train)}")
        path = find_checked(self._states, name, ".npz")
        if path is None:
            sample = self.reference_states(held_out)["sample"]
            blocks = iterate_features(train, self.extractor, self.cache)
            path = self._save_state(name, nearest_images(sample, blocks))
        return cast(Nearest, _load_state(path, Nearest))

    def reference_states(self, reference: ImageSet) -> dict[str, Any]:
        """What metrics measure against, by kind: once per content and protocol, on disk."""
        if reference.label not in self._references:
            wanted = _reference_kinds(self.metrics.values())
            names = {kind: self._state_name(reference, kind) for kind in wanted}
            paths = {f: find_checked(self._states, name, ".npz") for f, name in names.items()}
            new = [kind for kind, path in paths.items() if path is None]
            if new:
                for kind, state in self._pass(reference, new).items():
                    paths[kind] = self._save_state(names[kind], STATE_KINDS[kind].keep(state))
            else:
                self.on_images(reference.count(self.cache))
            self._references[reference.label] = {
                kind: STATE_KINDS[kind].prepare(_load_state(path, STATE_KINDS[kind].reference))
                for kind, path in paths.items()
            }
        return self._references[reference.label]

    @property
    def _states(self) -> Path:
        return self.cache / "references"

    def _save_state(self, name: str, state: Any) -> Path:
        content = BytesIO()
        np.savez(content, **{f.name: getattr(state, f.name) for f in fields(state)})
        return write_checked(self._states, name, ".npz", content.getvalue())

    def _state_name(self, reference: ImageSet, state: str) -> str:
        """Hash of all that decides the state: the very files, since images' ids are in it."""
        facts = {
            "files": _files(reference),
            "split": reference.split,
            "classes": [entry.wnid for entry in reference.manifest.classes],
            "protocol": self.extractor.protocol.sha256,
            "state": state,
            "sample": self.sample,
            "layout": STATE_LAYOUT,
        }
        return sha256_text(canonical_json(facts))

    def _images(self, reference: ImageSet) -> str:
        """Identity of the images of a split that was read, by their pixels and classes."""
        if reference.label not in self._identities:
            self._identities[reference.label] = split_identity(
                reference, self.extractor, self.cache
            )
        return self._identities[reference.label]

    def _pass(self, image_set: ImageSet, kinds: Sequence[str]) -> dict[str, Any]:
        """One pass over the images: a state of each kind, merged in plan order."""
        classes = [entry.wnid for entry in image_set.manifest.classes]
        whole = WholeSet(
            keys=image_set.sorted_keys(self.cache),
            per_class=image_set.count_per_class(self.cache),
            sample=self.sample,
            logit_columns=logit_columns(self.extractor.classes, classes),
        )
        merged: dict[str, Any] = {}
        for block in iterate_features(image_set, self.extractor, self.cache, self.on_images):
            for name in kinds:
                state = STATE_KINDS[name].of_block(block, whole)
                merged[name] = merged[name].merge(state) if name in merged else state
        if not merged:
            raise UserError(f"{image_set.label} holds no images")
        return merged

    def _result(self, subject: ImageSet, needed: Sequence[ImageSet], values: Values) -> Result:
        return Result(
            kind="scores",
            dataset=(needed[0] if needed else subject).manifest.dataset,
            subject=subject.identity
            | {
                "images": subject.count(self.cache),
                "kind": subject.manifest.kind,
                "regime": subject.manifest.regime,
            },
            protocol={"features": asdict(self.extractor.protocol), "precision": "float32"},
            reference=self._reference(needed)
            | ({"files": {f.name: f.sha256 for f in self.files}} if self.files else {}),
            values=_checked(values, subject.label),
            environment=environment(),
        )

    def _reference(self, needed: Sequence[ImageSet]) -> dict[str, Any]:
        """What was measured against; content_sha256 is of the images alone, see images_sha256."""
        if not needed:
            return {}
        images = {r.split: self._images(r) for r in needed}
        return {
            "name": needed[0].manifest.name,
            "config": needed[0].config,
            "content_sha256": sha256_text(canonical_json(images)),
            "n": {r.split: r.count(self.cache) for r in needed},
        }


def _checked(values: Values, label: str) -> Values:
    """As the model of a result has them; UserError for a number that is none."""
    return {
        name: validated(ScoredValue, value, f"{name} of {label}").content()
        for name, value in values.items()
    }


def _with_class_names(values: Values, subject: ImageSet) -> Values:
    """Rows of per_class begin with the class's id and name in place of its label."""
    classes = subject.manifest.classes
    for value in values.values():
        if "per_class" in value:
            value["per_class"] = [
                {"wnid": classes[row["label"]].wnid, "name": classes[row["label"]].name}
                | {key: item for key, item in row.items() if key != "label"}
                for row in value["per_class"]
            ]
    return values


def _state_kinds(metrics: Iterable[Metric]) -> list[str]:
    return sorted({metric.kind for metric in metrics})


def _reference_kinds(metrics: Iterable[Metric]) -> list[str]:
    read = [metric for metric in metrics if metric.against != "nothing"]
    beside = {metric.beside for metric in read if metric.beside is not None}
    return sorted({metric.kind for metric in read} | beside)


def _files(image_set: ImageSet) -> list[str]:
    return [shard.sha256 for shard in image_set.shards()]


def _load_state(path: Path | None, kind: type | None) -> Any:
    if kind is None or path is None:
        raise ValueError(f"{path}: no metric measures against this state")
    with np.load(path) as stored:
        return kind(**{name: stored[name][()] for name in stored.files})


def _require_same_classes(subject: ImageSet, reference: ImageSet) -> None:
    """Of generated images by the data set as well: real ones of another name may be scored."""
    ours, theirs = subject.manifest, reference.manifest
    named_otherwise = ours.kind != "real" and ours.dataset != theirs.dataset
    if named_otherwise or not same_classes(ours.classes, theirs.classes):
        raise UserError(
            f"{ours.name} has the classes of {ours.dataset}, {theirs.name} those of "
            f"{theirs.dataset}{_first_difference(subject, reference)}: a distance between them "
            "would compare class lists"
        )


def _first_difference(subject: ImageSet, reference: ImageSet) -> str:
    """By wnid, as " (class 3 is 'a' in one, 'b' in the other)"."""
    pairs = zip_longest(subject.manifest.classes, reference.manifest.classes)
    for label, (ours, theirs) in enumerate(pairs):
        names = [entry.wnid if entry else None for entry in (ours, theirs)]
        if names[0] != names[1]:
            return f" (class {label} is {names[0]!r} in one, {names[1]!r} in the other)"
    return ""
