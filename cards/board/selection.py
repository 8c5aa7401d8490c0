"""A sampler sweep or a checkpoint selection on the leaderboard."""

from itertools import product
from typing import Any

from cards.drawing.charts import distance_chart, sweep_chart
from cards.drawing.tables import (
    Cell,
    Column,
    Group,
    Row,
    Table,
    count_cell,
    decimals_for,
    signed,
    spread_cell,
    text_cell,
)
from cards.pages.facet import Section, View
from metrics.selection.report_model import SelectionPoint, SelectionReport

NAMES = {"sampler-selection": "Sampler sweep", "checkpoint-selection": "Checkpoints"}
SETTING_LABELS = {
    "guidance": "Guidance w",
    "gamma": "Log-variance \N{GREEK SMALL LETTER GAMMA}",
    "steps": "Steps",
    "eta": "Share of DDPM's noise \N{GREEK SMALL LETTER ETA}",
    "noise_augmentation": "Noise augmentation",
    "black_point": "Black point",
    "spacing_power": "Power of the spacing",
    "method": "Method",
    "run": "Training",
    "step": "Training step",
}
MOST_PANELS = 6


def selection_section(report: SelectionReport, number: int) -> Section:
    """number: tells selections of one data set apart."""
    key = f"{report.dataset}-selection-{number}"
    return Section(
        key,
        selection_title(report),
        tables=(selection_table(report, key),),
        views=tuple(selection_views(report, key)),
    )


def selection_title(report: SelectionReport) -> str:
    """ "Sampler sweep: recipe fashion-mnist, stage 16 px"."""
    return f"{NAMES[report.kind]}: recipe {report.recipe}, stage {report.stage} px"


def selection_table(report: SelectionReport, key: str) -> Table:
    """One row a point, the least distance first."""
    settings = list(report.axes) or ["name"]
    columns = [
        Column(name, SETTING_LABELS.get(name, name), numeric=_is_number(report, name))
        for name in settings
    ]
    points = sorted(report.points, key=lambda point: point.fd.value)
    first = points[0].fd
    return Table(
        f"{key}-points",
        selection_title(report),
        (
            *columns,
            Column("fd", "FD to tuning", better="lower", help=f"features of {report.extractor}"),
            Column("cas", "CAS on tuning, %", better="higher", help="mean over classifier seeds"),
            Column("images", "Images"),
            Column("chosen", "Chosen", numeric=False),
        ),
        (
            Group(
                f"{report.extractor}, {first.n:,} images a point against {first.reference_n:,} "
                f"real ones ({report.split})",
                tuple(Row(_point_cells(report, point, settings)) for point in points),
            ),
        ),
        caption="Settings are chosen on the tuning split, which no generator learned from and no "
        "reported number is taken on; so nothing here ranks with the releases above.",
        footnotes=tuple(_footnotes(report)),
    )


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _is_number(report: SelectionReport, name: str) -> bool:
    return all(isinstance(p.settings.get(name), int | float) for p in report.points)


def _point_cells(
    report: SelectionReport, point: SelectionPoint, settings: list[str]
) -> dict[str, Cell]:
    digits = decimals_for([p.fd.value for p in report.points])
    cells = {
        "fd": spread_cell(point.fd.value, None, point.fd.interval, digits, f"n = {point.fd.n:,}"),
        "images": count_cell(point.fd.n),
    }
    for name in settings:
        value = point.settings.get(name, point.name)
        cells[name] = Cell(_short(value), value)
    if point.cas is not None:
        ends = point.cas.interval and (100 * point.cas.interval[0], 100 * point.cas.interval[1])
        cells["cas"] = spread_cell(100 * point.cas.value, None, ends, 2, f"n = {point.cas.n:,}")
    if point.name == report.chosen:
        cells["chosen"] = text_cell(f"by {report.chosen_by.upper()}")
    return cells


def _footnotes(report: SelectionReport) -> list[str]:
    notes = ["Square brackets are 95% intervals."]
    if report.cas_protocol is not None:
        protocol = report.cas_protocol
        images = protocol.get("images")
        sides = (images["resolution"], protocol["settings"]["resolution"]) if images else None
        resized = f" of {sides[0]} px brought to {sides[1]} px" if sides else ""
        notes.append(
            f"CAS: {protocol['classifier']}, {protocol['per_class']:,} images of each "
            f"class{resized}, classifier seeds {', '.join(map(str, protocol['seeds']))}; "
            "intervals over seeds."
        )
    if (regret := report.regret_of_fd) is not None:
        ends = (
            regret.interval and f" [{100 * regret.interval[0]:.2f}, {100 * regret.interval[1]:.2f}]"
        )
        notes.append(
            f"Choosing by distance alone would lose {100 * regret.value:.2f}{ends or ''} points of "
            f"CAS, among the {regret.points} points that have one, over {regret.seeds} seeds."
        )
    if (rank := report.correlation_fd_cas) is not None and rank.spearman is not None:
        notes.append(f"Rank correlation of FD and CAS {signed(rank.spearman, 2)} (n = {rank.n}).")
    return notes


def selection_views(report: SelectionReport, key: str) -> list[View]:
    """Distance along the first setting that varies, a line a value of the second; CAS against FD.

    Further settings get a chart a combination, the first ones by the distance reached in them.
    """
    axes = report.axes
    numeric = [name for name in axes if _is_number(report, name)]
    views: list[View] = []
    if numeric:
        x = numeric[0]
        rest = [name for name in axes if name != x]
        line, panels = (rest[0] if rest else None), rest[1:]
        for panel in _panels(report, panels):
            shown = [p for p in report.points if all(p.settings[n] == v for n, v in panel.items())]
            words = ", ".join(
                f"{SETTING_LABELS.get(n, n).lower()} {_short(v)}" for n, v in panel.items()
            )
            views.append(
                View(
                    f"{key}-curve-{len(views)}",
                    f"FD along {SETTING_LABELS.get(x, x).lower()}"
                    + (f": {words}" if words else ""),
                    "Fréchet distance to the tuning images; bars are 95% intervals, the ring is "
                    "the chosen point.",
                    sweep_chart(
                        [_curve_point(report, p, x, line) for p in shown],
                        SETTING_LABELS.get(x, x),
                        SETTING_LABELS.get(line, line) if line else "",
                    ),
                )
            )
    judged = [point for point in report.points if point.cas is not None]
    if len(judged) > 1:
        points = [
            {"name": p.name, "distance": p.fd.value, "top1": 100 * p.cas.value}
            for p in judged
            if p.cas is not None
        ]
        views.append(
            View(
                f"{key}-cas",
                "CAS against FD, on the tuning split",
                "The points that have both.",
                distance_chart(points, "FD to tuning"),
            )
        )
    return views


def _panels(report: SelectionReport, names: list[str]) -> list[dict[str, Any]]:
    """Values of `names`, at most MOST_PANELS, those that reach the least distance first."""
    best: dict[tuple[Any, ...], float] = {}
    for point in report.points:
        values = tuple(point.settings[name] for name in names)
        best[values] = min(point.fd.value, best.get(values, point.fd.value))
    known = [v for v in product(*(report.axes[name] for name in names)) if v in best]
    chosen = sorted(known, key=lambda values: best[values])[:MOST_PANELS]
    return [dict(zip(names, values, strict=True)) for values in chosen]


def _curve_point(
    report: SelectionReport, point: SelectionPoint, x: str, line: str | None
) -> dict[str, Any]:
    low, high = point.fd.interval or (point.fd.value, point.fd.value)
    return {
        "name": point.name,
        "x": point.settings[x],
        "line": _short(point.settings[line]) if line else "",
        "fd": point.fd.value,
        "low": low,
        "high": high,
        "chosen": point.name == report.chosen,
    }
