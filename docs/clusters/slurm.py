"""A Dask cluster of Slurm jobs, a worker each, until Ctrl-C. See docs/clusters.md.

python docs/clusters/slurm.py --jobs 8 --scheduler-file /shared/scheduler.json
python docs/clusters/slurm.py --jobs 4 --gpus 4 --scheduler-file /shared/scheduler.json
"""

import argparse
import signal

import dask
from dask_jobqueue import SLURMCluster
from distributed import Security


def main() -> None:
    """Start it and wait."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="Slurm jobs, a worker each")
    parser.add_argument(
        "--gpus", type=int, default=1, help="a job's GPUs, for a training's processes"
    )
    parser.add_argument("--scheduler-file", default="scheduler.json", help="on shared storage")
    parser.add_argument("--partition", default="gpu")
    parser.add_argument("--time", default="24:00:00", help="a job's time limit")
    parser.add_argument("--memory", default="64GB", help="a job's memory")
    parser.add_argument("--cores", type=int, default=4, help="a job's cores")
    parser.add_argument("--interface", help="network of scheduler and workers, such as ib0")
    parser.add_argument("--tls-ca", help="PEM files, for a network that others use")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--print", action="store_true", help="show the job script, submit nothing")
    arguments = parser.parse_args()
    with dask.config.set(
        {
            "distributed.scheduler.worker-saturation": 1.0,  # blame the right shard
            "distributed.scheduler.worker-ttl": None,  # a long C call is no dead worker
        }
    ):
        cluster = slurm_cluster(arguments)
    if arguments.print:
        print(cluster.job_script())
        return
    cluster.scale(jobs=arguments.jobs)
    print(f"scheduler {cluster.scheduler_address}, dashboard {cluster.dashboard_link}", flush=True)
    signal.sigwait([signal.SIGINT, signal.SIGTERM])
    cluster.close()


def slurm_cluster(arguments: argparse.Namespace) -> SLURMCluster:
    """Scheduler here, its dashboard on loopback; each job one worker with one thread."""
    return SLURMCluster(
        queue=arguments.partition,
        cores=1,  # threads of a worker; encoding runs beside it
        processes=1,
        job_cpu=arguments.cores,
        memory=arguments.memory,
        walltime=arguments.time,
        job_extra_directives=["--nodes=1", f"--gres=gpu:{arguments.gpus}"],
        job_script_prologue=["export DASK_DISTRIBUTED__WORKER__DAEMON=False"],  # trainings fork
        worker_extra_args=[
            *("--resources", f"GPU={arguments.gpus}"),
            *("--memory-limit", "0", "--preload", "builder.cluster.worker"),
        ],
        interface=arguments.interface,
        **({"protocol": "tls://", "security": security(arguments)} if arguments.tls_ca else {}),
        scheduler_options={
            "scheduler_file": arguments.scheduler_file,
            "dashboard_address": "127.0.0.1:0",
        },
    )


def security(arguments: argparse.Namespace) -> Security:
    """One certificate for scheduler, workers and client."""
    certificate = {
        f"tls_{role}_{part}": getattr(arguments, f"tls_{part}")
        for role in ("scheduler", "worker", "client")
        for part in ("cert", "key")
    }
    return Security(tls_ca_file=arguments.tls_ca, require_encryption=True, **certificate)


if __name__ == "__main__":
    main()
