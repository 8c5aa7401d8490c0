"""The command `evaluate-representation`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from metrics.cache_folder import CACHE
from metrics.options import Batch, Cache, Device, ExtractionScheduler, Out, SomeWorkers
from metrics.representation.names import FROZEN, STEPS
from release.commands.command import help_ends, run_command
from release.commands.options import Json, SchedulerFile, TlsCa, TlsCert, TlsKey, parse_seeds
from release.errors import UserError

Networks = Annotated[
    list[str],
    typer.Argument(
        help="FILE.safetensors of train-classifier --save, a folder of such files, a folder of a "
        "timm model, or an extractor of score-release, such as timm:resnet50.a1_in1k."
    ),
]
On = Annotated[
    list[str],
    typer.Option(help="RELEASE:CONFIG[:TESTSPLIT] of real images to transfer to; repeat it."),
]
Evaluations = Annotated[
    str,
    typer.Option(
        help=f"Comma-separated; all: {', '.join(FROZEN)}. fine_tuning trains all weights instead."
    ),
]
TuningSteps = Annotated[
    int, typer.Option(min=1, help="Optimiser steps of each training of fine_tuning.")
]
TuningRates = Annotated[
    str, typer.Option(help="Learning rates of which fine_tuning takes the best on tuning images.")
]
Shots = Annotated[str, typer.Option(help="Images of each class that few_shot learns from.")]
Seeds = Annotated[str, typer.Option(help="One draw of the few images each.")]


def main() -> None:
    """Console entry point."""
    run_command(evaluate_representation)


@help_ends(
    """
    Examples:

    \b
      evaluate-representation classifier.safetensors --on releases/digits-real:32
      evaluate-representation results/study/runs/generated timm:resnet18.a1_in1k \\
        --on releases/digits-real:32 --on releases/flowers-real:224
      evaluate-representation classifier.safetensors --on releases/digits-real:32 \\
        --evaluations few_shot --shots 1,2 --seeds 0,1,2
      evaluate-representation timm:resnet18.a1_in1k --on releases/flowers-real:224 \\
        --evaluations all,fine_tuning --tuning-rates 1e-3,1e-2,1e-1
    """
)
def evaluate_representation(
    networks: Networks,
    on: On,
    out: Out = Path("results"),
    evaluations: Evaluations = "all",
    shots: Shots = "1,5,10",
    seeds: Seeds = "0,1,2,3,4",
    tuning_steps: TuningSteps = STEPS,
    tuning_rates: TuningRates = "0.0001,0.001,0.01,0.1",
    cache: Cache = CACHE,
    device: Device = "auto",
    batch: Batch = 64,
    workers: SomeWorkers = None,
    scheduler: ExtractionScheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: Json = False,
) -> None:
    """Measure what frozen features are worth on other data sets; one result file each.

    The features of a set are computed once, for all evaluations, and kept in the cache. A probe
    chooses its strength on the tuning part, learns from train and is tested on test, or on
    validation where there is no test. Rerun a command that was interrupted: values that a result
    file already holds stay.
    """
    from metrics.evaluation import print_results, require_places
    from metrics.representation.evaluating import Order, evaluate_all
    from metrics.representation.evaluation import REPRESENTATION, Asked
    from metrics.representation.fine_tuning import FineTuning
    from metrics.representation.parts import open_downstream

    require_places(batch, out, cache)
    tuning = FineTuning(tuning_steps, parse_rates(tuning_rates))
    order = Order(
        asked=Asked.of(evaluations, parse_shots(shots), parse_seeds(seeds), tuning),
        sets=[open_downstream(text) for text in on],
        cache=cache,
        device=device,
        batch=batch,
        cluster=ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key),
        out=out,
        quiet=as_json,
    )
    written = evaluate_all(networks, order)
    print_results(written, REPRESENTATION.names, as_json=as_json)


def parse_shots(text: str) -> tuple[int, ...]:
    """Ascending whole numbers above 0; UserError for others."""
    fields = [field.strip() for field in text.split(",")]
    if not all(field.isdecimal() and int(field) > 0 for field in fields):
        raise UserError(f"--shots {text!r}: give whole numbers above 0, such as 1,5,10")
    return tuple(sorted({int(field) for field in fields}))


def parse_rates(text: str) -> tuple[float, ...]:
    """Ascending numbers above 0; UserError for others."""
    try:
        rates = sorted({float(one) for one in text.split(",")})
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--tuning-rates {text!r}: give numbers above 0, such as 1e-3,1e-2,1e-1")
    return tuple(rates)


if __name__ == "__main__":
    main()
