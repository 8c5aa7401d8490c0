"""The Dask cluster of a build: one on this machine, or one that runs already."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.environment import visible_gpus
from release.errors import UserError

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed import Client, Future, Security, SpecCluster

CONNECT_SECONDS = 20

# One torch thread; no memory limit: Dask would pause a worker for good that holds a large model.
WORKER = {
    "nthreads": 1,
    "host": "127.0.0.1",
    "memory_limit": 0,
    "preload": ["builder.cluster.worker"],
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.worker-saturation": 1.0,  # a waiting task stays with the scheduler
    "distributed.scheduler.worker-ttl": None,  # a long C call may hold the GIL
    # Dask closes the nanny of a lost worker for good if the next one has not registered by then
    "distributed.deploy.lost-worker-timeout": "365 days",
    # Nothing leaves this machine, whatever a site asks of its clusters
    "distributed.comm.require-encryption": False,
    "distributed.comm.default-scheme": "tcp",
    # Dask's watching of a worker takes 4% of a core each, and tells nothing of shards
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.system-monitor.interval": "5s",
    # The command tells what a user should know; in workers only the environment is early enough
    "logging": {"distributed": "critical", "distributed.client": "critical"},
    "distributed.nanny.pre-spawn-environ": {
        "DASK_LOGGING__DISTRIBUTED": "critical",
        **ONE_THREAD,
        # Dask's own trim threshold hands each tensor's memory back to the kernel at once, which
        # costs half of the time of sampling on a CPU. A thread's own arena keeps to no threshold.
        "MALLOC_TRIM_THRESHOLD_": 512 << 20,
        "MALLOC_MMAP_THRESHOLD_": 32 << 20,
        "MALLOC_ARENA_MAX": 1,
        # pyarrow's allocator gives what it frees back within 0.1 s: each row group of 64 MB would
        # have its pages cleared anew, a third of a second of an import's CPU time
        "MIMALLOC_PURGE_DELAY": 10_000,
    },
}


@dataclass(frozen=True)
class ClusterOptions:
    """Where to build. Without `scheduler` or `scheduler_file`: on this machine, with `workers`
    processes; None: one a GPU, else one a core.

    gpus: that each process of this machine sees. with_children: they may start processes of their
    own, as trainings do; a running cluster's workers must have been started so.
    """

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    gpus: int = 1
    with_children: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: give at least 1")
        if self.scheduler is not None and self.scheduler_file is not None:
            raise UserError("give --scheduler or --scheduler-file, not both")
        if self.workers is not None and self.foreign:
            raise UserError("--workers is for this machine; a running cluster has its own workers")
        if self.scheduler_file is not None:
            _require_address(self.scheduler_file)
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

    def without_gpus(self) -> "ClusterOptions":
        """For work that no GPU does: one process a core unless something else was asked for."""
        from dask.system import CPU_COUNT

        return self if self.workers or self.foreign else replace(self, workers=CPU_COUNT)

    @property
    def address(self) -> str:
        return self.scheduler or f"the address in {self.scheduler_file}"


def _require_address(file: Path) -> None:
    """UserError unless it is a file as a Dask scheduler writes it: JSON with its address."""
    if not file.is_file():
        raise UserError(f"--scheduler-file {file} does not exist")
    try:
        address = json.loads(file.read_bytes())["address"]
    except (ValueError, LookupError, TypeError, RecursionError):
        address = None
    if not isinstance(address, str) or not address:
        raise UserError(
            f"--scheduler-file {file} holds no scheduler's address: give the file that "
            "`dask scheduler --scheduler-file` wrote"
        )


@dataclass(frozen=True)
class Cluster:
    """client: connected to it. foreign: it was running already and has settings of its own.
    say: for remarks. own: the cluster of this machine, None for a foreign one.

    The methods raise UserError once the scheduler is gone, whatever the client makes of that.
    """

    client: "Client"
    foreign: bool
    address: str
    say: Callable[[str], None] = lambda _: None
    own: "SpecCluster | None" = None

    def dashboard(self) -> str:
        """Where a browser sees the cluster at work."""
        with self._reached():
            return str(self.client.dashboard_link)

    def threads(self) -> int:
        """How many shards can be made at once now."""
        with self._reached():
            return sum(self.client.nthreads().values())

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: object,
        key: "Key",
        priority: int = 0,
        resources: Mapping[str, float] | None = None,
        worker: str | None = None,
    ) -> "Future":
        """Have function(*arguments) done by a worker, as `key`; a higher priority goes first.

        Keys of one first item make a group of tasks. resources: that it holds meanwhile, of those
        that workers state. worker: the address of the only one that may do it.
        """
        with self._reached():
            return self.client.submit(
                function,
                *arguments,
                key=key,
                priority=priority,
                resources=resources or None,
                workers=None if worker is None else [worker],
                pure=False,
            )

    def result(self, future: "Future") -> Any:
        """What the function of a future that is done returned; raises what it raised."""
        if _erred(future):
            raise future.exception()
        with self._reached():
            try:
                return future.result()
            except Exception as error:
                if not _erred(future):
                    raise
                own = error  # its worker was lost with the result, and the next one failed
        raise own

    def resources(self) -> dict[str, dict[str, float]]:
        """By worker's address, what it states to have, such as {"GPU": 4.0}."""
        with self._reached():
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
            return {address: dict(about["resources"]) for address, about in workers.items()}

    def run_everywhere(self, function: Callable[..., Any], *arguments: object) -> None:
        """function(*arguments) on every worker there is, whatever some of them make of it."""
        if self.threads():
            with self._reached():
                self.client.run(function, *arguments, on_error="ignore")

    def run_on(
        self, workers: Sequence[str], function: Callable[..., Any], *arguments: object
    ) -> dict[str, Any]:
        """What function(*arguments) returns on each of `workers` that is there, beside its task."""
        here = [worker for worker in workers if worker in self.resources()]
        if not here:
            return {}
        with self._reached():
            found = self.client.run(function, *arguments, workers=here, on_error="ignore")
            return dict(found)

    def restart(self, worker: str) -> None:
        """Give the worker a new process; one that has no nanny, is gone or slow is left alone."""
        with self._reached(), suppress(ValueError, KeyError, TimeoutError):
            self.client.restart_workers([worker], raise_for_error=False)

    def revive(self) -> None:
        """Start other workers of this machine in place of those whose nanny has given up."""
        if self.own is not None and self.own.loop is not None:
            self.own.loop.add_callback(_revive, self.own)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Any failure to reach the scheduler, and a client that has given it up, is its loss."""
        try:
            yield
        except (OSError, CancelledError):
            raise self._lost() from None
        except Exception:  # of many kinds: what the client raises when it has been closed
            if self.client.status == "running":
                raise
            raise self._lost() from None

    def _lost(self) -> UserError:
        return UserError(
            f"the scheduler at {self.address} is gone: what is finished is kept; start it again "
            "and rerun the same command to go on"
        )


def _erred(future: "Future") -> bool:
    """Whether the function itself failed; a future that is done may still come to that."""
    return future.status == "error"


@contextmanager
def open_cluster(
    options: ClusterOptions, most: int, say: Callable[[str], None]
) -> Iterator[Cluster]:
    """The cluster that `options` name, for at most `most` shards; `say` gets the dashboard's link.

    Raises UserError if no scheduler answers.
    """
    opened = (
        _running_cluster(options, say) if options.foreign else _local_cluster(options, most, say)
    )
    with opened as cluster:
        say(f"dashboard: {cluster.dashboard()}")
        yield cluster


@contextmanager
def _running_cluster(options: ClusterOptions, say: Callable[[str], None]) -> Iterator[Cluster]:
    import dask

    with dask.config.set({"logging": SETTINGS["logging"]}):
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
    try:
        yield Cluster(client, foreign=True, address=options.address, say=say)
    finally:
        # The scheduler may be gone, in the middle of a TLS handshake too: closing then raises
        # whatever the client's last attempt to reconnect ended in.
        with suppress(Exception):
            client.close()
        client.status = "closed"  # else it closes itself, and raises, when it is collected


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
def _local_cluster(
    options: ClusterOptions, most: int, say: Callable[[str], None]
) -> Iterator[Cluster]:
    """Each worker has one torch thread, so bits do not depend on how many there are. Scheduler and
    dashboard listen on this machine alone."""
    import dask

    environments = worker_environments(options.workers, most, options.gpus)
    with dask.config.set({"logging": SETTINGS["logging"]}):
        # Reads its log level once. Imported within its own settings it would lose all of them when
        # these end, and a second cluster could not open.
        from distributed import Client
    with dask.config.set({**SETTINGS, "distributed.worker.daemon": not options.with_children}):
        cluster = _start_cluster(environments)
        try:
            with Client(cluster) as client:
                yield Cluster(client, False, "this machine", say, cluster)
        finally:
            # On a busy machine workers can take longer to end than Dask waits for them; what they
            # made is committed, and they are daemons: they end with this process.
            with suppress(TimeoutError):
                cluster.close()


def _start_cluster(environments: list[dict[str, str]]) -> "SpecCluster":
    """A worker with each environment; UserError if they do not start."""
    from distributed import Scheduler, Security, SpecCluster

    from builder.cluster.dashboard import DashboardWhenAsked

    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}
    workers = {
        i: {"cls": "builder.cluster.nanny.PersistentNanny", "options": {"env": env} | WORKER}
        for i, env in enumerate(environments)
    }
    try:
        asked = {"cls": Scheduler, "options": options}
        cluster = SpecCluster(workers, asked, security=Security())
    except Exception as raised:  # whatever a worker's start, or its import of this project, ends in
        error: BaseException = raised
        while error.__cause__ is not None:
            error = error.__cause__
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"no workers start on this machine: {reason}") from None
    scheduler = cluster.scheduler
    assert scheduler is not None
    scheduler.http_application.add_application(DashboardWhenAsked(scheduler))
    return cluster


async def _revive(cluster: "SpecCluster") -> None:
    """Leave out nannies that gave up, have all that are missing opened."""
    from distributed import Status

    for name, nanny in list(cluster.workers.items()):
        if nanny.status in (Status.closed, Status.failed):
            del cluster.workers[name]
    if cluster.status == Status.running and cluster.workers.keys() != cluster.worker_spec.keys():
        with suppress(Exception):  # as they start; the next look tries again
            await cluster


def worker_environments(workers: int | None, most: int, each: int = 1) -> list[dict[str, str]]:
    """One for each worker process, at most `most`: with GPUs, each sees `each` of them."""
    from dask.system import CPU_COUNT  # of this container, not of its host

    gpus = visible_gpus()
    groups = [",".join(gpus[i : i + each]) for i in range(0, len(gpus) - each + 1, each)]
    count = min(workers or len(groups) or CPU_COUNT, most)
    if not groups:
        return [{} for _ in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": groups[i % len(groups)]} for i in range(count)]
