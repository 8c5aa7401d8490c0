"""score-release on a Dask cluster that runs already, as a user starts one."""

from pathlib import Path

from release.results.result import read_result
from tests.conftest import run
from tests.servers.dask_cluster import DaskCluster
from tests.sets.small_releases import random_images, write_release


def test_a_running_cluster_gives_the_same_bits_as_this_process(tmp_path: Path):
    """Two workers with their own certificates extract; not one bit of the values differs."""
    splits = {"train": [random_images(1, 30), random_images(2, 30)], "test": [random_images(3, 30)]}
    write_release(tmp_path / "real", splits, kind="real")
    write_release(tmp_path / "made", {"train": [random_images(4, 30), random_images(5, 20)]})
    command = ["score-release", f"{tmp_path}/made:16", "--real", tmp_path / "real"]
    command += ["--metrics", "fd,is,kid", "--batch", "16", "--device", "cpu"]
    cluster = DaskCluster(tmp_path / "dask", workers=2)
    try:
        where = cluster.options
        arguments = ["--scheduler-file", where.scheduler_file, "--tls-ca", where.tls_ca]
        arguments += ["--tls-cert", where.tls_cert, "--tls-key", where.tls_key]
        out = ["--out", tmp_path / "there", "--cache", tmp_path / "cache-there"]
        done = run([*command, *arguments, *out])
        assert done.returncode == 0, done.stderr
    finally:
        cluster.close()
    here = ["--workers", "1", "--out", tmp_path / "here", "--cache", tmp_path / "cache-here"]
    assert run([*command, *here]).returncode == 0
    (one,), (other,) = ((tmp_path / name).glob("*.json") for name in ("there", "here"))
    assert read_result(one).values == read_result(other).values


def test_tls_without_a_cluster_is_refused(tmp_path: Path):
    done = run(["score-release", "a:16", "--real", "b", "--tls-ca", tmp_path / "ca.pem"])
    assert done.returncode == 2
    assert done.stderr == "error: --tls-… are for --scheduler; on this machine nothing leaves it\n"
