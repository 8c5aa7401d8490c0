"""What a study found, as one document: arms, findings, comparisons, classes helped and harmed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classifiers.study.findings import Key, comparisons, findings, with_controls
from classifiers.study.plan import Run
from classifiers.study.report_model import Arm, StudyReport
from classifiers.study.study_file import Study, as_record
from classifiers.training.class_verdicts import (
    ambiguity_effect,
    class_rows,
    confusions,
    name_ambiguity,
)
from classifiers.training.outcomes import (
    Outcomes,
    accuracy,
    has_top5,
    read_outcomes,
)
from classifiers.training.paired_difference import difference
from release.files.storage import release_path
from release.layout.manifest import read_manifest
from release.results.result import environment, read_result

Row = dict[str, Any]


def study_report(
    study: Study, runs: Sequence[Run], chosen: dict[int, tuple[str, ...]], folder: Path
) -> StudyReport:
    """The document. runs: all finished, below the study's `folder`."""
    classes = read_manifest(release_path(study.real.release)).classes
    names = [(entry.wnid, entry.name) for entry in classes]
    arms = _by_arm(runs)
    outcomes = {
        key: read_outcomes({r.seed: r.predictions for r in own}) for key, own in arms.items()
    }
    rows = [
        _arm(own, outcomes[key], outcomes[*key[:3], "real"], len(names), folder)
        for key, own in arms.items()
    ]
    models = list(dict.fromkeys(run.model for run in runs))
    if len(models) != len(study.models):  # not each has an arm
        models = [model.recipe for model in study.models]
    content = {
        "kind": "study",
        "study": as_record(study),
        "chosen_settings": {models[i]: list(c) for i, c in chosen.items()},
        "test": _test_facts(runs[0]),
        "rows": rows,
        "findings": findings(rows, outcomes),
        "comparisons": comparisons(rows, outcomes),
        "classes": _class_reports(rows, outcomes, names, [entry.prompt for entry in classes]),
        "environment": environment(),
    }
    return StudyReport.model_validate(content)


def _by_arm(runs: Sequence[Run]) -> dict[Key, list[Run]]:
    arms: dict[Key, list[Run]] = {}
    for run in runs:
        arms.setdefault((run.model, run.resolution, run.size, run.arm), []).append(run)
    return arms


def _test_facts(run: Run) -> Row:
    result = read_result(run.path)
    return {"dataset": result.dataset, **result.reference}


def _arm(runs: Sequence[Run], own: Outcomes, real: Outcomes, classes: int, folder: Path) -> Arm:
    run, results = runs[0], [read_result(r.path) for r in runs]
    result = results[0]
    sources = result.subject["train"]
    row: Row = {
        "model": run.model,
        "resolution": run.resolution,
        "size": run.size,
        "arm": run.arm,
        "kind": run.kind,
        "generated": run.generated,
        "regimes": sorted({source["regime"] for source in sources if source["regime"]}),
        "times": run.times,
        "budget": run.budget,
        "images": sum(round(source.get("weight", 1) * source["images"]) for source in sources),
        "steps": result.values["steps"],
        "seeds": list(own.seeds),
        "top1": accuracy(own, 1),
        "results": [r.path.relative_to(folder).as_posix() for r in runs],
    }
    if run.task.teacher is not None:
        row["teachers"] = [one.subject["teacher_sha256"] for one in results]
    if has_top5(classes):
        row["top5"] = accuracy(own, 5)
    if run.kind != "real":
        row["difference"] = difference(real, own)
    return Arm.model_validate(row)


def _class_reports(
    rows: Sequence[Arm],
    outcomes: Mapping[Key, Outcomes],
    names: Sequence[tuple[str, str]],
    prompts: Sequence[str],
) -> list[Row]:
    """Class by class: every arm against the real one, and against its control if it has one."""
    ambiguity = name_ambiguity(prompts)
    real = {row.group: row for row in rows if row.kind == "real"}
    pairs = [(row, real[row.group]) for row in rows if row.kind != "real"]
    reports = []
    for row, against in [*pairs, *with_controls(rows)]:
        baseline, own = outcomes[against.key], outcomes[row.key]
        classes = class_rows(baseline, own, names)
        for entry in classes:
            entry["ambiguity"] = ambiguity[entry["label"]]
        reports.append(
            {
                **{key: getattr(row, key) for key in ("model", "resolution", "size", "arm")},
                "against": against.arm,
                "helped": sum(entry["verdict"] == "helped" for entry in classes),
                "harmed": sum(entry["verdict"] == "harmed" for entry in classes),
                "ambiguity_of_names": ambiguity_effect(classes),
                "confusions": confusions(baseline, own, names),
                "rows": classes,
            }
        )
    return reports
