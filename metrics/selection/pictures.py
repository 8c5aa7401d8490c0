"""Pictures of a selection: curves with error bars, a heat map, distance against CAS."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.selection.sweep import LABELS, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Rows = Sequence[dict[str, Any]]

WIDE = 5.0  # distances that differ by more than this factor go on a logarithmic scale


def draw_sweep(document: dict[str, Any], grid: Grid, folder: Path) -> list[Path]:
    """curves.png and, for two axes or more, heat-map.png; with CAS also cas.png."""
    axes = grid.axes or ["guidance"]
    rest = axes[2:]
    panels = [
        dict(zip(rest, values, strict=True)) for values in product(*(grid.values[a] for a in rest))
    ]
    rows: Rows = document["points"]
    paths = [folder / "curves.png"]
    _draw_curves(document, grid, axes, panels, paths[0])
    if len(axes) > 1:
        paths.append(folder / "heat-map.png")
        _draw_heat_map(document, grid, axes, panels, paths[-1])
    if sum(row["cas"] is not None for row in rows) > 1:
        paths.append(folder / "cas.png")
        draw_correlation(document, paths[-1])
    return paths


def _draw_curves(
    document: dict[str, Any],
    grid: Grid,
    axes: list[str],
    panels: list[dict[str, float]],
    path: Path,
) -> None:
    figure, subplots = _panels(len(panels), document)
    for subplot, panel in zip(subplots, panels, strict=True):
        lines = grid.values[axes[1]] if len(axes) > 1 else (None,)
        for value in lines:
            wanted = panel if value is None else {**panel, axes[1]: value}
            label = None if value is None else f"{LABELS[axes[1]]} = {value:g}"
            rows = _matching(document["points"], wanted)
            _error_bars(subplot, [row["settings"][axes[0]] for row in rows], rows, label)
        subplot.set(xlabel=LABELS[axes[0]], ylabel=_distance_label(document), title=_title(panel))
        subplot.set_xticks(grid.values[axes[0]])
        if _spread(document) > WIDE:
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
    document: dict[str, Any],
    grid: Grid,
    axes: list[str],
    panels: list[dict[str, float]],
    path: Path,
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    figure, subplots = _panels(len(panels), document, bars=False)
    columns, lines = grid.values[axes[0]], grid.values[axes[1]]
    values = [
        [
            [
                _matching(document["points"], {**panel, axes[0]: x, axes[1]: y})[0]["fd"]["value"]
                for x in columns
            ]
            for y in lines
        ]
        for panel in panels
    ]
    wide = _spread(document) > WIDE
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
    bar = figure.colorbar(image, ax=subplots, label=_distance_label(document))
    if wide:
        _plain_ticks(bar.ax.yaxis)
    figure.savefig(path, dpi=130)


def draw_correlation(document: dict[str, Any], path: Path) -> None:
    """Distance against CAS, one mark a point that has both."""
    figure, (subplot,) = _panels(1, document)
    rows = [row for row in document["points"] if row["cas"] is not None]
    x, y = ([row[k]["value"] for row in rows] for k in ("fd", "cas"))
    spread = _bars(rows, "cas")
    subplot.errorbar(
        x,
        100 * np.array(y),
        xerr=_bars(rows, "fd"),
        yerr=None if spread is None else 100 * spread,
        fmt="o",
        ms=4,
        lw=0.8,
        capsize=2,
    )
    for row in rows:
        subplot.annotate(
            row["name"],
            (row["fd"]["value"], 100 * row["cas"]["value"]),
            fontsize=6,
            xytext=(3, 3),
            textcoords="offset points",
        )
    found = document["correlation_fd_cas"]
    rank = "" if found["spearman"] is None else f", Spearman {found['spearman']:.2f}"
    protocol, cas = document["cas_protocol"], rows[0]["cas"]
    seeds = len(protocol["seeds"])
    trained = rows[0]["fd"]["n"] // document["per_class"] * protocol["per_class"]
    subplot.set(
        xlabel=_distance_label(document), ylabel=f"CAS ({protocol['classifier']}), top-1, %"
    )
    subplot.set_title(
        f"{len(rows)} points{rank}\n"
        f"CAS: trained on {trained:,} images a point, {cas['n']:,} {document['split']} images\n"
        + (
            f"CAS: mean of {seeds} classifier seeds, bars 95% interval over them"
            if seeds > 1
            else "CAS: one classifier seed, hence no bars"
        ),
        fontsize=8,
    )
    figure.savefig(path, dpi=130)


def draw_checkpoints(document: dict[str, Any], path: Path) -> None:
    """Distance by training step, a line a run."""
    figure, (subplot,) = _panels(1, document)
    for run in dict.fromkeys(row["settings"]["run"] for row in document["points"]):
        rows = [row for row in document["points"] if row["settings"]["run"] == run]
        _error_bars(subplot, [row["settings"]["step"] for row in rows], rows, run)
    best = next(row for row in document["points"] if row["name"] == document["chosen"])
    subplot.plot(best["settings"]["step"], best["fd"]["value"], "k*", ms=11, label="chosen")
    subplot.set(xlabel="training step", ylabel=_distance_label(document))
    subplot.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _panels(count: int, document: dict[str, Any], *, bars: bool = True) -> tuple[Any, list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(4.6 * min(count, 3) + 1, 3.6 * -(-count // 3) + 0.6), layout="constrained"
    )
    first = document["points"][0]["fd"]
    explained = "\nbars: 95% interval over the images of the point" if bars else ""
    figure.suptitle(
        f"{document['recipe']}, stage {document['stage']} px\n"
        f"distance: n = {first['n']:,} images a point, {first['reference_n']:,} "
        f"{document['split']} images{explained if first['interval'] else ''}",
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
    y = [row["fd"]["value"] for row in rows]
    subplot.errorbar(x, y, yerr=_bars(rows, "fd"), marker="o", ms=3, lw=1.2, capsize=2, label=label)


def _bars(rows: Rows, key: str) -> np.ndarray | None:
    """float64[2,N]: below and above the value; None where a value has no interval."""
    if any(row[key]["interval"] is None for row in rows):
        return None
    ends = np.array([row[key]["interval"] for row in rows])
    values = np.array([row[key]["value"] for row in rows])
    return np.asarray(np.abs(ends - values[:, None]).T)


def _spread(document: dict[str, Any]) -> float:
    """The greatest distance over the least; 1 where one is not positive."""
    values = [row["fd"]["value"] for row in document["points"]]
    return float(max(values) / min(values)) if min(values) > 0 else 1.0


def _plain_ticks(axis: "Axis") -> None:
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _matching(rows: Rows, wanted: dict[str, float]) -> list[dict[str, Any]]:
    return [row for row in rows if all(row["settings"][k] == v for k, v in wanted.items())]


def _title(panel: dict[str, float]) -> str:
    return ", ".join(f"{LABELS[axis]} = {value:g}" for axis, value in panel.items())


def _distance_label(document: dict[str, Any]) -> str:
    return f"Fréchet distance ({document['extractor']})"
