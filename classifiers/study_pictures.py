"""Pictures of a study: accuracy against the amount of generated images; class by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers.study_findings import curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
COLOURS = {"helped": "#3a7fc1", "harmed": "#d0762b", "": "#8a8a8a"}
MOST_NAMES = 12


def draw_study(document: Row, folder: Path) -> list[Path]:
    """scaling.png and, with an arm of generated images alone, classes.png."""
    paths = [folder / "scaling.png"]
    draw_scaling(document["rows"], paths[0])
    alone = {row["arm"] for row in document["rows"] if row["kind"] == "generated"}
    reports = [report for report in document["classes"] if report["arm"] in alone]
    if reports:
        paths.append(folder / "classes.png")
        draw_classes(reports, paths[-1])
    return paths


def draw_scaling(rows: Sequence[Row], path: Path) -> None:
    """Top-1 with its standard deviation over seeds against k, a panel a classifier and size."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["resolution"], row["size"]), []).append(row)
    series = dict.fromkeys(_series(row) for row in rows if row["kind"] != "real")
    colours = {own: f"C{i % 10}" for i, own in enumerate(series)}
    figure, panels = _panels(len(groups))
    for panel, (group, own) in zip(panels, groups.items(), strict=False):
        (real,) = [row for row in own if row["kind"] == "real"]
        mean, std = 100 * real["top1"]["mean"], 100 * (real["top1"]["std"] or 0)
        panel.axhline(mean, color="black", linewidth=1, label="real")
        panel.axhspan(mean - std, mean + std, color="black", alpha=0.1, linewidth=0)
        for curve in curves(own):
            name, budget = _series(curve[0]), curve[0]["budget"]
            panel.errorbar(
                [row["times"] for row in curve],
                [100 * row["top1"]["mean"] for row in curve],
                [100 * (row["top1"]["std"] or 0) for row in curve],
                marker="o" if budget == "epochs" else "s",
                linestyle="-" if budget == "epochs" else "--",
                color=colours[name],
                capsize=3,
                label=name + ("" if budget == "epochs" else ", equal steps"),
            )
        times = sorted({row["times"] for row in own if row["kind"] != "real"})
        if times:
            panel.set_xticks(times)
            panel.set_xlim(times[0] - 0.5, times[-1] + 0.5)
        panel.set_title(f"{group[0]}, {group[1]} px, {group[2]} a class", fontsize=9)
        panel.set(xlabel="k, images for each real one", ylabel="top-1, %")
    _one_legend(figure, panels)
    _save(figure, path)


def _series(row: Row) -> str:
    return f"{row['kind'].replace('+', ' + k x ')} {row['generated'] or ''}".strip()


def _one_legend(figure: Any, panels: "Sequence[Axes]") -> None:
    """Below all panels, each label once."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )


def draw_classes(reports: Sequence[Row], path: Path) -> None:
    """Each class's top-1 trained on real images against trained on generated ones."""
    figure, panels = _panels(len(reports))
    for panel, report in zip(panels, reports, strict=False):
        rows = report["rows"]
        for verdict, colour in COLOURS.items():
            own = [row for row in rows if row["verdict"] == verdict]
            panel.errorbar(
                [100 * row["baseline"] for row in own],
                [100 * row["other"] for row in own],
                xerr=_errors(own, "baseline"),
                yerr=_errors(own, "other"),
                fmt="o",
                markersize=4,
                elinewidth=0.6,
                color=colour,
                label=f"{verdict or 'not told apart'} ({len(own)})",
            )
        low = min(100 * min(row["baseline"], row["other"]) for row in rows) - 3
        panel.plot([low, 100], [low, 100], color="black", linewidth=0.8, linestyle="--")
        widest = sorted(rows, key=lambda row: -abs(row["difference"]))[:MOST_NAMES]
        for row in widest:
            panel.annotate(
                row["name"],
                (100 * row["baseline"], 100 * row["other"]),
                xytext=(4, -7),
                textcoords="offset points",
                fontsize=6,
            )
        title = f"{report['model']}, {report['size']} a class, {report['arm']}"
        panel.set_title(title, fontsize=9)
        panel.set(xlabel="trained on real images, top-1, %", ylabel="on generated ones, top-1, %")
        panel.legend(frameon=False, fontsize=7)
    _save(figure, path)


def _errors(rows: Sequence[Row], key: str) -> Any:
    """Wilson's interval as matplotlib takes it: below and above, in percent, 0 at the ends."""
    below = [max(0.0, 100 * (row[key] - row[f"{key}_interval"][0])) for row in rows]
    above = [max(0.0, 100 * (row[f"{key}_interval"][1] - row[key])) for row in rows]
    return [below, above]


def _panels(count: int) -> "tuple[Any, list[Axes]]":
    from matplotlib.figure import Figure

    columns = min(3, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.8 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
