"""Charts of what was measured and of what was published."""

from collections.abc import Sequence
from typing import Any

from cards.board.agreement import Agreement
from cards.board.published import PublishedRow, read_published
from cards.drawing.charts import distance_chart, gain_chart, scaling_chart
from cards.measured.against_real import baseline_of
from cards.measured.cells import names_of
from cards.measured.class_changes import RULE, changes_between
from cards.measured.rankings import Ranking, Training
from cards.measured.tables import training_name
from cards.pages.facet import ClassView, View

REAL_ONLY_M = 1.2  # millions of real images in the paper's scaling curve


def distance_views(dataset: str, found: Sequence[Agreement]) -> list[View]:
    """CAS against each distance."""
    return [
        View(
            f"{dataset}-{agreement.metric}-{number}",
            f"CAS against {agreement.distance}",
            f"{agreement.settings}. {agreement.correlation}".strip(),
            distance_chart(
                [
                    {"name": p.name, "distance": p.distance, "top1": 100 * p.top1}
                    for p in agreement.points
                ],
                agreement.distance,
            ),
        )
        for number, agreement in enumerate(found)
    ]


def class_views(trainings: Sequence[Ranking[Training]]) -> list[ClassView]:
    """Every measured set with generated images against its real-only baseline, best first."""
    names = names_of(s for r in trainings for row in r.rows for s in row.sources)
    views = []
    for ranking in trainings:
        for row in sorted(ranking.rows, key=lambda row: -row.scores["top1"].mean):
            baseline = baseline_of(ranking, row)
            if row.arm == "real" or not row.per_class or not (baseline and baseline.per_class):
                continue
            changes, why_none = changes_between(baseline, row)
            views.append(
                ClassView(
                    f"{training_name(row, names)}, {row.images:,} images, "
                    f"{ranking.settings['model']} ({ranking.recipe})",
                    f"{baseline.images:,} real images",
                    f"{RULE} {why_none}".strip(),
                    changes,
                    tested=not why_none,
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
            "CAS against FID",
            "Systems at 256 px that have both figures; the same numbers stand in the table.",
            distance_chart(points, "FID to train"),
            published=True,
        ),
        View(
            "published-scaling-curve",
            "More generated images",
            "ResNet-50, 1.2 million real images plus generated ones; bars are one standard "
            "deviation.",
            scaling_chart(lines),
            published=True,
        ),
    ]


def _scaling_point(row: PublishedRow, resolution: str) -> dict[str, Any]:
    top1, std = float(row[f"res{resolution}_top1"]), float(row[f"res{resolution}_std"])
    return {
        "series": f"{resolution} px",
        "images_m": float(row["train_set_m"]),
        "top1": top1,
        "std": std,
        "low": top1 - std,
        "high": top1 + std,
    }


def published_gain_view(beside: str) -> View:
    """The paper's scaling curve on the axes of a measured one; beside: that one's key."""
    rows = read_published("scaling_resnet50")
    points = []
    for side in ("256", "1024"):
        real = float(
            next(r for r in rows if float(r["train_set_m"]) == REAL_ONLY_M)[f"res{side}_top1"]
        )
        for row in rows:
            gain, std = float(row[f"res{side}_top1"]) - real, float(row[f"res{side}_std"])
            points.append(
                {
                    "series": f"generated at {side} px",
                    "budget": "equal epochs",
                    "times": round(float(row["train_set_m"]) / REAL_ONLY_M - 1),
                    "gain": gain,
                    "low": gain - std,
                    "high": gain + std,
                }
            )
    return View(
        f"{beside}-published",
        "The paper's curve: ImageNet-1k, ResNet-50",
        "Another data set and classifier: compare the shape, not the numbers. Azizi et al. 2023, "
        "1.2 million real images; bars are one standard deviation as printed.",
        gain_chart(points),
        published=True,
    )
