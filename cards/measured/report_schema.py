"""What the leaderboard needs of reports of studies, selections and fine-tunings, checked.

A report stands for the result files below its folder: it says what they are compared with.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cards.measured.result_schema import Interval, Share, Value


class Part(BaseModel):
    """A piece of a report; what the page does not show is passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Accuracy(Part):
    """Mean and standard deviation over seeds, of shares of n test images; interval over images."""

    mean: Share
    std: float | None
    n: int
    interval: Interval | None = None


class Difference(Part):
    """Top-1 less the real arm's, in [-1, 1], paired by seed and test image; 95% intervals."""

    value: float
    over_seeds: Interval | None
    over_images: Interval | None


class Arm(Part):
    """One training set of a study, for one classifier and number of real images of each class."""

    model: str
    resolution: int
    size: str
    arm: str
    kind: Literal["real", "generated", "real+generated", "real-repeated"]
    generated: str | None
    regimes: tuple[str, ...]
    times: float
    budget: Literal["epochs", "steps"]
    images: int
    steps: int
    seeds: tuple[int, ...]
    top1: Accuracy
    top5: Accuracy | None = None
    difference: Difference | None = None

    @property
    def group(self) -> tuple[str, int, str]:
        """Arms of one group may be compared."""
        return self.model, self.resolution, self.size

    @property
    def label(self) -> str:
        """The training set in words."""
        words = {
            "real": "real",
            "generated": f"{self.times:g} \N{MULTIPLICATION SIGN} {self.generated}",
            "real+generated": f"real + {self.times:g} \N{MULTIPLICATION SIGN} {self.generated}",
            "real-repeated": f"real, visited {1 + self.times:g} times",
        }[self.kind]
        return words + (", equal updates" if self.budget == "steps" else "")


class StudiedClass(Part):
    """baseline, other: top-1 within the class, means over seeds."""

    wnid: str
    name: str
    n: int
    baseline: Share
    other: Share
    verdict: Literal["", "helped", "harmed"]


class StudiedClasses(Part):
    """One arm's classes against another's."""

    model: str
    resolution: int
    size: str
    arm: str
    against: str
    rows: tuple[StudiedClass, ...]


class Finding(Part):
    """One of the paper's findings, asked of this study."""

    finding: str
    model: str
    resolution: int
    size: str
    generated: str
    budget: str
    times: float
    difference: float
    answer: str


class Comparison(Part):
    """A question that the paper lacks: generated images against repeated ones, set against set."""

    question: str
    budget: str
    difference: float
    answer: str


class StudyFacts(Part):
    """What was asked."""

    name: str
    description: str


class TestSet(Part):
    """The real images that every arm was tested on."""

    dataset: str
    name: str
    split: str
    n: int


class StudyReport(Part):
    """report.json of `run-study`."""

    path: Path
    study: StudyFacts
    test: TestSet
    rows: tuple[Arm, ...] = Field(min_length=1)
    classes: tuple[StudiedClasses, ...]
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def dataset(self) -> str:
        return self.test.dataset

    @property
    def groups(self) -> dict[tuple[str, int, str], list[Arm]]:
        """Arms that may be compared, best first."""
        found: dict[tuple[str, int, str], list[Arm]] = {}
        for arm in sorted(self.rows, key=lambda arm: -arm.top1.mean):
            found.setdefault(arm.group, []).append(arm)
        return {arm.group: found[arm.group] for arm in self.rows}


class Distance(Value):
    """Fréchet distance of n images to reference_n tuning images."""

    n: int
    reference_n: int


class SelectionPoint(Part):
    """A candidate. settings: what it differs in; cas: mean accuracy on the tuning images."""

    name: str
    settings: dict[str, Any]
    fd: Distance
    cas: Value | None


class Regret(Part):
    """What choosing by distance loses: a difference of CAS, over points that have one."""

    value: float
    interval: Interval | None
    points: int
    seeds: int


class Correlation(Part):
    """Spearman's of FD and CAS over n points."""

    spearman: float | None
    n: int


class SelectionReport(Part):
    """result.json of `select-sampler` and `select-checkpoint`."""

    path: Path
    dataset: str
    kind: Literal["sampler-selection", "checkpoint-selection"]
    recipe: str
    stage: int
    split: str
    extractor: str
    cas_protocol: dict[str, Any] | None
    points: tuple[SelectionPoint, ...] = Field(min_length=1)
    chosen: str
    chosen_by: Literal["fd", "cas"]
    regret_of_fd: Regret | None = None
    correlation_fd_cas: Correlation | None = None

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The settings that vary, each with its values in order."""
        found: dict[str, list[Any]] = {}
        for name in self.points[0].settings:
            values = sorted({point.settings[name] for point in self.points})
            if len(values) > 1:
                found[name] = values
        return found


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


class FinetuningReport(Part):
    """finetuning.json: one generator before and after fine-tuning, and others beside it.

    differences: by "A less B", paired by sampling seed. training_seeds: trainings of each
    generator; more than one: each sampling seed has its own.
    """

    path: Path
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


Report = StudyReport | SelectionReport | FinetuningReport
