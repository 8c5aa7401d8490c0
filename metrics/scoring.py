"""Scores of releases against every split of a real one: features → states → values → Result."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from builder.results import Result, environment
from generation.commit import canonical_json, sha256_text, write_atomically
from generation.errors import UserError
from metrics.agreement import logit_columns
from metrics.copies import Nearest, name_pairs, nearest_images
from metrics.extractors import Extractor
from metrics.features import iterate_features
from metrics.image_lists import ImageSet
from metrics.metric_list import FAMILIES, NEEDS, Metric, Values, WholeSet, is_possible
from metrics.reference_files import ReferenceFile
from metrics.sample import SAMPLE_IMAGES, Sample

STATE_LAYOUT = 2  # of the states on disk: raised when their fields change
HELD_OUT_SPLITS = ("test", "validation", "tuning")


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

    def score(self, subject: ImageSet, references: Sequence[ImageSet]) -> Result:
        """The values of `subject`; a reference that is the subject itself is left out."""
        for reference in references:
            _require_same_classes(subject, reference)
        self._require_needs(subject)
        images = self._pass(subject, _families(self.metrics.values()))
        others = [r for r in references if r.identity != subject.identity]
        values: Values = {}
        for name, metric in self.metrics.items():
            state = images[metric.family]
            settings = {"metric": name, "settings": self._settings(metric)}
            found = {
                "nothing": lambda m=metric, s=state: m.values(s),
                "references": lambda m=metric, s=state: self._against_all(m, s, others),
                "train": lambda m=metric, s=state: self._against_train(m, s, subject, others),
            }[metric.against]()
            values |= {key: value | settings for key, value in found.items()}
        return self._result(subject, references, _with_class_names(values, subject))

    def _settings(self, metric: Metric) -> dict[str, Any]:
        return metric.settings | ({"sample": self.sample} if "sample" in metric.settings else {})

    def _against_all(self, metric: Metric, state: Any, references: Sequence[ImageSet]) -> Values:
        values: Values = {}
        for reference in references:
            target = self.reference_states(reference)[metric.family]
            found = metric.values(state, target)
            extra = {"reference_n": int(target.n)}
            values |= {f"{key}_{reference.split}": v | extra for key, v in found.items()}
        for file in self.files:
            if metric.family in file.states:
                file.require_protocol(self.extractor.protocol.sha256)
                found = metric.values(state, file.states[metric.family])
                source = {"reference_n": file.n, "reference_sha256": file.sha256}
                values |= {f"{key}_{file.name}": v | source for key, v in found.items()}
        return values

    def _against_train(
        self, metric: Metric, state: Sample, subject: ImageSet, references: Sequence[ImageSet]
    ) -> Values:
        train = next((r for r in references if r.split == "train"), None)
        if train is None:
            return {}  # nothing to have copied from
        nearest = nearest_images(state, iterate_features(train, self.extractor, self.cache))
        held_out = next((r for r in references if r.split in HELD_OUT_SPLITS), None)
        calibration = held_out and self._held_out_nearest(held_out, train)
        values = metric.values(state, nearest, calibration)
        values["nearest"]["pairs"] = name_pairs(
            values["nearest"]["pairs"], subject, train, self.cache
        )
        extra = {"reference_n": train.count(self.cache)}
        return {f"{key}_train": value | extra for key, value in values.items()}

    def _held_out_nearest(self, held_out: ImageSet, train: ImageSet) -> Nearest:
        path = self._reference_path(held_out, f"nearest in {train.identity}")
        if not path.is_file():
            sample = self.reference_states(held_out)["sample"]
            blocks = iterate_features(train, self.extractor, self.cache)
            _save_state(path, nearest_images(sample, blocks))
        return cast(Nearest, _load_state(path, Nearest))

    def reference_states(self, reference: ImageSet) -> dict[str, Any]:
        """Total state of each family measured against: once per content and protocol, on disk."""
        if reference.label not in self._references:
            wanted = _families(m for m in self.metrics.values() if m.against != "nothing")
            paths = {family: self._reference_path(reference, family) for family in wanted}
            new = [family for family, path in paths.items() if not path.is_file()]
            if new:
                for family, state in self._pass(reference, new).items():
                    _save_state(paths[family], state.total)
            else:
                self.on_images(reference.count(self.cache))
            self._references[reference.label] = {
                family: FAMILIES[family].prepare(_load_state(path, FAMILIES[family].reference))
                for family, path in paths.items()
            }
        return self._references[reference.label]

    def _reference_path(self, reference: ImageSet, state: str) -> Path:
        name = {
            **reference.identity,
            "protocol": self.extractor.protocol.sha256,
            "state": state,
            "sample": self.sample,
            "layout": STATE_LAYOUT,
        }
        return self.cache / "references" / f"{sha256_text(canonical_json(name))}.npz"

    def _pass(self, image_set: ImageSet, families: Sequence[str]) -> dict[str, Any]:
        """One pass over the images: a state of each family, merged in plan order."""
        classes = [entry.wnid for entry in image_set.manifest.classes]
        whole = WholeSet(
            n=image_set.count(self.cache),
            per_class=image_set.count_per_class(self.cache),
            sample=self.sample,
            logit_columns=logit_columns(self.extractor.classes, classes),
        )
        merged: dict[str, Any] = {}
        for block in iterate_features(image_set, self.extractor, self.cache, self.on_images):
            for name in families:
                state = FAMILIES[name].of_block(block, whole)
                merged[name] = merged[name].merge(state) if name in merged else state
        if not merged:
            raise UserError(f"{image_set.label} holds no images")
        return merged

    def _require_needs(self, subject: ImageSet) -> None:
        for name, metric in self.metrics.items():
            if not is_possible(metric, self.extractor, subject.manifest.classes):
                raise UserError(
                    f"metric {name!r} needs {NEEDS[metric.needs or 'logits']}; "
                    f"{self.extractor.protocol.extractor} has none"
                )

    def _result(self, subject: ImageSet, references: Sequence[ImageSet], values: Values) -> Result:
        first = references[0]
        sizes = {r.split: r.count(self.cache) for r in references}
        return Result(
            kind="scores",
            dataset=first.manifest.dataset,
            subject=subject.identity
            | {
                "images": subject.count(self.cache),
                "kind": subject.manifest.kind,
                "regime": subject.manifest.regime,
            },
            protocol={"features": asdict(self.extractor.protocol), "precision": "float32"},
            reference={k: v for k, v in first.identity.items() if k != "split"}
            | {"n": sizes}
            | ({"files": {f.name: f.sha256 for f in self.files}} if self.files else {}),
            values=values,
            environment=environment(),
        )


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


def _families(metrics: Iterable[Metric]) -> list[str]:
    return sorted({metric.family for metric in metrics})


def _save_state(path: Path, state: Any) -> None:
    content = BytesIO()
    np.savez(content, **{f.name: getattr(state, f.name) for f in fields(state)})
    write_atomically(path, content.getvalue())


def _load_state(path: Path, kind: type | None) -> Any:
    if kind is None:
        raise ValueError(f"{path}: no metric measures against this state")
    with np.load(path) as stored:
        return kind(**{name: stored[name][()] for name in stored.files})


def _require_same_classes(subject: ImageSet, reference: ImageSet) -> None:
    ours, theirs = subject.manifest, reference.manifest
    if ours.dataset != theirs.dataset or ours.classes != theirs.classes:
        raise UserError(
            f"{ours.name} has the classes of {ours.dataset}, {theirs.name} those of "
            f"{theirs.dataset}: a distance between them would compare class lists"
        )
