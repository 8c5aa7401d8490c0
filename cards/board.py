"""The leaderboard's content: one facet a data set, each with its tables, views and samples."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cards.charts import Spec, class_chart, distance_chart, scaling_chart
from cards.class_changes import ClassChange, class_changes
from cards.measured import (
    Ranking,
    Scored,
    Training,
    baseline_of,
    classifier_rankings,
    score_rankings,
)
from cards.measured_tables import (
    SCORE_NAMES,
    extractor_name,
    find_scored,
    names_of,
    scores_table,
    training_table,
)
from cards.published import DATASET, published_tables, read_published
from cards.result_schema import AnyResult
from cards.sample_grid import read_samples, row_png
from cards.tables import Table
from generation.storage import ReleasePath

TITLES = {DATASET: "ImageNet-1k", "fashion-mnist": "Fashion-MNIST", "digits": "Digits"}
VERDICTS = ("", "helped", "harmed")


@dataclass(frozen=True)
class View:
    """A chart: Vega-Lite specification, and what it shows in words."""

    key: str
    title: str
    caption: str
    spec: Spec


@dataclass(frozen=True)
class ClassView:
    """Per-class accuracy of one training set against the real-only run of the same recipe."""

    label: str
    baseline: str
    changes: tuple[ClassChange, ...]

    def packed(self, number: Mapping[str, int]) -> dict[str, Any]:
        """For the page: a row a class, its name by number, percentages to one decimal."""
        rows = [
            [
                number[c.name],
                c.n,
                *(round(100 * share, 1) for share in (c.real, c.other, c.low, c.high)),
                VERDICTS.index(c.verdict),
            ]
            for c in self.changes
        ]
        return {"label": self.label, "baseline": self.baseline, "rows": rows}


@dataclass(frozen=True)
class SampleFigure:
    """rows: class name and data URI of its images side by side."""

    title: str
    caption: str
    side: int
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Facet:
    """All that is known about one data set. Facets never share a table."""

    key: str
    title: str
    tables: tuple[Table, ...]
    views: tuple[View, ...]
    class_views: tuple[ClassView, ...]
    class_spec: Spec
    samples: tuple[SampleFigure, ...]


def assemble_board(
    results: Sequence[AnyResult], releases: Sequence[ReleasePath]
) -> tuple[Facet, ...]:
    """Facets of what was measured, by name, then ImageNet-1k's with the published figures."""
    trainings = classifier_rankings(results)
    scores = score_rankings(results)
    figures: dict[str, list[SampleFigure]] = {}
    for release in releases:
        dataset, figure = sample_figure(release)
        figures.setdefault(dataset, []).append(figure)
    measured = {r.dataset for r in trainings} | {r.dataset for r in scores} | set(figures)
    datasets = [*sorted(measured - {DATASET}), DATASET]
    return tuple(
        _facet(
            name,
            [r for r in trainings if r.dataset == name],
            [r for r in scores if r.dataset == name],
            figures.get(name, []),
        )
        for name in datasets
    )


def _facet(
    dataset: str,
    trainings: Sequence[Ranking[Training]],
    scores: Sequence[Ranking[Scored]],
    samples: Sequence[SampleFigure],
) -> Facet:
    tables = []
    if trainings:
        tables.append(training_table(dataset, trainings, scores))
    if scores:
        tables.append(scores_table(dataset, scores))
    views = distance_views(dataset, trainings, scores)
    if dataset == DATASET:
        tables += published_tables()
        views += published_views()
    return Facet(
        key=dataset,
        title=TITLES.get(dataset, dataset),
        tables=tuple(tables),
        views=tuple(views),
        class_views=tuple(class_views(trainings)),
        class_spec=class_chart(),
        samples=tuple(samples),
    )


def distance_views(
    dataset: str, trainings: Sequence[Ranking[Training]], scores: Sequence[Ranking[Scored]]
) -> list[View]:
    """CAS against each distance, where one ranking of each has two generated sets in common."""
    names = names_of(s for r in trainings for row in r.rows for s in row.sources)
    views: list[View] = []
    for ranking in trainings:
        for scored in scores:
            pairs = [(row, find_scored(scored, row)) for row in ranking.rows]
            for key in ("fd_train", "fd_test"):
                points = [
                    {
                        "name": names[row.sources[0].name, row.sources[0].content_sha256],
                        "distance": match.scores[key].mean,
                        "top1": 100 * row.scores["top1"].mean,
                    }
                    for row, match in pairs
                    if row.arm == "generated" and match is not None and key in match.scores
                ]
                if len(points) < 2:
                    continue
                distance = SCORE_NAMES[key][0]
                views.append(
                    View(
                        f"{dataset}-{key}-{len(views)}",
                        f"CAS against {distance}",
                        f"{ranking.settings['model']}, recipe {ranking.settings['recipe']}; "
                        f"{extractor_name(scored.settings)}.",
                        distance_chart(points, distance),
                    )
                )
    return views


def published_views() -> list[View]:
    """The published CAS against FID at 256 px, and the paper's scaling curves."""
    fids = {(r["system"], r["resolution"]): r["fid_train"] for r in read_published("generators")}
    points = [
        {"name": r["training_data"], "distance": float(fid), "top1": float(r["top1"])}
        for r in read_published("cas_resnet50")
        if (fid := fids.get((r["training_data"], r["resolution"])))
    ]
    lines = [
        _scaling_point(row, resolution)
        for row in read_published("scaling_resnet50")
        for resolution in ("256", "1024")
    ]
    return [
        View(
            "published-cas-fid",
            "CAS against FID, as published",
            "Systems at 256 px that have both figures; the same numbers stand in the table.",
            distance_chart(points, "FID to train"),
        ),
        View(
            "published-scaling-curve",
            "More generated images, as published",
            "ResNet-50, 1.2 million real images plus generated ones; bars are one standard "
            "deviation.",
            scaling_chart(lines),
        ),
    ]


def _scaling_point(row: dict[str, str], resolution: str) -> dict[str, Any]:
    top1, std = float(row[f"res{resolution}_top1"]), float(row[f"res{resolution}_std"])
    return {
        "series": f"{resolution} px",
        "images_m": float(row["train_set_m"]),
        "top1": top1,
        "std": std,
        "low": top1 - std,
        "high": top1 + std,
    }


def class_views(trainings: Sequence[Ranking[Training]]) -> list[ClassView]:
    """Every measured set with generated images against its real-only baseline, best first."""
    names = names_of(s for r in trainings for row in r.rows for s in row.sources)
    views = []
    for ranking in trainings:
        for row in sorted(ranking.rows, key=lambda row: -row.scores["top1"].mean):
            baseline = baseline_of(ranking, row)
            if row.arm == "real" or not row.per_class or not (baseline and baseline.per_class):
                continue
            parts = " + ".join(names[s.name, s.content_sha256] for s in row.sources)
            views.append(
                ClassView(
                    f"{parts}, {row.images:,} images, {ranking.settings['model']} "
                    f"({ranking.settings['recipe']})",
                    f"{baseline.images:,} real images",
                    class_changes(baseline.per_class, row.per_class),
                )
            )
    return views


def sample_figure(release: ReleasePath) -> tuple[str, SampleFigure]:
    """Data set of the release, and its first images of each class."""
    samples = read_samples(release)
    rows = [(c.name, row) for c, row in zip(samples.classes, samples.images, strict=True) if row]
    figure = SampleFigure(
        title=f"{samples.release} at {samples.config} px",
        caption=samples.caption,
        side=max(image.shape[0] for _, row in rows for image in row),
        rows=tuple((name, _data_uri(row_png(row, samples.per_class))) for name, row in rows),
    )
    return samples.dataset, figure


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
