"""A study from its plan to its report: what it takes, its trainings, what they found."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from builder.cluster.cluster import Cluster, open_cluster
from classifiers.study.plan import Planner, Run, distinct
from classifiers.study.runs import Trainers, choose_settings
from classifiers.study.study_file import Study
from classifiers.training.default_recipe import lost_colour
from release.commands.progress import progress_bar
from release.files.commit import write_atomically

if TYPE_CHECKING:
    from classifiers.on_cluster.processes import Team, Training
    from classifiers.study.cost import Cost
    from classifiers.study.releases import Missing


def conduct(planner: Planner, trainers: Trainers, as_json: bool) -> None:
    """Every training of the study whose releases are there, then the report."""
    study = planner.study
    _tell_of_colour(planner.runs())
    most = len(planner.runs())
    with open_cluster(trainers.cluster, most, lambda line: _say(line, as_json)) as cluster:
        settings: dict[int, tuple[str, ...]] = {}
        tuning = planner.tuning_runs()
        if tuning:
            every = [run for own in tuning.values() for run in own]
            _perform(cluster, every, trainers.team, "tuning", as_json)
            settings = choose_settings(planner, tuning)
            planner = replace(planner, changes=settings)
        runs = planner.runs()
        _perform(cluster, runs, trainers.team, study.name, as_json)
    _report(study, runs, settings, planner.out, as_json)


def require_shares(planner: Planner, team: "Team") -> None:
    """UserError for a classifier whose batch the processes of a training cannot share."""
    from classifiers.training.loop import require_parts

    if team.size > 1:
        for recipe in {run.model: run.task.recipe for run in planner.runs()}.values():
            require_parts(recipe, planner.study.real.classes, team.size)


def _tell_of_colour(runs: Sequence[Run]) -> None:
    """What models lose that turn colour images grey."""
    for task in {run.model: run.task for run in runs}.values():
        if loss := lost_colour(task.recipe, task.sources()[1]):
            print(f"warning: {loss}", file=sys.stderr, flush=True)


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)


def remaining_costs(planner: Planner, threads: int | None, *, quiet: bool) -> "list[Cost]":
    """Of what is not finished yet. quiet: without progress."""
    from classifiers.study.cost import study_costs

    groups = planner.tuning_runs()
    tuning = [run for own in groups.values() for run in own]
    if planner.placed and all(run.finished for run in tuning):
        planner = replace(planner, changes=choose_settings(planner, groups))
    runs = distinct([*tuning, *planner.runs()])
    missing = [run for run in runs if not run.finished] if planner.placed else runs
    return study_costs(missing, planner.study.real.classes, threads, quiet=quiet)


def tell_costs(
    missing: "Sequence[Missing]", costs: "Sequence[Cost]", workers: int, file: TextIO
) -> None:
    """What is missing and what it takes, line by line."""
    from classifiers.study.cost import cost_lines

    for line in (*(one.as_line() for one in missing), *cost_lines(costs, workers)):
        print(line, file=file, flush=True)


def _perform(cluster: Cluster, runs: Sequence[Run], team: "Team", label: str, quiet: bool) -> None:
    from classifiers.on_cluster.trainings import perform_trainings

    all_images = {run.path: run.seen for run in runs}
    seen = dict.fromkeys(all_images, 0)
    with progress_bar(sum(all_images.values()), label, "images", quiet=quiet) as advance:

        def show(training: "Training", share: float) -> None:
            images = round(share * all_images[training.path])
            advance(images - seen[training.path])
            seen[training.path] = images

        perform_trainings(cluster, [run.training for run in runs], team, show)


def _report(
    study: Study,
    runs: Sequence[Run],
    settings: dict[int, tuple[str, ...]],
    folder: Path,
    as_json: bool,
) -> None:
    from classifiers.study.answer import answer
    from classifiers.study.markdown import markdown
    from classifiers.study.pictures import draw_study
    from classifiers.study.report import study_report

    report = study_report(study, runs, settings, folder)
    write_atomically(folder / "report.md", markdown(report).encode())
    content = json.dumps(report.content(), indent=1) + "\n"
    write_atomically(folder / "report.json", content.encode())
    pictures = draw_study(report, folder)
    if as_json:
        print(json.dumps({"report": str(folder / "report.json")}))
        return
    print(*answer(report), sep="\n")
    print(f"report: {', '.join(map(str, [folder / 'report.md', *pictures]))}")
