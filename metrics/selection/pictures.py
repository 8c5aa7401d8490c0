"""Pictures of a selection: curves with error bars, a heat map, distance against CAS."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.selection.report_model import SelectionPoint, SelectionReport
from metrics.selection.sweep import LABELS, Grid
from release.results.values import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Rows = Sequence[SelectionPoint]

WIDE = 5.0  # distances that differ by more than this factor go on a logarithmic scale


def draw_sweep(report: SelectionReport, grid: Grid, folder: Path) -> list[Path]:
    """curves.png and, for two axes or more, heat-map.png; with CAS also cas.png."""
    axes = grid.axes or ["guidance"]
    rest = axes[2:]
    panels = [
        dict(zip(rest, values, strict=True)) for values in product(*(grid.values[a] for a in rest))
    ]
    rows: Rows = report.points
    paths = [folder / "curves.png"]
    _draw_curves(report, grid, axes, panels, paths[0])
    if len(axes) > 1:
        paths.append(folder / "heat-map.png")
        _draw_heat_map(report, grid, axes, panels, paths[-1])
    if sum(row.cas is not None for row in rows) > 1:
        paths.append(folder / "cas.png")
        draw_correlation(report, paths[-1])
    return paths


def _draw_curves(
    report: SelectionReport,
    grid: Grid,
    axes: list[str],
    panels: list[dict[str, float]],
    path: Path,
) -> None:
    figure, subplots = _panels(len(panels), report)
    for subplot, panel in zip(subplots, panels, strict=True):
        lines = grid.values[axes[1]] if len(axes) > 1 else (None,)
        for value in lines:
            wanted = panel if value is None else {**panel, axes[1]: value}
            label = None if value is None else f"{LABELS[axes[1]]} = {value:g}"
            rows = _matching(report.points, wanted)
            _error_bars(subplot, [row.settings[axes[0]] for row in rows], rows, label)
        subplot.set(xlabel=LABELS[axes[0]], ylabel=_distance_label(report), title=_title(panel))
        subplot.set_xticks(grid.values[axes[0]])
        if _spread(report) > WIDE:
            subplot.set_yscale("log")
            _plain_ticks(subplot.yaxis)
    if len(axes) > 1:
        handles, labels = subplots[0].get_legend_handles_labels()  # the same in each panel
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), 2 * min(len(panels), 3)),
            frameon=False,
            fontsize=8,
        )
    figure.savefig(path, dpi=130)


def _draw_heat_map(
    report: SelectionReport,
    grid: Grid,
    axes: list[str],
    panels: list[dict[str, float]],
    path: Path,
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    figure, subplots = _panels(len(panels), report, bars=False)
    columns, lines = grid.values[axes[0]], grid.values[axes[1]]
    values = [
        [
            [
                _matching(report.points, {**panel, axes[0]: x, axes[1]: y})[0].fd.value
                for x in columns
            ]
            for y in lines
        ]
        for panel in panels
    ]
    wide = _spread(report) > WIDE
    shade = (LogNorm if wide else Normalize)(float(np.min(values)), float(np.max(values)))
    for subplot, panel, table in zip(subplots, panels, values, strict=True):
        image = subplot.imshow(table, cmap="viridis_r", norm=shade, aspect="auto")
        for i, j in product(range(len(lines)), range(len(columns))):
            colour = "white" if shade(table[i][j]) > 0.5 else "black"
            subplot.text(
                j, i, _short(table[i][j]), ha="center", va="center", color=colour, fontsize=8
            )
        subplot.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
        subplot.set_yticks(range(len(lines)), [f"{y:g}" for y in lines])
        subplot.set(xlabel=LABELS[axes[0]], ylabel=LABELS[axes[1]], title=_title(panel))
        subplot.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=subplots, label=_distance_label(report))
    if wide:
        _plain_ticks(bar.ax.yaxis)
    figure.savefig(path, dpi=130)


def draw_correlation(report: SelectionReport, path: Path) -> None:
    """Distance against CAS, one mark a point that has both."""
    figure, (subplot,) = _panels(1, report)
    rows = [(row, row.cas) for row in report.points if row.cas is not None]
    distances, accuracies = [row.fd for row, _ in rows], [cas for _, cas in rows]
    spread = _bars(accuracies)
    subplot.errorbar(
        [fd.value for fd in distances],
        100 * np.array([cas.value for cas in accuracies]),
        xerr=_bars(distances),
        yerr=None if spread is None else 100 * spread,
        fmt="o",
        ms=4,
        lw=0.8,
        capsize=2,
    )
    for row, cas in rows:
        subplot.annotate(
            row.name,
            (row.fd.value, 100 * cas.value),
            fontsize=6,
            xytext=(3, 3),
            textcoords="offset points",
        )
    protocol = report.cas_protocol or {}
    subplot.set(xlabel=_distance_label(report), ylabel=f"CAS ({protocol['classifier']}), top-1, %")
    trained = distances[0].n // report.per_class * protocol["per_class"]
    tested = f"{accuracies[0].n:,} {report.split} images"
    seeds = len(protocol["seeds"])
    subplot.set_title(
        f"{len(rows)} points{_rank(report)}\n"
        f"CAS: trained on {trained:,} images a point, {tested}\n"
        + (
            f"CAS: mean of {seeds} classifier seeds, bars 95% interval over them"
            if seeds > 1
            else "CAS: one classifier seed, hence no bars"
        ),
        fontsize=8,
    )
    figure.savefig(path, dpi=130)


def _rank(report: SelectionReport) -> str:
    found = report.correlation_fd_cas
    if found is None or found.spearman is None:
        return ""
    return f", Spearman {found.spearman:.2f}"


def draw_checkpoints(report: SelectionReport, path: Path) -> None:
    """Distance by training step, a line a run."""
    figure, (subplot,) = _panels(1, report)
    for run in dict.fromkeys(row.settings["run"] for row in report.points):
        rows = [row for row in report.points if row.settings["run"] == run]
        _error_bars(subplot, [row.settings["step"] for row in rows], rows, run)
    best = report.best
    subplot.plot(best.settings["step"], best.fd.value, "k*", ms=11, label="chosen")
    subplot.set(xlabel="training step", ylabel=_distance_label(report))
    subplot.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _panels(count: int, report: SelectionReport, *, bars: bool = True) -> tuple[Any, list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(4.6 * min(count, 3) + 1, 3.6 * -(-count // 3) + 0.6), layout="constrained"
    )
    first = report.points[0].fd
    explained = "\nbars: 95% interval over the images of the point" if bars else ""
    figure.suptitle(
        f"{report.recipe}, stage {report.stage} px\n"
        f"distance: n = {first.n:,} images a point, {first.reference_n:,} "
        f"{report.split} images{explained if first.interval else ''}",
        fontsize=9,
    )
    grid = figure.subplots(-(-count // 3), min(count, 3), squeeze=False, sharey=True)
    subplots = list(grid.flat)
    for subplot in subplots:
        subplot.spines[["top", "right"]].set_visible(False)
    for unused in subplots[count:]:
        unused.set_visible(False)
    return figure, subplots[:count]


def _error_bars(subplot: "Axes", x: Sequence[float], rows: Rows, label: str | None) -> None:
    y = [row.fd.value for row in rows]
    subplot.errorbar(
        x, y, yerr=_bars([row.fd for row in rows]), marker="o", ms=3, lw=1.2, capsize=2, label=label
    )


def _bars(found: Sequence[Value]) -> np.ndarray | None:
    """float64[2,N]: below and above the value; None where a value has no interval."""
    intervals = [one.interval for one in found if one.interval is not None]
    if len(intervals) < len(found):
        return None
    values = np.array([one.value for one in found])
    return np.asarray(np.abs(np.array(intervals) - values[:, None]).T)


def _spread(report: SelectionReport) -> float:
    """The greatest distance over the least; 1 where one is not positive."""
    values = [row.fd.value for row in report.points]
    return float(max(values) / min(values)) if min(values) > 0 else 1.0


def _plain_ticks(axis: "Axis") -> None:
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _matching(rows: Rows, wanted: dict[str, float]) -> list[SelectionPoint]:
    return [row for row in rows if all(row.settings[k] == v for k, v in wanted.items())]


def _title(panel: dict[str, float]) -> str:
    return ", ".join(f"{LABELS[axis]} = {value:g}" for axis, value in panel.items())


def _distance_label(report: SelectionReport) -> str:
    return f"Fréchet distance ({report.extractor})"
