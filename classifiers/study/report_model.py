"""What report.json of `run-study` holds."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from classifiers.recipes.changes import with_changes
from release.results.values import Interval, Part, Report, Share

UNDECIDED = "not significant"
BEFORE = {"not told apart": UNDECIDED}  # as reports of older versions say it
Answered = Annotated[str, BeforeValidator(lambda answer: BEFORE.get(answer, answer))]


class Accuracy(Part):
    """Mean and standard deviation over seeds, of shares of n test images; interval over images."""

    mean: Share
    std: float | None
    by_seed: dict[str, Share] = Field(default_factory=dict)
    n: int
    interval: Interval | None = None


class Difference(Part):
    """Top-1 less the real arm's, in [-1, 1], paired by seed and test image; 95% intervals."""

    value: float
    by_seed: dict[str, float] = Field(default_factory=dict)
    over_seeds: Interval | None
    p_seeds: float | None = None
    over_images: Interval | None
    over_classes: Interval | None = None
    n: int | None = None


class Arm(Part):
    """One training set of a study, for one classifier and number of real images of each class.

    images: of an epoch; results: the result files of its trainings, below the study's folder.
    teachers: SHA-256 of the classifiers that these learned from, if from any.
    """

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
    results: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    top5: Accuracy | None = None
    difference: Difference | None = None

    @property
    def group(self) -> tuple[str, int, str]:
        """Arms of one group may be compared."""
        return self.model, self.resolution, self.size

    @property
    def key(self) -> tuple[str, int, str, str]:
        """Names it among all arms of the study."""
        return (*self.group, self.arm)

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


class Finding(Part):
    """One of the paper's findings, asked of this study: an arm held against another.

    best_times: k of the arm held against, where that is the best of a curve.
    """

    finding: str
    model: str
    resolution: int
    size: str
    arm: str | None = None
    generated: str
    times: float
    budget: str
    against: str | None = None
    best_times: float | None = None
    difference: float
    over_seeds: Interval | None = None
    over_images: Interval | None = None
    answer: Answered

    @property
    def asked(self) -> str:
        return self.finding


class Comparison(Part):
    """A question that the paper lacks: generated images against repeated ones, set against set."""

    question: str
    model: str | None = None
    resolution: int | None = None
    size: str | None = None
    arm: str | None = None
    generated: str | None = None
    times: float | None = None
    budget: str
    against: str | None = None
    difference: float
    over_seeds: Interval | None = None
    over_images: Interval | None = None
    answer: Answered

    @property
    def asked(self) -> str:
        return self.question


class NameAmbiguity(Part):
    """The prompt that a class's is most easily taken for, and their similarity in [-1, 1]."""

    nearest: str
    similarity: float


class StudiedClass(Part):
    """baseline, other: top-1 within the class, means over seeds, with 95% intervals over images.

    gained, lost: test images that one arm gets right more often than the other; p_images, p_seeds,
    p_adjusted: of the two tests, and of the larger, corrected over the classes.
    """

    wnid: str
    name: str
    label: int | None = None
    n: int
    baseline: Share
    other: Share
    gained: int | None = None
    lost: int | None = None
    p_images: float | None = None
    p_seeds: float | None = None
    baseline_interval: Interval | None = None
    other_interval: Interval | None = None
    difference: float | None = None
    p_adjusted: float | None = None
    verdict: Literal["", "helped", "harmed"]
    ambiguity: NameAmbiguity | None = None

    @property
    def gain(self) -> float:
        """other less baseline."""
        return self.other - self.baseline if self.difference is None else self.difference


class AmbiguityEffect(Part):
    """Spearman's of classes' differences with the ambiguity of their names, over n classes."""

    spearman: float | None
    p: float | None = None
    n: int | None = None


class Confusion(Part):
    """How often one class is taken for another under both arms: images, means over seeds."""

    true: str
    predicted: str
    baseline: float
    other: float


class StudiedClasses(Part):
    """One arm's classes against another's. helped, harmed: how many; confusions: most changed."""

    model: str
    resolution: int
    size: str
    arm: str
    against: str
    helped: int = 0
    harmed: int = 0
    ambiguity_of_names: AmbiguityEffect | None = None
    confusions: tuple[Confusion, ...] = ()
    rows: tuple[StudiedClass, ...]


class StudyFacts(Part):
    """What was asked: all of the study's file."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    description: str


class TestSet(Part):
    """The real images that every arm was tested on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    dataset: str
    config: str | None = None
    content_sha256: str | None = None
    n: int
    name: str
    split: str


class StudyReport(Report):
    """rows: one an arm, with its accuracy and its difference to the real arm of the same
    classifier, size and seeds; classes: of every arm against the real one, and of real + generated
    against real images visited as often. chosen_settings: by model, what tuning chose."""

    kind: Literal["study"] = "study"
    study: StudyFacts
    chosen_settings: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    test: TestSet
    rows: Annotated[tuple[Arm, ...], Field(min_length=1)]
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    classes: tuple[StudiedClasses, ...]
    environment: dict[str, Any] = Field(default_factory=dict)

    @property
    def dataset(self) -> str:
        return self.test.dataset

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every arm's trainings."""
        return self.rows[0].seeds

    @property
    def groups(self) -> dict[tuple[str, int, str], list[Arm]]:
        """Arms that may be compared, best first."""
        found: dict[tuple[str, int, str], list[Arm]] = {}
        for arm in sorted(self.rows, key=lambda arm: -arm.top1.mean):
            found.setdefault(arm.group, []).append(arm)
        return {arm.group: found[arm.group] for arm in self.rows}

    def classifier(self, model: str) -> str:
        """A model of the rows as people read it: with what the study, or its tuning, had set."""
        asked = (self.study.model_extra or {}).get("model", ())
        models = dict.fromkeys(arm.model for arm in self.rows)
        if len(asked) != len(models):
            return model
        own = dict(zip(models, asked, strict=True))[model]
        by_recipe = self.chosen_settings.get(own.get("recipe", ""), ())  # in reports of before
        tuned = self.chosen_settings.get(model, by_recipe)
        return with_changes(model, [*own.get("set", ()), *tuned])
