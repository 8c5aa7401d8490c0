"""The leaderboard's data as programs read it: one row a measurement, documented field by field.

docs/leaderboard-data.md describes it, docs/leaderboard.schema.json is its JSON schema. A change
that a reader of the older form would not understand raises SCHEMA_VERSION.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Measurement(BaseModel):
    """One number, with all it takes to know what it means and what it may be compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field(description="the real data set it is about")
    origin: Literal["result", "study", "selection", "finetuning", "published"] = Field(
        description="result: result files; study, selection, finetuning: a report of run-study, "
        "select-*, benchmarks/studies/finetuning.py; published: printed in a paper, not measured "
        "here"
    )
    study: str | None = Field(None, description="the report's name, or the paper")
    ranking: str = Field(
        description="numbers of one metric and split may be compared if this is the same; the "
        "settings of origin result's stand in leaderboard.json under rankings"
    )
    system: str = Field(description="what was measured: a release, a training set, an arm, a point")
    content_sha256: str | None = Field(
        None, description="of the releases it consists of, joined by +"
    )
    images_are: Literal["real", "generated", "real + generated"] | None = Field(
        None, description="real, generated, or real + generated"
    )
    regime: str | None = Field(
        None, description="A, B or C: what the generator saw of the real set"
    )
    config: str | None = Field(None, description="configurations, so side in pixels, joined by +")
    images: int | None = Field(
        None, description="in the system: of the training set an epoch visits, or of the set scored"
    )
    model: str | None = Field(
        None, description="classifier, or network whose features are compared"
    )
    recipe: str | None = Field(
        None, description="the classifier's training recipe, and what was set otherwise"
    )
    metric: str = Field(description="top1, top5, top1_difference, fd, kid, ...")
    split: str | None = Field(None, description="of the reference: train, test, tuning")
    value: float = Field(description="the number, in `unit`")
    unit: Literal["fraction", "number", "seconds"] = Field(
        description="fraction: of 1, also of differences of fractions; number: as the metric has it"
    )
    direction: Literal["higher", "lower"] | None = Field(None, description="what is better")
    std: float | None = Field(None, description="standard deviation over seeds")
    low: float | None = Field(None, description="lower end of the interval")
    high: float | None = Field(None, description="upper end of the interval")
    confidence: Share | None = Field(None, description="of the interval")
    interval_over: Literal["images", "seeds"] | None = Field(
        None, description="what is drawn anew: the images of one run, or the runs"
    )
    n: int | None = Field(None, description="images that the value was taken over")
    seeds: int | None = Field(None, description="runs whose mean it is")
    reference: str | None = Field(
        None, description="the real release it was tested on or compared with"
    )
    reference_sha256: str | None = Field(
        None, description="its content: of the images where a result states it, else of the release"
    )
    protocol_sha256: str | None = Field(None, description="of the settings of the measurement")
    checked: bool | None = Field(
        None, description="whether it was counted again from the predictions of all its runs"
    )
    result_files: tuple[str, ...] = Field((), description="relative to the folder of results")


class ClassComparison(BaseModel):
    """One class after training on a set, and after training on real images alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field(description="the real data set it is about")
    training_set: str = Field(description="the set, its size and the classifier")
    baseline: str = Field(description="what it is compared with")
    class_id: str = Field(description="the class's stable id")
    class_name: str = Field(description="its name")
    n: int = Field(description="test images of the class")
    baseline_top1: Share = Field(description="mean over seeds, a fraction")
    top1: Share = Field(description="the same of the training set")
    difference: float = Field(description="top1 less baseline_top1")
    low: float = Field(description="lower end of the difference's interval, Newcombe's")
    high: float = Field(description="upper end")
    confidence: Share = Field(description="of the interval")
    verdict: Literal["helped", "harmed", "not significant", "not tested"] = Field(
        description="not tested: fewer than three seeds of both, or predictions are missing"
    )


class RankingFacts(BaseModel):
    """What the measurements of one ranking share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranking: str
    dataset: str
    settings: dict[str, Any]


class BoardData(BaseModel):
    """leaderboard.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    measurements: tuple[Measurement, ...]
    classes: tuple[ClassComparison, ...]
    rankings: tuple[RankingFacts, ...]


SCHEMA_VERSION: int = BoardData.model_fields["schema_version"].default
