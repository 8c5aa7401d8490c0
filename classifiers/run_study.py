"""The command `run-study`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from builder.cluster.cluster import Cluster, ClusterOptions, open_cluster
from classifiers.study.plan import Planner, Run
from classifiers.study.study_file import BUILTIN, Study, as_record, load_study
from classifiers.train_classifier import StateEvery
from classifiers.training.default_recipe import lost_colour
from classifiers.training.experiment import STATE_SECONDS
from release.commands.command import run_command
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey, Workers
from release.commands.progress import progress_bar
from release.commands.toml_recipes import recipe_names_in
from release.files.commit import write_atomically

if TYPE_CHECKING:
    from classifiers.on_cluster.processes import Team
    from classifiers.study.cost import Cost
    from classifiers.study.releases import Missing
    from classifiers.study.runs import Trainers

StudyName = Annotated[
    str,
    typer.Argument(help=f"A TOML file or a built-in study: {', '.join(recipe_names_in(BUILTIN))}."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of runs and report; by default studies/NAME.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and stop.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Cores of each process; by default 1, with GPUs the share of each."),
]
Processes = Annotated[
    int,
    typer.Option(min=1, help="Processes of a training on each of its nodes, a GPU each if any."),
]
Nodes = Annotated[
    int,
    typer.Option(min=1, help="Workers of a running cluster that a training takes, on a node each."),
]


def main() -> None:
    """Console entry point."""
    run_command(run_study)


def run_study(
    study: StudyName,
    out: Out = None,
    workers: Workers = None,
    threads: Threads = None,
    processes: Processes = 1,
    nodes: Nodes = 1,
    state_every: StateEvery = STATE_SECONDS,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train every arm of a study with every classifier and seed, and report what helps.

    What it takes is told first. Releases that the study knows how to make are made. Rerun the
    command to go on: a training that is finished is not done again, one that was under way goes on
    from its state. The report is OUT/report.json, report.md, scaling.png and classes.png.

    Examples:

    \b
      run-study minutes
      run-study fashion-mnist --dry-run
      run-study mine.toml --workers 4 --threads 2 --out studies/mine
      run-study fashion-mnist --processes 2 --state-every 30

    \b
      run-study imagenet --scheduler-file /shared/scheduler.json --processes 4 --nodes 2
    """
    chosen = load_study(study)
    from classifiers.study.releases import make_releases, missing_releases
    from classifiers.study.runs import Trainers

    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    trainers = Trainers(options, threads, processes, nodes, state_every)
    folder = (out or Path("studies") / chosen.name).absolute()
    missing = missing_releases(chosen)
    planned = Planner(chosen, folder, {}, not missing)
    _require_shares(planned, trainers.team)
    costs = _costs(planned, trainers.group)
    if dry_run and as_json:
        told = {"releases": list(map(vars, missing)), "costs": list(map(vars, costs))}
        print(json.dumps(told, indent=2))
    if not as_json:
        _tell(missing, costs, trainers.workers, sys.stdout if dry_run else sys.stderr)
    if dry_run:
        return
    write_atomically(folder / "study.json", (json.dumps(as_record(chosen), indent=2)).encode())
    make_releases(chosen, missing, options)
    _conduct(Planner(chosen, folder, {}), trainers, as_json)


def _conduct(planner: Planner, trainers: "Trainers", as_json: bool) -> None:
    """Every training of the study whose releases are there, then the report."""
    from classifiers.study.runs import choose_settings

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


def _require_shares(planner: Planner, team: "Team") -> None:
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


def _costs(planner: Planner, threads: int | None) -> "list[Cost]":
    """Of what is not finished yet."""
    from classifiers.study.cost import study_costs
    from classifiers.study.runs import choose_settings

    groups = planner.tuning_runs()
    tuning = [run for own in groups.values() for run in own]
    if planner.placed and all(run.finished for run in tuning):
        planner = replace(planner, changes=choose_settings(planner, groups))
    runs = [*tuning, *planner.runs()]
    missing = [run for run in runs if not run.finished] if planner.placed else runs
    return study_costs(missing, planner.study.real.classes, threads)


def _tell(
    missing: "Sequence[Missing]", costs: "Sequence[Cost]", workers: int, file: TextIO
) -> None:
    from classifiers.study.cost import cost_lines

    for line in (*(one.as_line() for one in missing), *cost_lines(costs, workers)):
        print(line, file=file, flush=True)


def _perform(cluster: Cluster, runs: Sequence[Run], team: "Team", label: str, quiet: bool) -> None:
    from classifiers.on_cluster.trainings import perform_trainings

    seen = {run.path: run.seen for run in runs}
    with progress_bar(sum(seen.values()), label, "images", quiet=quiet) as advance:
        trainings = [run.training for run in runs]
        perform_trainings(cluster, trainings, team, lambda done: advance(seen[done.path]))


def _report(
    study: Study,
    runs: Sequence[Run],
    settings: dict[int, tuple[str, ...]],
    folder: Path,
    as_json: bool,
) -> None:
    from classifiers.study.markdown import markdown
    from classifiers.study.pictures import draw_study
    from classifiers.study.report import study_report

    report = study_report(study, runs, settings, folder)
    text = markdown(report)
    write_atomically(folder / "report.md", text.encode())
    content = json.dumps(report.content(), indent=1) + "\n"
    write_atomically(folder / "report.json", content.encode())
    pictures = draw_study(report, folder)
    if as_json:
        print(json.dumps({"report": str(folder / "report.json")}))
        return
    print(text)
    print(f"report: {', '.join(map(str, [folder / 'report.md', *pictures]))}")


if __name__ == "__main__":
    main()
