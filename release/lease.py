"""The lease: which command works on a folder. A dead owner does not hold it for ever.

One mechanism for a folder, of this machine or shared between hosts, and for an object store, which
has no lock that ends with its owner. A command creates lease/NNNNNN.json, which succeeds for one
command alone, and rewrites it every few seconds with a counter that moved. Another one watches the
counter by its own clock: one that stands still for the lease's time to live is dead, and the next
number may be taken. Clocks of two hosts are never compared. A process of the same machine needs no
watching: the system knows whether it lives.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from release.commands.interrupt import stop_builds
from release.errors import UserError
from release.files.commit import canonical_json, create_exclusively, delete_file, overwrite
from release.files.names import require_no_way_out
from release.files.storage import ReleasePath, list_files, read_bytes

FOLDER = "lease"
BEAT_SECONDS = 10.0  # the counter moves so often
LIFE_SECONDS = 120.0  # a counter that stands still so long is dead; NFS shows changes within 60 s
LOOK_SECONDS = 1.0  # how often a watched counter is read
UNREADABLE_SECONDS = (
    5.0  # writing a lease takes an instant: one that names nobody is of a dead build
)
NAME = re.compile(r"(\d{6,})\.json")

Say = Callable[[str], None]


class LeaseLostError(UserError):
    """Another command took the folder over, since this one's counter stood still for too long."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease. machine, started: which process `pid` is, "" where the system is silent.

    since: by the owner's clock, for people alone. life_seconds: its time to live. token: its own.
    """

    host: str
    pid: Annotated[int, Field(strict=True, gt=0, lt=2**31)]
    since: str
    machine: str
    started: str
    life_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    token: str

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"

    def lives(self) -> bool | None:
        """Whether the process is there; None if it is not this machine's to say."""
        if not self.machine or self.machine != _machine():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # somebody else's
        return _started(self.pid) in (self.started, "")


OWNER = TypeAdapter(Owner)


def _this_process() -> Owner:
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        machine=_machine(),
        started=_started(os.getpid()),
        life_seconds=LIFE_SECONDS,
        token=uuid.uuid4().hex,
    )


def _machine() -> str:
    """This boot of this machine and the processes it shows to us; "" where it does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process started, in ticks since boot; "gone" for one that only waits for its parent,
    "" where the system does not say."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "gone" if state in "ZX" else fields[18]  # proc(5): field 22, starttime


@dataclass(frozen=True)
class _Standing:
    """The highest lease there is: its number, its content, and who that says it is."""

    number: int
    content: bytes

    @property
    def owner(self) -> Owner | None:
        """None if the content is not that of a lease: not whole yet, or damaged."""
        try:
            return OWNER.validate_python(json.loads(self.content)["owner"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


class _Lease:
    """A lease that this process took. lost: why it is no longer ours, None while it is."""

    def __init__(self, release: ReleasePath, number: int, owner: Owner) -> None:
        self._release, self._number, self._owner = release, number, owner
        self._path = _path(release, number)
        self._beats = 0
        self.lost: LeaseLostError | None = None

    def content(self) -> bytes:
        return canonical_json({"beats": self._beats, "owner": asdict(self._owner)}).encode()

    def create(self) -> bool:
        """Take the number; False if another command has it.

        Who has it stands in the file: an answer may be lost, a store may ignore the condition.
        """
        create_exclusively(self._path, self.content())
        with suppress(FileNotFoundError):  # taken, and given back already
            return read_bytes(self._path) == self.content()
        return False

    def is_overtaken(self) -> bool:
        """Whether another command took a higher number while this lease was being written."""
        standing = _highest(self._release)
        return standing is not None and self._is_other(standing)

    def keep(self, closed: threading.Event) -> None:
        """Move the counter until `closed`; once the lease is lost, stop this process's builds."""
        while not closed.wait(BEAT_SECONDS):
            if self.lost is None:
                # A store out of reach is no reason to stop: it will tell whether the lease is lost.
                with suppress(OSError, UserError):
                    self.beat()
            if self.lost is not None:
                stop_builds(self.lost)

    def beat(self) -> None:
        """Move the counter, unless the lease is another's by now."""
        standing = _highest(self._release)
        if standing is None or self._is_other(standing):
            by = f" ({standing.owner})" if standing and standing.owner else ""
            self.lost = LeaseLostError(
                f"another command took {self._release} over{by}: this one had not been heard of "
                f"for {self._owner.life_seconds:.0f} s; it stops, what it finished is kept"
            )
            return
        self._beats += 1
        overwrite(self._path, self.content())

    def _is_other(self, standing: _Standing) -> bool:
        owner = standing.owner
        return standing.number > self._number or (
            owner is not None and owner.token != self._owner.token
        )

    def remove(self, *, own: bool) -> None:
        """Delete the leases of lower numbers, and this one too if `own`."""
        for number in _numbers(self._release):
            if number < self._number + own:
                delete_file(_path(self._release, number))


def _path(release: ReleasePath, number: int) -> ReleasePath:
    return release / FOLDER / f"{number:06d}.json"


def _numbers(release: ReleasePath) -> list[int]:
    names = map(NAME.fullmatch, list_files(release / FOLDER))
    return sorted(int(name[1]) for name in names if name)


def _highest(release: ReleasePath) -> _Standing | None:
    with suppress(FileNotFoundError):  # given back while we looked
        if numbers := _numbers(release):
            return _Standing(numbers[-1], read_bytes(_path(release, numbers[-1])))
    return None


def _take(release: ReleasePath, say: Say) -> _Lease:
    """The lease; UserError if another command is alive."""
    while True:
        standing = _highest(release)
        if standing is not None and not _is_dead(release, standing, say):
            continue
        lease = _Lease(release, standing.number + 1 if standing else 1, _this_process())
        if lease.create() and not lease.is_overtaken():
            with suppress(OSError, UserError):  # lower numbers mean nothing any more
                lease.remove(own=False)
            return lease


def _is_dead(release: ReleasePath, standing: _Standing, say: Say) -> bool:
    """True if the lease's owner is dead, False if there is no such lease any more.

    An unreadable lease has no owner: it is dead where it stays as it is for UNREADABLE_SECONDS.
    UserError if the owner lives. Of another machine's it takes until the counter moves, or the
    lease's time to live.
    """
    owner = standing.owner
    lives = owner.lives() if owner else None
    if lives is False:
        return True
    if owner and lives:
        raise UserError(
            f"another command is at work in {release}: {owner}; wait for it to end, or end it: its "
            "lease ends with its process"
        )
    life = owner.life_seconds if owner else UNREADABLE_SECONDS
    name = str(owner) if owner else "an unknown owner"
    say(f"{release} is leased to {name}: waiting at most {life:g} s to see whether it lives")
    deadline = time.monotonic() + life
    while time.monotonic() < deadline:
        time.sleep(min(LOOK_SECONDS, life / 10))
        found = _highest(release)
        if found is None or (owner is None and found != standing):
            return False  # given back, or whole now: it is looked at anew
        if found != standing:
            raise UserError(
                f"another command is at work in {release}: {found.owner}; wait for it to "
                f"end. Its heartbeat moves: it counts as dead after {life:g} s without one"
            )
    return True


@contextmanager
def claimed(release: ReleasePath, say: Say = lambda _: None) -> Iterator[None]:
    """Make the folder, if it is one, and hold the release for this process alone.

    Raises UserError if it cannot be made or written to, has folders that lead out of it, or another
    build is at work in it;
    LeaseLostError if another command took it over meanwhile. say: told what is waited for.
    """
    require_no_way_out(release)
    made = _make_folder(release) if isinstance(release, Path) else []
    lease = _take(release, say)
    closed = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(closed,), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        closed.set()
        keeper.join()
        if lease.lost is None:
            with suppress(OSError, UserError):  # a store that fails now: the lease ends by itself
                lease.remove(own=True)
        if isinstance(release, Path):  # bad input was found before anything was made
            _remove_empty([release / FOLDER, release, *made])
    if lease.lost is not None:
        raise lease.lost


def _make_folder(release: Path) -> list[Path]:
    """The folders that it took, the innermost first."""
    folder = release / FOLDER
    try:
        lacking = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if release.is_file():
            raise UserError(f"--out {release} is a file; name a folder") from None
        if isinstance(error, PermissionError) and release.is_dir():
            raise UserError(f"--out {release} cannot be written to; name another folder") from None
        raise UserError(f"--out {release} cannot be made: {error.strerror}") from None
    return lacking


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
