"""The command `run-study`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from classifiers.study.study_file import BUILTIN, as_record, load_study
from generation.networks.gpus import GPU, GPUS, UTILISATION
from release.commands.command import Builtin, help_ends, run_command, say
from release.commands.options import (
    STATE_SECONDS,
    Json,
    Scheduler,
    SchedulerFile,
    StateEvery,
    TlsCa,
    TlsCert,
    TlsKey,
    Workers,
)
from release.commands.toml_recipes import recipe_names_in
from release.errors import UserError
from release.files.commit import write_atomically
from release.lease import claimed

if TYPE_CHECKING:
    from builder.planning.device_cost import Device
    from classifiers.study.cost import Cost
    from classifiers.study.gpu_cost import GpuCost
    from classifiers.study.releases import Missing

StudyName = Annotated[
    str,
    typer.Argument(help=f"A TOML file or a built-in study: {', '.join(recipe_names_in(BUILTIN))}."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of runs and report; by default studies/NAME.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and stop.")]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help=f"With --dry-run: the GPU that hours are told of: {', '.join(GPUS)}.  "
        f"[default: {GPU}]",
    ),
]
Utilisation = Annotated[
    float | None,
    typer.Option(
        help="With --dry-run: the share of the GPU's peak that its work is assumed to reach.  "
        f"[default: {UTILISATION}]"
    ),
]
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
    run_command(run_study, Builtin(BUILTIN, "study", "studies"))


@help_ends(
    """
    Examples:

    \b
      run-study minutes
      run-study fashion-mnist --dry-run
      run-study imagenet --dry-run --gpu a100-80
      run-study mine.toml --workers 4 --threads 2 --out studies/mine
      run-study fashion-mnist --processes 2 --state-every 30

    \b
      run-study imagenet --scheduler-file /shared/scheduler.json --processes 4 --nodes 2
    """
)
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
    gpu: GpuName = None,
    utilisation: Utilisation = None,
    as_json: Json = False,
) -> None:
    """Train every arm of a study with every classifier and seed, and report what helps.

    What it takes is told first. Releases that the study knows how to make are made. Rerun the
    command to go on: a training that is finished is not done again, one that was under way goes on
    from its state. The report is OUT/report.json, report.md, scaling.png and classes.png.
    """
    from classifiers.study.conducting import conduct, remaining_costs, require_shares, tell_costs
    from classifiers.study.gpu_cost import gpu_costs
    from classifiers.study.plan import Planner
    from classifiers.study.releases import make_releases, missing_releases, require_recipes
    from classifiers.study.runs import Trainers

    device = _planned_device(dry_run, gpu, utilisation)
    chosen = load_study(study)
    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    trainers = Trainers(options, threads, processes, nodes, state_every)
    folder = (out or Path("studies") / chosen.name).absolute()
    missing = missing_releases(chosen)
    planned = Planner(chosen, folder, {}, not missing)
    require_shares(planned, trainers.team)
    costs = remaining_costs(planned, trainers.group, quiet=as_json)
    if not as_json:
        tell_costs(missing, costs, trainers.workers, sys.stdout if dry_run else sys.stderr)
    if dry_run:
        _print_plan(missing, costs, gpu_costs(costs, missing, chosen.real.classes, device), as_json)
        return
    require_recipes(chosen, missing)
    with claimed(folder, say):
        write_atomically(folder / "study.json", (json.dumps(as_record(chosen), indent=2)).encode())
        make_releases(chosen, missing, options)
        conduct(Planner(chosen, folder, {}), trainers, as_json)


def _planned_device(dry_run: bool, gpu: str | None, utilisation: float | None) -> "Device":
    """The GPU that hours are told of."""
    from builder.planning.device_cost import Device

    if not dry_run and (gpu is not None or utilisation is not None):
        raise UserError("--gpu and --utilisation go with --dry-run: hours of a GPU are of a plan")
    return Device.named(gpu, utilisation)


def _print_plan(
    missing: "Sequence[Missing]",
    costs: "Sequence[Cost]",
    on_gpu: "Sequence[GpuCost]",
    as_json: bool,
) -> None:
    """As a document all of it, else what a GPU takes, behind the costs here."""
    if as_json:
        content = {
            "releases": [vars(one) for one in missing],
            "costs": [vars(cost) for cost in costs],
            "gpu": [vars(cost) for cost in on_gpu],
        }
        print(json.dumps(content, indent=2))
        return
    print("by counted work, --gpu and --utilisation:", *(c.as_line() for c in on_gpu), sep="\n")


if __name__ == "__main__":
    main()
