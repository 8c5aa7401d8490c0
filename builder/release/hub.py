"""A data set's repository on the Hub: listing, committing and tagging, whatever goes wrong between.

huggingface_hub retries some calls itself (preupload, the batch call, each PUT) and others not at
all (creating, committing, tagging). Here every step is tried again, after asking what is there
already: a commit whose answer was lost is not made twice, an upload that is complete not repeated.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    logging,
    parse_ratelimit_headers,
)
from huggingface_hub.utils.sha import git_hash
from huggingface_hub.utils.tqdm import disable_progress_bars

from release.errors import UserError
from release.files.commit import sha256_bytes
from release.files.hub import out_of_reach
from release.files.storage import ReleasePath, reaching, read_bytes

# ValueError: of metadata that it refuses
FAILURES = (
    *(HfHubHTTPError, httpx2.HTTPError, RuntimeError, ConnectionError, TimeoutError, ValueError),
)
TRANSIENT = (408, 429, 500, 502, 503, 504)
LOGIN = "log in with `hf auth login` or set HF_TOKEN to a token that may"
RETRIES = 6
LONGEST_WAIT = 32.0  # seconds, where the Hub does not say how long
LONGEST_STATED = 3600.0  # seconds; where it does, its windows are of five minutes
Value = TypeVar("Value")


@dataclass(frozen=True)
class LocalFile:
    """One file to publish. path: in the repository; sha256: of its content, by the manifest."""

    path: str
    source: ReleasePath
    size: int
    sha256: str


class Repository:
    """One data set on the Hub, by the login of this machine. say: what to do with remarks."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        logging.set_verbosity_error()  # it would tell of each retry, and so do we
        disable_progress_bars()
        self.name = name
        self._api = HfApi()
        self._say = say

    def create(self, *, private: bool) -> None:
        """Make the repository if there is none."""
        self._persist(
            lambda: self._api.create_repo(
                self.name, repo_type="dataset", private=private or None, exist_ok=True
            )
        )

    def files(self, revision: str = "main") -> dict[str, RepoFile]:
        """What is in the repository, by path."""
        tree = self._persist(
            lambda: list(
                self._api.list_repo_tree(
                    self.name, recursive=True, revision=revision, repo_type="dataset"
                )
            )
        )
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def read(self, path: str) -> bytes:
        """Content of a small file that is in the repository."""
        fetched = self._persist(
            lambda: self._api.hf_hub_download(self.name, path, repo_type="dataset")
        )
        return Path(fetched).read_bytes()

    def commit(self, files: Sequence[LocalFile], message: str, gone: Sequence[str] = ()) -> None:
        """Upload `files` and commit them at once; those that are there are left alone.

        gone: paths in the repository that are deleted with it. Files behind a URL are copied here
        first, and only for as long as it takes.
        """
        tried = False

        def attempt() -> None:
            nonlocal tried
            missing, deleted = list(files), list(gone)
            if tried:
                there = self.files()
                missing = lacking(files, there)
                deleted = [path for path in gone if path in there]
            tried = True
            if missing or deleted:
                with _at_hand(missing) as places:
                    added = [CommitOperationAdd(path, str(place)) for path, place in places]
                    self._api.create_commit(
                        self.name,
                        [*added, *map(CommitOperationDelete, deleted)],
                        commit_message=message,
                        repo_type="dataset",
                    )

        self._persist(attempt)

    def tag(self, tag: str, manifest: LocalFile) -> None:
        """Name the present state; UserError if the name is given to one with another manifest."""
        self._persist(
            lambda: self._api.create_tag(self.name, tag=tag, repo_type="dataset", exist_ok=True)
        )
        if lacking([manifest], self.files(tag)):
            raise UserError(f"{self.name} has a tag {tag} already, of other content: name another")

    def _persist(self, call: Callable[[], Value]) -> Value:
        """Call until it succeeds, fails for good, or has failed RETRIES times in passing."""
        for retry in range(RETRIES):
            try:
                return call()
            except Exception as error:
                wait = seconds_to_wait(error, retry)
                if wait is None:
                    raise
                self._say(f"{reason(error)}: trying again in {wait:.0f} s")
                time.sleep(wait)
        return call()


@contextmanager
def _at_hand(files: Sequence[LocalFile]) -> Iterator[list[tuple[str, Path]]]:
    """Path in the repository and place on this machine of each, while it lasts."""
    with TemporaryDirectory(prefix="publish-") as folder:
        places = []
        for number, file in enumerate(files):
            source = place = file.source
            if not isinstance(source, Path):
                place = Path(folder) / str(number)
                with reaching(source):
                    source.fs.get_file(source.path, str(place))
            assert isinstance(place, Path)
            places.append((file.path, place))
        yield places


def require_hub(release: ReleasePath, name: str) -> None:
    """UserError of one line where the Hub is out of reach, or nobody has logged in."""
    if why := out_of_reach():
        raise UserError(
            f"{release} is not published ({why}): with a network, "
            f"run `release publish {release} {name}`"
        )
    if get_token() is None:
        raise UserError(f"no right to write {name}: {LOGIN}")


@contextmanager
def hub_failures_in_a_line(release: ReleasePath, name: str) -> Iterator[None]:
    """Turn what the Hub refuses, or fails for good, into a UserError that says how to go on."""
    try:
        yield
    except FAILURES as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise UserError(f"no right to write {name}: {reason(error)}; {LOGIN}") from None
        raise UserError(
            f"publishing stopped: {reason(error)}; what is uploaded is kept: go on with "
            f"`release publish {release} {name}`"
        ) from None


def lacking(files: Sequence[LocalFile], there: dict[str, RepoFile]) -> list[LocalFile]:
    """Those of `files` that are not `there` with the same content."""
    return [f for f in files if f.path not in there or not _is_same(f, there[f.path])]


def _is_same(local: LocalFile, remote: RepoFile) -> bool:
    if remote.lfs is not None:
        return remote.lfs.sha256 == local.sha256
    return remote.size == local.size and remote.blob_id == git_hash(read_bytes(local.source))


def local_file(folder: ReleasePath, path: str) -> LocalFile:
    """A small file of the release."""
    content = read_bytes(folder / path)
    return LocalFile(path, folder / path, len(content), sha256_bytes(content))


def seconds_to_wait(error: BaseException, retry: int) -> float | None:
    """How long to wait before trying again, None if that would not help."""
    backoff = min(LONGEST_WAIT, 2.0**retry)
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in TRANSIENT:
            return None
        return max(_stated_wait(error.response.headers), backoff)
    if isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError):
        return backoff
    # An upload that failed comes wrapped, its own exception as the cause.
    return seconds_to_wait(error.__cause__, retry) if error.__cause__ is not None else None


def _stated_wait(headers: Mapping[str, str]) -> float:
    """Seconds until the Hub takes requests again, as its answer says; 0 if it does not."""
    seconds = headers.get("Retry-After", "")
    limit = parse_ratelimit_headers(headers)
    until_reset = limit.reset_in_seconds if limit and limit.remaining == 0 else 0
    return min(LONGEST_STATED, float(max(int(seconds) if seconds.isdecimal() else 0, until_reset)))


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, HfHubHTTPError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"the Hub answers {error.response.status_code} ({lines[0] if lines else ''})"
    cause = error.__cause__
    own = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{error} {reason(cause)}" if cause is not None else own
