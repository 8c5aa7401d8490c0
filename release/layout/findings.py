"""What a verification finds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from release.commands.terminal import printable
from release.files.commit import sha256_file
from release.files.storage import ReleasePath, file_size


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be. path: the file within the release."""

    path: str
    text: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.text}")


@dataclass(frozen=True)
class Report:
    """A verified release."""

    shards: int
    images: int
    bytes: int
    problems: tuple[Problem, ...]

    @property
    def intact(self) -> bool:
        return not self.problems

    def damaged(self) -> list[str]:
        """Paths of what has problems, each once, in order."""
        return list(dict.fromkeys(problem.path for problem in self.problems))


def differing(what: str, names: Sequence[str], found: Iterable, wanted: Iterable) -> list[str]:
    """One line if `found` differs from `wanted` in any row; it names the first of them."""
    rows = [i for i, (f, w) in enumerate(zip(found, wanted, strict=True)) if f != w]
    if not rows:
        return []
    return [f"{what} in {len(rows)} of {len(names)} rows, the first {names[rows[0]]}"]


def damage(path: ReleasePath, size: int, sha256: str) -> str | None:
    """How the file's bytes are not those of `size` and `sha256`, None if they are."""
    try:
        found = file_size(path)
    except FileNotFoundError:
        return "is missing"
    if found != size:
        return f"has {found:,} bytes, the manifest says {size:,}"
    digest = sha256_file(path)
    if digest != sha256:
        return f"has SHA-256 {digest[:12]}…, the manifest says {sha256[:12]}…"
    return None
