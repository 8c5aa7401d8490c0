"""Scores of releases against every split of a real one: features → states → values → Result."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from builder.commit import canonical_json, sha256_text, write_atomically
from builder.results import Result, environment
from generation.errors import UserError
from metrics.extractors import Extractor
from metrics.features import ShardFeatures, iterate_features
from metrics.image_lists import ImageSet
from metrics.metric_list import FAMILIES, Metric, Values


@dataclass(frozen=True)
class Scorer:
    """What the releases scored in one command share."""

    extractor: Extractor
    metrics: Mapping[str, Metric]
    cache: Path
    on_images: Callable[[int], None] = lambda _: None
    _references: dict[str, dict[str, Any]] = field(default_factory=dict)

    def score(self, subject: ImageSet, references: Sequence[ImageSet]) -> Result:
        """The values of `subject`; a reference that is the subject itself is left out."""
        for reference in references:
            _require_same_classes(subject, reference)
        images = self._pass(subject, _families(self.metrics.values()))
        values: Values = {}
        for name, metric in self.metrics.items():
            state = images[metric.family]
            settings = {"metric": name, "settings": metric.settings}
            if not metric.against_reference:
                values |= {key: v | settings for key, v in metric.values(state).items()}
                continue
            for reference in references:
                if reference.identity == subject.identity:
                    continue
                target = self.reference_states(reference)[metric.family]
                extra = {"reference_n": int(target.n), **settings}
                found = metric.values(state, target)
                values |= {f"{key}_{reference.split}": v | extra for key, v in found.items()}
        return self._result(subject, references, values)

    def reference_states(self, reference: ImageSet) -> dict[str, Any]:
        """Total state of each family measured against: once per content and protocol, on disk."""
        if reference.label not in self._references:
            wanted = _families(m for m in self.metrics.values() if m.against_reference)
            paths = {family: self._reference_path(reference, family) for family in wanted}
            new = [family for family, path in paths.items() if not path.is_file()]
            if new:
                for family, state in self._pass(reference, new).items():
                    _save_state(paths[family], state.total)
            else:
                self.on_images(reference.count(self.cache))
            self._references[reference.label] = {
                family: _load_state(path, FAMILIES[family].reference)
                for family, path in paths.items()
            }
        return self._references[reference.label]

    def _reference_path(self, reference: ImageSet, family: str) -> Path:
        name = {**reference.identity, "protocol": self.extractor.protocol.sha256, "state": family}
        return self.cache / "references" / f"{sha256_text(canonical_json(name))}.npz"

    def _pass(self, image_set: ImageSet, families: Sequence[str]) -> dict[str, Any]:
        """One pass over the images: a state of each family, merged in plan order."""
        n = image_set.count(self.cache)
        merged: dict[str, Any] = {}
        for shard in iterate_features(image_set, self.extractor, self.cache, self.on_images):
            self._require_logits(shard)
            for name in families:
                state = FAMILIES[name].of_shard(shard, n)
                merged[name] = merged[name].merge(state) if name in merged else state
        if not merged:
            raise UserError(f"{image_set.label} holds no images")
        return merged

    def _require_logits(self, shard: ShardFeatures) -> None:
        for name, metric in self.metrics.items():
            if metric.needs_logits and not shard.logits.shape[1]:
                extractor = self.extractor.protocol.extractor
                raise UserError(f"metric {name!r} needs class logits; {extractor} has none")

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
            reference={k: v for k, v in first.identity.items() if k != "split"} | {"n": sizes},
            values=values,
            environment=environment(),
        )


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
