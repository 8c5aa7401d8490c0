"""Doing the trainings of a study: one at a time on each worker of one Dask cluster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.cluster import SETTINGS, Cluster, ClusterOptions, open_cluster
from builder.environment import visible_gpus
from builder.results import read_result
from builder.waiting import completed
from builder.worker import require_one_thread
from classifiers.experiment import run_experiment
from classifiers.study_plan import Planner, Run
from generation.errors import UserError

if TYPE_CHECKING:
    from distributed import Future


@dataclass(frozen=True)
class Crew:
    """Who trains. threads: cores of each training, as the user gave them."""

    options: ClusterOptions
    threads: int | None

    @property
    def group(self) -> int | None:
        """Torch threads, and processes that decode, of each training; None: all its machine has."""
        from dask.system import CPU_COUNT

        if self.threads is not None or self.options.foreign:
            return self.threads
        gpus = len(visible_gpus())
        return max(1, CPU_COUNT // gpus) if gpus else 1

    @property
    def workers(self) -> int:
        """How many trainings go on at once on this machine."""
        from dask.system import CPU_COUNT

        gpus = len(visible_gpus())
        return self.options.workers or gpus or max(1, CPU_COUNT // (self.group or 1))


@contextmanager
def hired(crew: Crew, most: int, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster. Its processes may start others: those that decode images."""
    import dask

    with dask.config.set({"logging": SETTINGS["logging"]}):
        import distributed  # noqa: F401 - first imported within a setting it loses all others after
    options = crew.options
    if not options.foreign:
        options = ClusterOptions(crew.workers)
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        open_cluster(options, most, say) as cluster,
    ):
        yield cluster


def perform_runs(
    cluster: Cluster, runs: Sequence[Run], threads: int | None, on_done: Callable[[Run], None]
) -> None:
    """Do every run that no earlier call finished; rerun it to go on.

    Raises UserError in the end if some failed, when all others are done.
    """
    futures: dict[str, Future] = {}
    waiting: dict[str, Run] = {}
    for run in runs:
        if run.finished:
            on_done(run)
        elif str(run.path) not in futures:
            after = futures.get(str(run.after))
            key = str(run.path)
            futures[key] = cluster.client.submit(perform, run, threads, after, pure=False)
            waiting[str(futures[key].key)] = run
    failures = {}
    for future in completed(cluster, list(futures.values())):
        run = waiting[str(future.key)]
        error = future.exception()
        if error is None:
            on_done(run)
        else:
            failures[str(run.path)] = " ".join(str(error).split()) or type(error).__name__
    if failures:
        path, reason = next(iter(failures.items()))
        raise UserError(
            f"{len(failures)} of {len(waiting)} trainings failed; {path}: {reason[:400]}; "
            "the others are done: rerun to try again"
        )


def perform(run: Run, threads: int | None, after: object = None) -> None:  # noqa: ARG001
    """One training, on a worker. after: the future of the run it starts from, which is done."""
    import torch

    require_one_thread()
    if threads is not None:
        torch.set_num_threads(threads)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    run_experiment(run.task.read(), run.seed, run.path, _silent, save=run.save, loaders=threads)


@contextmanager
def _silent(total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    yield lambda _: None


def choose_settings(
    planner: Planner, tuning: Mapping[tuple[int, int], Sequence[Run]]
) -> dict[int, tuple[str, ...]]:
    """By model, the candidate with the highest mean accuracy on the tuning split."""
    chosen: dict[int, tuple[float, int]] = {}
    for (model, candidate), runs in tuning.items():
        results = [read_result(run.path).values["top1"]["value"] for run in runs]
        mean = sum(results) / len(results)
        chosen[model] = max(chosen.get(model, (-1.0, 0)), (mean, -candidate))
    candidates = planner.study.tuning.candidates if planner.study.tuning else ()
    return {model: candidates[-negative] for model, (_, negative) in chosen.items()}
