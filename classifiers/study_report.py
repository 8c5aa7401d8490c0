"""What a study found: a table of arms, classes helped and harmed, the paper's findings; JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.manifest import read_manifest
from builder.results import environment, read_result
from classifiers.statistics import (
    Outcomes,
    accuracy,
    ambiguity_effect,
    class_rows,
    confusions,
    difference,
    has_top5,
    name_ambiguity,
    read_outcomes,
)
from classifiers.study import Study, as_record
from classifiers.study_plan import Run
from generation.storage import release_path

Row = dict[str, Any]
Group = tuple[str, int, str]  # model, resolution, size: what arms are compared within


def study_report(
    study: Study, runs: Sequence[Run], chosen: dict[int, tuple[str, ...]], folder: Path
) -> Row:
    """The document. runs: all finished, below the study's `folder`.

    rows: one an arm, with its accuracy and its difference to the real arm of the same classifier,
    size and seeds; classes: of each model's largest size, by generated set; findings: the paper's.
    """
    classes = read_manifest(release_path(study.real.release)).classes
    names = [(entry.wnid, entry.name) for entry in classes]
    arms = _by_arm(runs)
    outcomes = {key: read_outcomes({r.seed: _parquet(r) for r in own}) for key, own in arms.items()}
    rows = [
        _row(own, outcomes[key], outcomes[*key[:3], "real"], len(names), folder)
        for key, own in arms.items()
    ]
    return {
        "study": as_record(study),
        "chosen_settings": {study.models[i].recipe: list(c) for i, c in chosen.items()},
        "test": _test_facts(runs[0]),
        "rows": rows,
        "findings": findings(rows, folder),
        "classes": _class_reports(arms, outcomes, names, [entry.prompt for entry in classes]),
        "environment": environment(),
    }


def _by_arm(runs: Sequence[Run]) -> dict[tuple[str, int, str, str], list[Run]]:
    arms: dict[tuple[str, int, str, str], list[Run]] = {}
    for run in runs:
        own = arms.setdefault((run.model, run.resolution, run.size, run.arm), [])
        if run.seed not in {other.seed for other in own}:
            own.append(run)
    return arms


def _parquet(run: Run) -> Any:
    return run.path.with_suffix(".parquet")


def _test_facts(run: Run) -> Row:
    result = read_result(run.path)
    return {"dataset": result.dataset, **result.reference}


def _row(runs: Sequence[Run], own: Outcomes, real: Outcomes, classes: int, folder: Path) -> Row:
    run = runs[0]
    row: Row = {
        "model": run.model,
        "resolution": run.resolution,
        "size": run.size,
        "arm": run.arm,
        "kind": run.kind,
        "generated": run.generated,
        "regimes": sorted({s["regime"] for s in _sources(run) if s["regime"]}),
        "times": run.times,
        "budget": run.budget,
        "images": run.images,
        "steps": run.steps,
        "seeds": list(own.seeds),
        "top1": accuracy(own, 1),
        "results": [r.path.relative_to(folder).as_posix() for r in runs],
    }
    if has_top5(classes):
        row["top5"] = accuracy(own, 5)
    if run.kind != "real":
        row["difference"] = difference(real, own)
    return row


def _sources(run: Run) -> list[Row]:
    sources: list[Row] = read_result(run.path).subject["train"]
    return sources


def findings(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Azizi et al. 2023, findings 2 and 4, for each classifier, size, generated set and budget.

    The rows' results lie below `folder`.
    A difference counts if its interval excludes 0: that over seeds where there are several, and
    that over test images; else the answer is "not told apart".
    """
    found = []
    for row in rows:
        if row["kind"] in ("generated", "real+generated"):
            below = row["kind"] == "generated"
            found.append(
                {
                    "finding": "2: generated alone stays below real"
                    if below
                    else "2: real + generated is above real",
                    **_where(row),
                    "times": row["times"],
                    "difference": row["difference"]["value"],
                    "answer": _answer(row["difference"], -1 if below else 1),
                }
            )
    for where, curve in _curves(rows).items():
        if len(curve) > 1:
            best = max(curve[:-1], key=lambda row: row["top1"]["mean"])
            fall = _paired(best, curve[-1], folder)
            found.append(
                {
                    "finding": "4: too many generated images hurt",
                    **dict(where),
                    "times": curve[-1]["times"],
                    "best_times": best["times"],
                    "difference": fall["value"],
                    "answer": _answer(fall, -1),
                }
            )
    return found


def _where(row: Row) -> Row:
    return {key: row[key] for key in ("model", "resolution", "size", "generated", "budget")}


def _curves(rows: Sequence[Row]) -> dict[tuple[tuple[str, Any], ...], list[Row]]:
    """Rows of real + k x generated, by all but k, k rising."""
    curves: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for row in rows:
        if row["kind"] == "real+generated":
            curves.setdefault(tuple(_where(row).items()), []).append(row)
    return {where: sorted(rows, key=lambda r: r["times"]) for where, rows in curves.items()}


def _paired(best: Row, last: Row, folder: Path) -> Row:
    read = []
    for row in (best, last):
        paths = [folder / name for name in row["results"]]
        seeds = [read_result(path).seeds["classifier"] for path in paths]
        read.append(
            read_outcomes({s: p.with_suffix(".parquet") for s, p in zip(seeds, paths, strict=True)})
        )
    return difference(*read)


def _answer(found: Row, sign: int) -> str:
    intervals = [i for i in (found["over_seeds"], found["over_images"]) if i is not None]
    for low, high in intervals:
        if low <= 0 <= high:
            return "not told apart"
    return "reproduced" if found["value"] * sign > 0 else "not reproduced"


def _class_reports(
    arms: dict[tuple[str, int, str, str], list[Run]],
    outcomes: dict[tuple[str, int, str, str], Outcomes],
    names: Sequence[tuple[str, str]],
    prompts: Sequence[str],
) -> list[Row]:
    """Of every arm of generated images alone against the real one: class by class."""
    ambiguity = name_ambiguity(prompts)
    reports = []
    for key, runs in arms.items():
        if runs[0].kind == "real" or runs[0].kind == "real-repeated":
            continue
        real = outcomes[*key[:3], "real"]
        rows = class_rows(real, outcomes[key], names)
        for row in rows:
            row["ambiguity"] = ambiguity[row["label"]]
        reports.append(
            {
                "model": key[0],
                "resolution": key[1],
                "size": key[2],
                "arm": key[3],
                "helped": sum(row["verdict"] == "helped" for row in rows),
                "harmed": sum(row["verdict"] == "harmed" for row in rows),
                "ambiguity_of_names": ambiguity_effect(rows),
                "confusions": confusions(real, outcomes[key], names),
                "rows": rows,
            }
        )
    return reports


def markdown(document: Row) -> str:
    """The table and the findings, for people to read."""
    test, study = document["test"], document["study"]
    lines = [
        f"# Study {study['name']}",
        "",
        study["description"].strip(),
        "",
        f"Top-1 on {test['n']:,} real images of {test['name']} ({test['split']}), mean ± standard "
        f"deviation over seeds {', '.join(map(str, study['seeds']))}; the last step of each "
        "training. Difference to the real arm in points: paired by seed, with Student's 95% "
        "interval over seeds and over test images.",
    ]
    groups: dict[Group, list[Row]] = {}
    for row in document["rows"]:
        groups.setdefault((row["model"], row["resolution"], row["size"]), []).append(row)
    for (model, resolution, size), rows in groups.items():
        lines += [
            "",
            f"## {model} at {resolution} px, {size} real images of each class",
            "",
            "| training set | regime | images | steps | top-1, % | top-5, % | difference "
            "| over seeds | over images |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|",
            *map(_table_row, rows),
        ]
    lines += ["", "## Findings of Azizi et al. 2023", "", *_finding_lines(document["findings"])]
    lines += ["", "## Classes", "", *_class_lines(document["classes"])]
    return "\n".join([*lines, ""])


def _table_row(row: Row) -> str:
    change = row.get("difference")
    cells = [
        row["arm"],
        ", ".join(row["regimes"]),
        f"{row['images']:,}",
        f"{row['steps']:,}",
        _percent(row["top1"]),
        _percent(row["top5"]) if "top5" in row else "",
        f"{100 * change['value']:+.2f}" if change else "",
        _interval(change["over_seeds"]) if change else "",
        _interval(change["over_images"]) if change else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _percent(score: Row) -> str:
    spread = "" if score["std"] is None else f" ± {100 * score['std']:.2f}"
    return f"{100 * score['mean']:.2f}{spread}"


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f"{100 * ends[0]:+.2f} to {100 * ends[1]:+.2f}"


def _finding_lines(found: Sequence[Row]) -> list[str]:
    return [
        f"- {f['finding']} ({f['model']} at {f['resolution']} px, {f['size']} a class, "
        f"{f['generated']}, k = {f['times']:g}, equal {f['budget']}): "
        f"{100 * f['difference']:+.2f} points, {f['answer']}"
        for f in found
    ]


def _class_lines(reports: Sequence[Row]) -> list[str]:
    lines = []
    for report in reports:
        named = [
            f"{row['name']} {100 * row['difference']:+.1f}"
            for row in sorted(report["rows"], key=lambda row: row["difference"])
            if row["verdict"]
        ]
        effect = report["ambiguity_of_names"]
        rho = "" if effect["spearman"] is None else f"; names: rho {effect['spearman']:+.2f}"
        lines.append(
            f"- {report['model']} at {report['resolution']} px, {report['size']} a class, "
            f"{report['arm']}: {report['helped']} helped, {report['harmed']} harmed of "
            f"{len(report['rows'])}{': ' if named else ''}{', '.join(named[:20])}{rho}"
        )
    return lines
