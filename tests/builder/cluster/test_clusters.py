"""The examples of docs/clusters.md: Slurm's job script, Kubernetes' manifest, several GPUs."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dask.system import CPU_COUNT

from builder.build_dataset import build_dataset
from builder.cluster import cluster
from builder.cluster.cluster import ClusterOptions
from classifiers.study import runs as study_runs
from classifiers.study.runs import Trainers
from release.errors import UserError
from tests.conftest import ROOT, run

CLUSTERS = ROOT / "docs" / "clusters"


def test_slurm_asks_for_a_gpu_a_job_and_a_thread_a_worker():
    script = subprocess.run(
        [sys.executable, CLUSTERS / "slurm.py", "--print", "--time", "04:00:00", "--cores", "6"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in ("#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=6"):
        assert line in script.splitlines()
    worker = script.splitlines()[-1] if script.splitlines()[-1] else script.splitlines()[-2]
    assert "dask_worker" in worker
    assert worker.endswith("--memory-limit 0 --preload builder.cluster.worker")
    assert "--nthreads 1 " in worker


def kubernetes() -> list[dict]:
    return list(yaml.safe_load_all((CLUSTERS / "kubernetes.yaml").read_text()))


def test_kubernetes_runs_commands_that_exist():
    """Every option of the manifest's commands is one of the real command's."""
    from distributed.cli import dask_scheduler, dask_worker

    def options_of(command: list[str]) -> set[str]:
        if command[0] == "build-dataset":
            names = inspect.signature(build_dataset).parameters
            return {"--" + name.replace("_", "-") for name in names}
        module = {"scheduler": dask_scheduler, "worker": dask_worker}[command[1]]
        return {option for p in module.main.params for option in (*p.opts, *p.secondary_opts)}

    pods = [d["spec"]["template"]["spec"] for d in kubernetes() if "template" in d["spec"]]
    commands = [pod["containers"][0]["command"] for pod in pods]
    assert {command[0] for command in commands} == {"dask", "build-dataset"}
    for command in commands:
        used = {part for part in command if part.startswith("--")}
        assert used <= options_of(command), command


def test_kubernetes_parts_find_each_other():
    service, *rest = kubernetes()
    assert [d["kind"] for d in rest] == ["Deployment", "Deployment", "Job", "NetworkPolicy"]
    for document in rest[:2]:
        labels = document["spec"]["template"]["metadata"]["labels"]
        assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert (
        service["spec"]["selector"].items()
        <= rest[0]["spec"]["template"]["metadata"]["labels"].items()
    )
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for document in rest[1:3]:
        assert address in document["spec"]["template"]["spec"]["containers"][0]["command"]


@pytest.mark.parametrize(
    ("workers", "shards", "seen"),
    [(None, 9, ["0", "1"]), (3, 9, ["0", "1", "0"]), (None, 1, ["0"])],
)
def test_each_process_sees_one_gpu(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, shards: int, seen: list[str]
):
    monkeypatch.setattr(cluster, "visible_gpus", lambda: ["0", "1"])
    found = cluster.worker_environments(workers, shards)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found] == seen


def test_a_training_of_several_processes_has_a_gpu_for_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "visible_gpus", lambda: ["0", "1", "2", "3", "4"])
    monkeypatch.setattr(study_runs, "visible_gpus", lambda: ["0", "1", "2", "3", "4"])
    trainers = Trainers(ClusterOptions(), processes=2)
    assert (trainers.workers, trainers.cluster.gpus, trainers.cluster.with_children) == (2, 2, True)
    found = cluster.worker_environments(trainers.workers, 9, trainers.cluster.gpus)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found] == ["0,1", "2,3"]
    with pytest.raises(UserError, match="--processes 6: this machine has 5 GPUs, and each"):
        Trainers(ClusterOptions(), processes=6)
    with pytest.raises(UserError, match="--nodes 2: this machine is one"):
        Trainers(ClusterOptions(), nodes=2)


def test_slurm_asks_for_the_gpus_of_a_training():
    script = subprocess.run(
        [sys.executable, CLUSTERS / "slurm.py", "--print", "--gpus", "4"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in ("#SBATCH --gres=gpu:4", "export DASK_DISTRIBUTED__WORKER__DAEMON=False"):
        assert line in script.splitlines()
    assert "--resources GPU=4 --memory-limit 0 --preload builder.cluster.worker" in script


def test_what_no_gpu_does_runs_on_every_core():
    plain, chosen = ClusterOptions(), ClusterOptions(workers=3)
    running = ClusterOptions(scheduler="tcp://127.0.0.1:9")
    assert plain.without_gpus().workers == CPU_COUNT
    assert (chosen.without_gpus(), running.without_gpus()) == (chosen, running)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "--workers is for this machine"),
        (["--scheduler-file", "no.json"], "--scheduler-file no.json does not exist"),
        (["--scheduler", "tls://h:1", "--tls-ca", "setup.sh"], "--tls-cert is missing"),
        (["--tls-ca", "setup.sh"], "are for --scheduler"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], expected: str, tmp_path: Path):
    result = run(
        ["build-dataset", "--recipe", "fashion-mnist", "--out", tmp_path / "r", *arguments]
    )
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert expected in result.stderr


def test_no_scheduler_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    options = ClusterOptions(scheduler="tcp://127.0.0.1:9")
    with (
        pytest.raises(UserError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"),
        cluster.open_cluster(options, 1, lambda _: None),
    ):
        pass
