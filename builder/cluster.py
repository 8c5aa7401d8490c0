"""The Dask cluster of a build: one on this machine, or one that runs already."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.environment import visible_gpus
from builder.worker import ONE_THREAD
from generation.errors import UserError

if TYPE_CHECKING:
    from distributed import Client, Security

CONNECT_SECONDS = 20

# One torch thread; no memory limit: Dask would pause a worker for good that holds a large model.
WORKER = {"nthreads": 1, "host": "127.0.0.1", "memory_limit": 0, "preload": ["builder.worker"]}
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.worker-saturation": 1.0,  # a waiting task stays with the scheduler
    "distributed.scheduler.worker-ttl": None,  # a long C call may hold the GIL
    # Dask's watching of a worker takes 4% of a core each, and tells nothing of shards
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.system-monitor.interval": "5s",
    # The command tells what a user should know; in workers only the environment is early enough
    "logging": {"distributed": "critical"},
    "distributed.nanny.pre-spawn-environ": {
        "DASK_LOGGING__DISTRIBUTED": "critical",
        **ONE_THREAD,
        # Dask's own trim threshold hands each tensor's memory back to the kernel at once, which
        # costs a third of the time of sampling on a CPU.
        "MALLOC_TRIM_THRESHOLD_": 512 << 20,
        "MALLOC_MMAP_THRESHOLD_": 32 << 20,
    },
}


@dataclass(frozen=True)
class ClusterOptions:
    """Where to build. Without `scheduler` or `scheduler_file`: on this machine, with `workers`
    processes; None: one a GPU, else one a core."""

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: give at least 1")
        if self.scheduler is not None and self.scheduler_file is not None:
            raise UserError("give --scheduler or --scheduler-file, not both")
        if self.workers is not None and self.foreign:
            raise UserError("--workers is for this machine; a running cluster has its own workers")
        if self.scheduler_file is not None and not self.scheduler_file.is_file():
            raise UserError(f"--scheduler-file {self.scheduler_file} does not exist")
        tls = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        if not any(tls.values()):
            return
        if not self.foreign:
            raise UserError("--tls-… are for --scheduler; on this machine nothing leaves it")
        for option, path in tls.items():
            if path is None:
                raise UserError(f"{option} is missing: TLS takes all of {', '.join(tls)}")
            if not path.is_file():
                raise UserError(f"{option} {path} does not exist")

    @property
    def foreign(self) -> bool:
        """Whether the cluster is one that runs already."""
        return self.scheduler is not None or self.scheduler_file is not None

    @property
    def address(self) -> str:
        return self.scheduler or f"the address in {self.scheduler_file}"


@dataclass(frozen=True)
class Cluster:
    """client: connected to it. foreign: it was running already and has settings of its own."""

    client: "Client"
    foreign: bool
    address: str

    def threads(self) -> int:
        """How many shards can be made at once now."""
        return sum(self.client.nthreads().values())


@contextmanager
def open_cluster(
    options: ClusterOptions, most: int, say: Callable[[str], None]
) -> Iterator[Cluster]:
    """The cluster that `options` name, for at most `most` shards; `say` gets the dashboard's link.

    Raises UserError if no scheduler answers.
    """
    opened = _running_cluster(options) if options.foreign else _local_cluster(options, most)
    with opened as cluster:
        say(f"dashboard: {cluster.client.dashboard_link}")
        yield cluster


@contextmanager
def _running_cluster(options: ClusterOptions) -> Iterator[Cluster]:
    import dask

    with dask.config.set({"logging": {"distributed": "critical"}}):
        from distributed import Client

        where = (
            {"address": options.scheduler}
            if options.scheduler
            else {"scheduler_file": str(options.scheduler_file)}
        )
        try:
            client = Client(**where, security=_security(options), timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"no scheduler answers at {options.address}: {reason}") from None
    with client:
        yield Cluster(client, foreign=True, address=options.address)


def _security(options: ClusterOptions) -> "Security | None":
    if options.tls_ca is None:
        return None
    from distributed import Security

    return Security(
        tls_ca_file=str(options.tls_ca),
        tls_client_cert=str(options.tls_cert),
        tls_client_key=str(options.tls_key),
        require_encryption=True,
    )


@contextmanager
def _local_cluster(options: ClusterOptions, most: int) -> Iterator[Cluster]:
    """Each worker has one torch thread, so bits do not depend on how many there are. Scheduler and
    dashboard listen on this machine alone."""
    import dask

    environments = worker_environments(options.workers, most)
    with dask.config.set({"logging": SETTINGS["logging"]}):
        # Reads its log level once. Imported within its own settings it would lose all of them when
        # these end, and a second cluster could not open.
        from distributed import Client, Nanny, Scheduler, SpecCluster
    with dask.config.set(SETTINGS):
        scheduler = {
            "cls": Scheduler,
            "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        }
        specs = {
            i: {"cls": Nanny, "options": {"env": env} | WORKER}
            for i, env in enumerate(environments)
        }
        cluster = SpecCluster(workers=specs, scheduler=scheduler)
        try:
            with Client(cluster) as client:
                yield Cluster(client, foreign=False, address="this machine")
        finally:
            # On a busy machine workers can take longer to end than Dask waits for them; what they
            # made is committed, and they are daemons: they end with this process.
            with suppress(TimeoutError):
                cluster.close()


def worker_environments(workers: int | None, most: int) -> list[dict[str, str]]:
    """One for each worker process, at most `most`: with GPUs, each sees one of them."""
    from dask.system import CPU_COUNT  # of this container, not of its host

    gpus = visible_gpus()
    count = min(workers or len(gpus) or CPU_COUNT, most)
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(count)]
