"""Each kind of fault: what it does to a build, and how the build is taken up again.

One definition for the tests, which try each at one moment, and for
benchmarks/trust/fault_campaign.py, which tries each at several. A kind gets a `Site`, where the
release is to stand, and the chance that picks its moment; it leaves a finished release, and fails
if a command ends otherwise than it should.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.conftest import ROOT
from tests.servers.dask_cluster import DaskCluster, wait_until
from tests.servers.faulty_store import BUCKET, FaultyStore

PER_CLASS = 10
STAGES = (8, 16, 32)
IMAGES = 3 * PER_CLASS * len(STAGES)
SHARDS_A_STAGE = 6
SHARD_ROWS = 8
IN_FLIGHT = 2 * SHARD_ROWS  # images in the hands of two workers
TRUST = ("--trust", "tests.stand_in")
MOMENTS = range(1, 11)  # shards committed when it happens, of 18


@dataclass
class Command:
    """A console command under way, or ended: its exit code and what it said."""

    process: subprocess.Popen[str]

    def ends(self, code: int, saying: str = "") -> str:
        """Wait for it; it must end with `code` and one of its lines say `saying`."""
        out, said = self.process.communicate(timeout=300)
        assert self.process.returncode == code, (self.process.returncode, said)
        assert saying in said + out, said
        return out


@dataclass
class Site:
    """A cluster with TLS, a store, the stand-in's recipe, and a folder by which workers are told
    to fail; `options` are the build's beside its place."""

    folder: Path
    recipe: Path
    undisturbed: Path
    options: tuple[str | Path, ...] = ("--per-class", str(PER_CLASS))
    store: FaultyStore = field(default_factory=FaultyStore)

    def __post_init__(self) -> None:
        self.faults = self.folder / "faults"
        self.faults.mkdir(parents=True)
        self.clusters = 0
        self.cluster = self._new_cluster()
        self.fault()

    def _new_cluster(self) -> DaskCluster:
        self.clusters += 1
        return DaskCluster(self.folder / f"dask{self.clusters}", workers=2, **self.environment)

    @property
    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(ROOT), "STAND_IN_FAULTS": str(self.faults)}
        return own | self.store.environment

    def renew_cluster(self) -> None:
        self.cluster.close()
        self.cluster = self._new_cluster()

    def close(self) -> None:
        self.cluster.close()
        self.store.close()

    def fault(self, **fault: object) -> None:
        """From now on workers do this, and take a while for each batch."""
        for strike in self.faults.glob("strike-*"):
            strike.unlink()
        waiting = self.faults / "next"
        waiting.write_text(json.dumps({"seconds": 0.05} | fault))
        waiting.replace(self.faults / "fault.json")

    def forget(self) -> None:
        """What was made so far is not counted."""
        (self.faults / "log").write_text("")

    def made(self) -> list[str]:
        """A line for each image made."""
        return (self.faults / "log").read_text().splitlines()

    def start(self, *command: str | Path) -> Command:
        program = Path(sys.executable).parent / str(command[0])
        return Command(
            subprocess.Popen(
                [str(part) for part in (program, *command[1:])],
                env=os.environ | self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def build(self, release: Path | str) -> Command:
        """The command, on the cluster."""
        options = self.cluster.options
        cluster = ["--scheduler-file", options.scheduler_file]
        for name in ("tls_ca", "tls_cert", "tls_key"):
            cluster += [f"--{name.replace('_', '-')}", getattr(options, name)]
        command = ["build-dataset", "--recipe", self.recipe, *self.options, "--out", release]
        return self.start(*command, *cluster)

    @contextmanager
    def building(self, release: Path, shards: int, config: str = "*") -> Iterator[Command]:
        """A build under way, with that many shards committed."""
        command = self.build(release)
        try:
            wait_until(lambda: len(list(release.glob(f"markers/{config}/*.json"))) >= shards)
            yield command
        finally:
            if command.process.poll() is None:
                command.process.kill()


Kind = Callable[[Site, Path, Random], None]


def lost_worker(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of a worker: its nanny starts another, the build goes on."""
    with site.building(release, chance.choice(MOMENTS)) as build:
        chance.choice(site.cluster.workers()).kill()
        build.ends(0)


def lost_nanny(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of a nanny: its worker ends, the others go on."""
    with site.building(release, chance.choice(MOMENTS)) as build:
        site.cluster.nannies[0].kill()
        build.ends(0)
    site.cluster.nannies[0].wait()
    site.cluster.nannies[0] = site.cluster.add_worker()


def lost_scheduler(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of the scheduler: one line, exit code 2."""
    with site.building(release, chance.choice(MOMENTS)) as build:
        site.cluster.scheduler.kill()
        build.ends(2, "is gone: what is finished is kept")
    site.renew_cluster()
    site.build(release).ends(0)


def lost_client(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of the command."""
    with site.building(release, chance.choice(MOMENTS)) as build:
        build.process.kill()
        build.ends(-signal.SIGKILL)
    site.build(release).ends(0)


def between_stages(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of the command when the last shard of a stage is committed."""
    stage = chance.choice(STAGES[:-1])
    with site.building(release, SHARDS_A_STAGE, str(stage)) as build:
        build.process.kill()
        build.ends(-signal.SIGKILL)
    site.build(release).ends(0)


def ctrl_c(site: Site, release: Path, chance: Random) -> None:
    """SIGINT: the shards in hand are dropped, exit code 130."""
    with site.building(release, chance.choice(MOMENTS)) as build:
        build.process.send_signal(signal.SIGINT)
        build.ends(130, "rerun the same command to go on")
    assert not list(release.rglob("*.tmp"))
    site.build(release).ends(0)


def second_ctrl_c(site: Site, release: Path, chance: Random) -> None:
    """SIGINT twice: ended at once."""
    site.fault(seconds=0.5)  # the batch in hand outlasts the second signal
    with site.building(release, 1 + chance.choice(MOMENTS) // 4) as build:
        build.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        build.process.send_signal(signal.SIGINT)
        build.ends(130, "ended at once: rerun the same command to go on")
    site.fault()
    site.build(release).ends(0)


def memory_error(site: Site, release: Path, chance: Random) -> None:
    """MemoryError in a worker: it is restarted, the shard tried again."""
    site.fault(kind="memory", after=chance.randrange(IMAGES // 2), times=1)
    site.build(release).ends(0)


def killed_for_memory(site: Site, release: Path, chance: Random) -> None:
    """The kernel ends a worker that takes too much."""
    site.fault(kind="kill", after=chance.randrange(IMAGES // 2), times=1)
    site.build(release).ends(0)


def full_disk(site: Site, release: Path, chance: Random) -> None:
    """No space left: one line, exit code 2; with space again the rerun goes on."""
    site.fault(kind="disk full", after=chance.randrange(IMAGES // 2), times=1)
    site.build(release).ends(2, "No space left on device: what is finished is kept")
    site.build(release).ends(0)


def crashing_stage(site: Site, release: Path, chance: Random) -> None:
    """A stage that crashes on some shards: they are quarantined, the rest is done, exit code 3."""
    site.fault(kind="exception", resolution=chance.choice(STAGES), times=1000)
    site.build(release).ends(3, "RuntimeError: the network gave NaN (see ")
    site.fault()
    site.build(release).ends(0)


def _harmed(site: Site, release: Path, chance: Random) -> tuple[Path, Path]:
    """A copy of the undisturbed release; a shard of it and its marker."""
    shutil.copytree(site.undisturbed, release)
    shard = chance.choice(sorted(release.glob("*/train-*.parquet")))
    return shard, release / "markers" / shard.parent.name / f"{shard.stem}.json"


def truncated_shard(site: Site, release: Path, chance: Random) -> None:
    """A shard lost its end: made again by the rerun."""
    shard, _ = _harmed(site, release, chance)
    os.truncate(shard, chance.randrange(shard.stat().st_size))
    site.build(release).ends(0)


def deleted_marker(site: Site, release: Path, chance: Random) -> None:
    """A marker is gone: its shard is made again by the rerun."""
    _, marker = _harmed(site, release, chance)
    marker.unlink()
    site.build(release).ends(0)


def foreign_marker(site: Site, release: Path, chance: Random) -> None:
    """A marker is another recipe's: its shard is made again by the rerun."""
    _, marker = _harmed(site, release, chance)
    content = json.loads(marker.read_text())
    content["shard"]["fingerprint"] = f"{chance.getrandbits(256):064x}"
    marker.write_text(json.dumps(content))
    site.build(release).ends(0)


def flipped_byte(site: Site, release: Path, chance: Random) -> None:
    """A byte changed on disk: `release verify` finds it, `repair` makes that shard again."""
    shard, _ = _harmed(site, release, chance)
    content = bytearray(shard.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    shard.write_bytes(content)
    name = shard.relative_to(release).as_posix()
    site.start("release", "verify", release).ends(1, f"{name}: has SHA-256")
    repaired = site.start("release", "repair", release, "--workers", "1", "--json", *TRUST).ends(0)
    assert json.loads(repaired)["made_again"] == [name]


def flipped_bit_in_a_marker(site: Site, release: Path, chance: Random) -> None:
    """The highest bit of a byte of a marker: it is written again by the rerun."""
    _, marker = _harmed(site, release, chance)
    _flip(marker, chance)
    site.build(release).ends(0)


def flipped_bit_in_the_state(site: Site, release: Path, chance: Random) -> None:
    """The highest bit of a byte of build.json: one line, `release repair` writes it again."""
    _harmed(site, release, chance)
    _flip(release / "build.json", chance)
    site.build(release).ends(2, "build.json cannot be read")
    site.start("release", "repair", release, "--workers", "1", *TRUST).ends(0)


def _flip(path: Path, chance: Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 0x80
    path.write_bytes(content)


def emptied_readme(site: Site, release: Path, chance: Random) -> None:
    """README.md lost its content: written again by the rerun."""
    _harmed(site, release, chance)
    (release / "README.md").write_bytes(b"")
    site.build(release).ends(0)


def killed_at_its_first_write(site: Site, release: Path, chance: Random) -> None:
    """kill -9 between build.json's temporary file and its name, which leaves a lease as well."""
    (release / "lease").mkdir(parents=True)
    (release / "lease/000001.json").write_bytes(b"")
    (release / ".build.json.tmp").write_bytes(b"{" * chance.randrange(9))
    site.build(release).ends(0)


def lost_workers(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of all workers at once, twice."""
    with site.building(release, chance.choice(MOMENTS)) as build:
        for seconds in (0, chance.choice((2, 8, 14))):
            time.sleep(seconds)
            for worker in site.cluster.workers():
                worker.kill()
        build.ends(0)


def two_builds(site: Site, release: Path, chance: Random) -> None:
    """A second build of the same release: one does it, the other is told so."""
    if chance.random() < 0.5:  # a race from the start
        both = [site.build(release), site.build(release)]
    else:
        with site.building(release, chance.choice(MOMENTS)) as first:
            both = [first, site.build(release)]
            both[1].process.wait(300)
            both[0].process.wait(300)
    said = {b.process.wait(300): b.process.communicate()[1] for b in both}
    assert 0 in said, said
    if len(said) > 1:
        assert "another command is at work in" in said[2], said


def failing_store(site: Site, release: Path, chance: Random) -> None:
    """The object store answers writes with 503 and 500 for a while: they are tried again."""
    url = f"s3://{BUCKET}/{release.parent.name}/release"
    site.store.fail(after=chance.randint(2, 40), times=3)
    site.build(url).ends(0)
    assert site.store.failures == 3
    site.store.files.get(url, str(release), recursive=True)


def killed_at_a_store(site: Site, release: Path, chance: Random) -> None:
    """kill -9 of the command half-way through a release in an object store."""
    url = f"s3://{BUCKET}/{release.parent.name}/release"
    shards = chance.choice(MOMENTS)
    build = site.build(url)

    def committed() -> int:
        site.store.files.invalidate_cache()
        return len(site.store.files.glob(f"{url}/markers/*/*.json"))

    wait_until(lambda: committed() >= shards)
    build.process.kill()
    build.ends(-signal.SIGKILL)
    site.build(url).ends(0)
    site.store.files.invalidate_cache()
    site.store.files.get(url, str(release), recursive=True)


# By name, with the most images that may be made twice: what was in flight, or what was harmed.
KINDS: dict[str, tuple[Kind, int]] = {
    "kill -9 of a worker": (lost_worker, IN_FLIGHT),
    "kill -9 of a nanny": (lost_nanny, IN_FLIGHT),
    "kill -9 of the scheduler": (lost_scheduler, IN_FLIGHT),
    "kill -9 of the client": (lost_client, IN_FLIGHT),
    "killed between stages": (between_stages, IN_FLIGHT),
    "Ctrl-C": (ctrl_c, IN_FLIGHT),
    "Ctrl-C twice": (second_ctrl_c, IN_FLIGHT),
    "worker out of memory": (memory_error, IN_FLIGHT),
    "worker killed for memory": (killed_for_memory, IN_FLIGHT),
    "disk full": (full_disk, IN_FLIGHT),
    "stage crashes on a shard": (crashing_stage, IMAGES),
    "truncated shard": (truncated_shard, SHARD_ROWS),
    "flipped byte": (flipped_byte, SHARD_ROWS),
    "deleted marker": (deleted_marker, SHARD_ROWS),
    "marker of another recipe": (foreign_marker, SHARD_ROWS),
    "two builds at once": (two_builds, 0),
    "kill -9 of all workers, twice": (lost_workers, 2 * IN_FLIGHT),
    "flipped bit in a marker": (flipped_bit_in_a_marker, 0),
    "flipped bit in build.json": (flipped_bit_in_the_state, 0),
    "emptied README": (emptied_readme, 0),
    "killed at the first write": (killed_at_its_first_write, 0),
    "object store failing": (failing_store, 0),
    "killed half-way at an object store": (killed_at_a_store, IN_FLIGHT),
}
# Those that harm a finished release: whatever is made then is made twice.
HARMING = (truncated_shard, deleted_marker, foreign_marker, flipped_byte)
HARMING += (flipped_bit_in_a_marker, flipped_bit_in_the_state, emptied_readme)
