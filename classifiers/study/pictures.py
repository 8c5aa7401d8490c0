"""Pictures of a study: accuracy against the amount of generated images; class by class."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers.study.findings import curves
from classifiers.study.report_model import (
    UNDECIDED,
    Arm,
    StudiedClass,
    StudiedClasses,
    StudyReport,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour and mark of a class's verdict: either alone tells them apart.
VERDICTS = {"": ("#8a8a8a", "o"), "helped": ("#3a7fc1", "^"), "harmed": ("#d0762b", "v")}
MOST_NAMES = 12
FEWEST_NAMES = (
    3  # named though no class differs significantly: which ones to look at with more seeds
)
PER_INCH = 17  # characters of the small print
# Where a name stands beside its mark, in points: the first place that is free is taken.
PLACES = (
    ((6, 0), "left", "center"),
    ((-6, 0), "right", "center"),
    ((0, 6), "center", "bottom"),
    ((0, -6), "center", "top"),
    ((5, 5), "left", "bottom"),
    ((-5, 5), "right", "bottom"),
    ((5, -5), "left", "top"),
    ((-5, -5), "right", "top"),
)


def draw_study(report: StudyReport, folder: Path) -> list[Path]:
    """scaling.png and, with an arm of generated images alone, classes.png."""
    paths = [folder / "scaling.png"]
    draw_scaling(report.rows, paths[0])
    alone = {row.arm for row in report.rows if row.kind == "generated"}
    reports = [one for one in report.classes if one.arm in alone]
    if reports:
        paths.append(folder / "classes.png")
        draw_classes(reports, len(report.seeds), paths[-1])
    return paths


def draw_scaling(rows: Sequence[Arm], path: Path) -> None:
    """Top-1 with its standard deviation over seeds against k, a panel a classifier and size."""
    groups: dict[tuple[str, int, str], list[Arm]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    series = dict.fromkeys(_series(row) for row in rows if row.kind != "real")
    colours = {own: f"C{i % 10}" for i, own in enumerate(series)}
    figure, panels = _panels(len(groups))
    for panel, (group, own) in zip(panels, groups.items(), strict=False):
        (real,) = [row for row in own if row.kind == "real"]
        mean, std = 100 * real.top1.mean, 100 * (real.top1.std or 0)
        panel.axhline(mean, color="black", linewidth=1, label="real")
        panel.axhspan(mean - std, mean + std, color="black", alpha=0.1, linewidth=0)
        _draw_curves(panel, curves(own), colours)
        panel.set_title(f"{group[0]}, {group[1]} px, {group[2]} a class", fontsize=9)
        panel.set(xlabel="k, images for each real one", ylabel="top-1, %")
    _one_legend(figure, panels)
    seeds, n = len(rows[0].seeds), rows[0].top1.n
    spread = "one seed, hence neither bars nor bands"
    if seeds > 1:
        spread = f"mean ± standard deviation over {seeds} seeds (marks and bars; line and band)"
    _caption(
        figure, f"top-1 on {n:,} test images, {spread}; marks of the same k are set side by side"
    )
    _save(figure, path)


def _draw_curves(panel: "Axes", found: Sequence[Sequence[Arm]], colours: dict[str, str]) -> None:
    """Each a little beside the other, so that bars at one k do not hide each other."""
    times = sorted({row.times for curve in found for row in curve})
    if not times:
        return
    wide = times[-1] - times[0] + 1
    gaps = [after - before for before, after in pairwise(times)]
    shift = min(0.016 * wide, 0.7 * min(gaps, default=1) / len(found))
    for i, curve in enumerate(found):
        name, budget = _series(curve[0]), curve[0].budget
        several = curve[0].top1.std is not None
        panel.errorbar(
            [row.times + shift * (i - (len(found) - 1) / 2) for row in curve],
            [100 * row.top1.mean for row in curve],
            [100 * (row.top1.std or 0) for row in curve] if several else None,
            marker="o" if budget == "epochs" else "s",
            markersize=4,
            linewidth=1.2,
            linestyle="-" if budget == "epochs" else "--",
            color=colours[name],
            capsize=2,
            label=name + ("" if budget == "epochs" else ", equal steps"),
        )
    panel.set_xticks(times)
    panel.set_xlim(times[0] - 0.15 * wide, times[-1] + 0.15 * wide)


def _series(row: Arm) -> str:
    return f"{row.kind.replace('+', ' + k x ')} {row.generated or ''}".strip()


def draw_classes(reports: Sequence[StudiedClasses], seeds: int, path: Path) -> None:
    """Each class's top-1 trained on real images against trained on generated ones.

    Without error bars: those of either accuracy alone say nothing of a test that is paired by image
    and by seed and corrected over the classes. Colours and marks are that test's.
    """
    figure, panels = _panels(len(reports))
    named = []
    for panel, report in zip(panels, reports, strict=False):
        rows = report.rows
        for verdict, (colour, mark) in VERDICTS.items():
            own = [row for row in rows if row.verdict == verdict]
            x, y = ([100 * getattr(row, key) for row in own] for key in ("baseline", "other"))
            panel.plot(
                *(x, y, mark),
                markersize=4 if mark == "o" else 5,
                alpha=0.8,
                color=colour,
                label=verdict or UNDECIDED,
            )
        low = min(100 * min(row.baseline, row.other) for row in rows)
        ends = (low - 4, 104)
        panel.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
        panel.set(xlim=ends, ylim=ends)
        panel.set_title(
            f"{report.model}, {report.resolution} px, {report.size} a class\n"
            f"{report.arm}: {report.helped} helped, {report.harmed} harmed of {len(rows)}",
            fontsize=9,
        )
        panel.set(xlabel="trained on real images, top-1, %", ylabel="on generated ones, top-1, %")
        named.append((panel, rows))
    _one_legend(figure, panels)
    _caption(figure, _explained(reports, seeds))
    figure.draw_without_rendering()  # lays the panels out: places of names are known after it
    for panel, rows in named:
        _name_classes(panel, rows)
    _save(figure, path)


def _explained(reports: Sequence[StudiedClasses], seeds: int) -> str:
    counts = sorted({row.n for report in reports for row in report.rows})
    n = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
    mean, verdict = "one seed", "which tells no class apart"
    if seeds > 1:
        mean = f"mean over {seeds} seeds"
        verdict = (
            "significant by both McNemar's test over images and the t test over seeds, "
            "false discovery rate 5%"
        )
    return f"each mark a class: top-1 on its {n} test images, {mean}; {verdict}"


def _name_classes(panel: "Axes", rows: Sequence[StudiedClass]) -> None:
    """Names of the classes that differ significantly, the furthest from the diagonal first.

    A name that finds no place inside the panel, free of marks and other names, is left out.
    """
    told = sum(bool(row.verdict) for row in rows)
    ordered = sorted(rows, key=lambda row: (not row.verdict, -abs(row.gain)))
    inside = panel.get_window_extent()
    taken = [
        _around(panel.transData.transform((100 * row.baseline, 100 * row.other))) for row in rows
    ]
    for row in ordered[: max(FEWEST_NAMES, min(told, MOST_NAMES))]:
        outwards = -1 if row.gain > 0 else 1  # away from the diagonal
        for offset, across, along in sorted(PLACES, key=lambda place: -outwards * place[0][0]):
            name = panel.annotate(
                row.name,
                (100 * row.baseline, 100 * row.other),
                xytext=offset,
                textcoords="offset points",
                fontsize=6,
                ha=across,
                va=along,
            )
            box = name.get_window_extent()
            held = all(inside.contains(*corner) for corner in (box.p0, box.p1))
            if held and not box.count_overlaps(taken):
                taken.append(box)
                break
            name.remove()


def _around(centre: Any) -> Any:
    """The box of a mark at float[2], in pixels."""
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(centre[0] - 3, centre[1] - 3, 6, 6)


def _panels(count: int) -> "tuple[Any, list[Axes]]":
    from matplotlib.figure import Figure

    columns = min(3, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.8 * lines + 0.4), dpi=130, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels


def _one_legend(figure: Any, panels: "Sequence[Axes]") -> None:
    """Below all panels, each label once, in the columns that the figure's width has room for."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    column = 0.7 + max(map(len, handles)) / PER_INCH  # inches: a handle and the longest label
    columns = max(1, int(figure.get_figwidth() / column))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(handles) // columns))
    figure.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )


def _caption(figure: Any, text: str) -> None:
    """Above all panels."""
    wide = int(PER_INCH * figure.get_figwidth())
    figure.suptitle(textwrap.fill(text, wide), fontsize=8)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight")  # a label longer than the figure widens the picture
