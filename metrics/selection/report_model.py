"""What result.json of `select-sampler` and `select-checkpoint` holds."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from release.results.values import Interval, Part, Report, Value

Kind = Literal["sampler-selection", "checkpoint-selection"]


class Distance(Value):
    """Fréchet distance of n images to reference_n tuning images, and all that its result says."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="allow")

    n: int
    reference_n: int


class Cas(Value):
    """Mean accuracy of classifiers on the n tuning images, and that of each seed."""

    n: int
    by_seed: dict[str, float] = Field(default_factory=dict)


class SelectionPoint(Part):
    """A candidate. settings: what it differs in; stage: what decides its pixels; cas: None where
    none was measured."""

    name: str
    settings: dict[str, Any]
    stage: dict[str, str] = Field(default_factory=dict)
    fd: Distance
    cas: Cas | None


class RunnerUp(Part):
    """The second best, by how much it is worse, and whether that is statistically significant."""

    name: str
    worse_by: float
    interval: Interval | None
    told_apart: bool


class Regret(Part):
    """What choosing by distance loses: a difference of CAS, over points that have one."""

    fd_winner: str | None = None
    cas_winner: str | None = None
    value: float
    interval: Interval | None
    points: int
    seeds: int


class Correlation(Part):
    """Spearman's of FD and CAS over n points, -1 where distance orders them as CAS does."""

    spearman: float | None
    p: float | None = None
    n: int


class Choice(Part):
    """What was found, by point, and which one is chosen: by CAS where it was measured."""

    points: Annotated[tuple[SelectionPoint, ...], Field(min_length=1)]
    chosen: str
    chosen_by: Literal["fd", "cas"]
    runner_up: RunnerUp | None = None
    regret_of_fd: Regret | None = None
    correlation_fd_cas: Correlation | None = None

    @property
    def best(self) -> SelectionPoint:
        """The chosen point."""
        return next(point for point in self.points if point.name == self.chosen)


class SelectionReport(Choice, Report):
    """The choice with all it takes to know what it means."""

    kind: Kind
    dataset: str
    recipe: str
    stage: int
    split: str
    reference: dict[str, Any] = Field(default_factory=dict)
    extractor: str
    per_class: int = 0
    cas_protocol: dict[str, Any] | None
    environment: dict[str, Any] = Field(default_factory=dict)

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The settings that vary, each with its values in order."""
        found: dict[str, list[Any]] = {}
        for name in self.points[0].settings:
            values = sorted({point.settings[name] for point in self.points})
            if len(values) > 1:
                found[name] = values
        return found
