"""What finetuning.json holds, and which report a JSON document is.

A study of fine-tuning is no command: benchmarks/studies/finetuning.py writes its report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from classifiers.study.report_model import StudyReport
from metrics.selection.report_model import Kind as SelectionKind
from metrics.selection.report_model import SelectionReport
from release.results.values import Interval, Part, Report


class SeedMean(Part):
    """Mean over sampling seeds with its 95% interval; by_seed: each seed's."""

    mean: float
    interval: Interval
    by_seed: tuple[float, ...]


class Generator(Part):
    """Scores of the releases that one generator made: distances, and CAS as a share."""

    fd_train: SeedMean
    fd_test: SeedMean
    cas_top1: SeedMean


class FinetuningReport(Report):
    """finetuning.json: one generator before and after fine-tuning, and others beside it.

    differences: by "A less B", paired by sampling seed. training_seeds: trainings of each
    generator; more than one: each sampling seed has its own.
    """

    kind: Literal["finetuning"] = "finetuning"
    dataset: str
    what: str
    images_per_release: int
    training_seeds: int
    interval: str
    arms: dict[str, Generator]
    differences: dict[str, Generator]

    @property
    def picture(self) -> Path:
        """The first images of each class, before and after."""
        return self.path.with_suffix(".png")


AnyReport = StudyReport | SelectionReport | FinetuningReport
SELECTIONS: tuple[str, ...] = get_args(SelectionKind)


def report_model(content: Any) -> type[AnyReport] | None:
    """Which report the content is, by its `kind`; None if it is none.

    The one place that knows reports from before they said theirs: those of studies and of
    fine-tuning, by what they hold. Of a selection result.json alone is a report: the build.json
    beside it has the same kind and no points.
    """
    if not isinstance(content, Mapping):
        return None
    kind = content.get("kind")
    if kind in SELECTIONS and "points" in content:
        return SelectionReport
    if kind == "study" or (kind is None and {"study", "rows", "findings"} <= content.keys()):
        return StudyReport
    unsaid = kind is None and {"arms", "differences", "images_per_release"} <= content.keys()
    return FinetuningReport if kind == "finetuning" or unsaid else None
