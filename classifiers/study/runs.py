"""Who does the trainings of a study, and what tuning chose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.cluster.cluster import ClusterOptions
from classifiers.on_cluster.processes import Team
from classifiers.study.plan import Planner, Run
from release.commands.options import STATE_SECONDS
from release.environment import visible_gpus
from release.errors import UserError
from release.results.result import read_result


@dataclass(frozen=True)
class Trainers:
    """Who trains. threads: cores of each process, as the user gave them; processes: of a training
    on each of its nodes; state_seconds: between the states that an interrupted one goes on from."""

    options: ClusterOptions
    threads: int | None = None
    processes: int = 1
    nodes: int = 1
    state_seconds: float = STATE_SECONDS

    def __post_init__(self) -> None:
        if self.nodes > 1 and not self.options.foreign:
            raise UserError(
                f"--nodes {self.nodes}: this machine is one; name a cluster with --scheduler"
            )
        gpus = len(visible_gpus())
        if 0 < gpus < self.processes and not self.options.foreign:
            raise UserError(
                f"--processes {self.processes}: this machine has {gpus} GPUs, and each takes one"
            )

    @property
    def group(self) -> int | None:
        """Torch threads, and processes that decode, of each process; None: all its machine has."""
        from dask.system import CPU_COUNT

        if self.threads is not None or self.options.foreign:
            return self.threads
        gpus = len(visible_gpus())
        return max(1, CPU_COUNT // gpus) if gpus else 1

    @property
    def workers(self) -> int:
        """How many trainings go on at once on this machine."""
        from dask.system import CPU_COUNT

        each = self.processes if visible_gpus() else (self.group or 1) * self.processes
        return self.options.workers or max(1, (len(visible_gpus()) or CPU_COUNT) // each)

    @property
    def cluster(self) -> ClusterOptions:
        """Whose processes may start others: those that decode images, those of a training."""
        if self.options.foreign:
            return self.options
        return ClusterOptions(self.workers, gpus=self.processes, with_children=True)

    @property
    def team(self) -> Team:
        """What does each training."""
        return Team(self.group, self.processes, self.nodes, self.state_seconds)


def choose_settings(
    planner: Planner, tuning: Mapping[tuple[int, int], Sequence[Run]]
) -> dict[int, tuple[str, ...]]:
    """By model, the candidate with the highest mean accuracy on the tuning split, of equals the
    first."""
    means: dict[int, dict[int, float]] = {}
    for (model, candidate), runs in tuning.items():
        results = [read_result(run.path).values["top1"]["value"] for run in runs]
        means.setdefault(model, {})[candidate] = sum(results) / len(results)
    candidates = planner.study.tuning.candidates if planner.study.tuning else ()
    best = {model: max(sorted(own), key=own.__getitem__) for model, own in means.items()}
    return {model: candidates[candidate] for model, candidate in best.items()}
