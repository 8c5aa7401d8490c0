"""Files that a user names: one of ours by its name alone, anyone's by its path."""

from pathlib import Path

from release.errors import UserError, nearest, shortened, unknown_name


def names_in(folder: Path, suffix: str) -> list[str]:
    """The names of the files of that kind in a folder of ours, sorted."""
    return sorted(path.stem for path in folder.glob(f"*{suffix}"))


def named_file(kind: str, folder: Path, suffix: str, source: str) -> Path:
    """The file of `folder` whose name is `source`, or the one at the path `source`.

    What has a separator or a suffix is a path. UserError for a name or a file that is not there,
    with the nearest one that is.
    """
    known = names_in(folder, suffix)
    if source in known:
        return folder / f"{source}{suffix}"
    path = Path(source)
    if path.name == source and not path.suffix:
        raise unknown_name(kind, source, known)
    if is_file(path):
        return path
    beside = [str(path.with_name(found.name)) for found in _files(path.parent, suffix)]
    near = nearest(source, beside) or nearest(path.stem, known)
    raise UserError(f"{kind} {shortened(source)} does not exist: there is no such file{near}")


def require_folder(path: Path, option: str) -> None:
    """UserError if no folder can be made at `path` because a file is in the way."""
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if place.exists():
            where = "" if place == path else f": {place}"
            raise UserError(f"{option} {path}{where} is a file; name a folder")


def no_folder(path: object) -> str | None:
    """None where `path` is a folder or a URL; else why not, and what names the nearest one."""
    if not isinstance(path, Path) or path.is_dir():
        return None
    if is_file(path):
        return "that is a file, not a folder"
    return f"there is no such folder{nearest_folder(path)}"


def nearest_folder(path: Path) -> str:
    """What names a folder beside `path` of nearly its name; "" if there is none, or it is one."""
    if path.is_dir():
        return ""
    try:
        beside = [str(path.with_name(f.name)) for f in path.parent.iterdir() if f.is_dir()]
    except (OSError, ValueError):
        beside = []
    return nearest(str(path), beside)


def is_file(path: Path) -> bool:
    """Whether there is such a file; what can be no path at all is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, not to be looked at; with a NUL in it
        return False


def _files(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(folder.glob(f"*{suffix}"))
    except (OSError, ValueError):
        return []


def read_utf8(path: Path) -> str:
    """The file's text in UTF-8, with or without a byte order mark; ValueError for other bytes."""
    return path.read_text(encoding="utf-8-sig")
