"""What a study found, as one document: arms, findings, comparisons, classes helped and harmed."""

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
from classifiers.study_findings import comparisons, findings
from classifiers.study_plan import Run
from generation.storage import release_path

Row = dict[str, Any]


def study_report(
    study: Study, runs: Sequence[Run], chosen: dict[int, tuple[str, ...]], folder: Path
) -> Row:
    """The document. runs: all finished, below the study's `folder`.

    rows: one an arm, with its accuracy and its difference to the real arm of the same classifier,
    size and seeds; findings: the paper's; comparisons: those it lacks; classes: of every arm with
    generated images.
    """
    classes = read_manifest(release_path(study.real.release)).classes
    names = [(entry.wnid, entry.name) for entry in classes]
    arms = _by_arm(runs)
    outcomes = {
        key: read_outcomes({r.seed: r.predictions for r in own}) for key, own in arms.items()
    }
    rows = [
        _row(own, outcomes[key], outcomes[*key[:3], "real"], len(names), folder)
        for key, own in arms.items()
    ]
    return {
        "study": as_record(study),
        "chosen_settings": {study.models[i].recipe: list(c) for i, c in chosen.items()},
        "test": _test_facts(runs[0]),
        "rows": rows,
        "findings": findings(rows, outcomes),
        "comparisons": comparisons(rows, outcomes),
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
