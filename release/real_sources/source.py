"""What every real source is: splits of images that any process can read by index."""

import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

from release.classes.class_list import ClassEntry
from release.errors import UserError, unknown_name

# As load_dataset names the splits it finds in folders.
SPLIT_NAMES = {"val": "validation", "valid": "validation"}
SPLITS = ("train", "validation", "test")  # others keep the name that they come with
# Parts of a release's train, which no split may be called as, with their value of `tuning`.
PSEUDO_SPLITS = {"fit": False, "tuning": True}
SHOWN = 3  # examples that a message names
LASTING = {  # of an image that is not there, or not for us; None: what is there is no image
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, None),
}


class RealSplit(Protocol):
    """One split: labels int[N], a stable key for each image, and its bytes as they came.

    version: changes when the bytes do, and is told without reading them. read: raises OSError or
    UserError where there is nothing to read.
    """

    @property
    def labels(self) -> Sequence[int]: ...
    def key(self, i: int) -> str: ...
    def version(self, i: int) -> str: ...
    def read(self, i: int) -> bytes: ...


@dataclass(frozen=True)
class JoinedList:
    """The class list that a source's classes were found in; labels: which of its ids they are."""

    name: str
    labels: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class RealSource:
    """A real data set. license: its own, "unknown" where the source does not say.

    revision: the commit of a data set on the Hub, or the fingerprint that `datasets` gives it.
    remarks: what its reader should know, a line each, such as what was left out. test_rule: how
    its test split was made, where it came without one.
    """

    name: str
    license: str
    classes: tuple[ClassEntry, ...]
    splits: Mapping[str, RealSplit]
    revision: str | None = None
    remarks: tuple[str, ...] = ()
    joined: JoinedList | None = None
    test_rule: str | None = None

    @property
    def release(self) -> str:
        """What a release of it is called by default: imagenet-1k-real, imagenet-1k-100-real."""
        some = self.joined is not None and len(self.joined.labels) < self.joined.size
        return f"{self.name}-{len(self.classes)}-real" if some else f"{self.name}-real"

    def origin(self) -> dict[str, Any]:
        """What the manifest of a release says of it: class list, labels there, test split."""
        rules = {} if self.test_rule is None else {"test_rule": self.test_rule}
        if self.joined is None:
            return rules
        whole = len(self.joined.labels) == self.joined.size
        labels = {} if whole else {"class_list_labels": list(self.joined.labels)}
        return {"class_list": self.joined.name, **labels, **rules}


@dataclass(frozen=True)
class SourceName:
    """A source as it is named in a state, a manifest and to a worker: one line of text.

    `NAME?option=value&…`, as in a URL; the options are those of `build-dataset --real`, numbers as
    they are written there.
    """

    name: str
    classes_from: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    test_share: str | None = None
    split_seed: str | None = None

    def __str__(self) -> str:
        options = {key: value for key, value in self._options().items() if value is not None}
        return f"{self.name}?{urlencode(options)}" if options else self.name

    def _options(self) -> dict[str, str | None]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}

    @classmethod
    def parse(cls, text: str) -> "SourceName":
        """Raises UserError for an option that there is not."""
        name, separator, query = text.rpartition("?")
        options = dict(parse_qsl(query))
        if not separator or not options or Path(text).is_dir():  # "?" may stand in a folder's name
            return cls(text)
        known = cls(name)._options()
        for option in options:
            if option not in known:
                raise unknown_name("option of a source", option, known)
        return cls(name, **options)


def file_version(path: Path) -> str:
    """Size, time of the last change and permissions; what is wrong where there is no such file.

    tar and rsync keep them, so that a copy on another machine counts as the same.
    """
    try:
        status = path.stat()
    except OSError as error:
        return str(error.strerror)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_mode:o}"


def cannot_be_read(error: OSError) -> str | None:
    """Why there is no such image; None for what may pass: a disk or a network in trouble."""
    return str(error.strerror or error) if error.errno in LASTING else None


def split_name(name: str) -> str:
    """The split's name in a release, whose files are SPLIT-*.parquet: so it holds no hyphen."""
    if not re.fullmatch(r"\w+", name):
        raise UserError(f"split {name!r}: its name may hold letters, digits and _ alone; rename it")
    if name in PSEUDO_SPLITS:
        raise UserError(f"split {name!r}: a release calls a part of its train so; rename the split")
    return SPLIT_NAMES.get(name, name)


def named_splits(splits: Mapping[str, Any]) -> dict[str, Any]:
    """`splits` by the names they have in a release; UserError if two would have the same."""
    named: dict[str, Any] = {}
    for name, split in splits.items():
        if split_name(name) in named:
            raise UserError(f"splits {', '.join(splits)}: two of them would be {split_name(name)}")
        named[split_name(name)] = split
    return named


def first_few(names: Sequence[str]) -> str:
    """The first names, and how many there are if there are more."""
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} … ({len(names)})"
