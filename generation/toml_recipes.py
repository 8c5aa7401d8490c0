"""Reading a recipe that a person wrote as TOML: by name from a folder of ours, or from a file."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from generation.errors import UserError, unknown_name

Model = TypeVar("Model", bound=BaseModel)
BASE = "base"


def recipe_names_in(folder: Path) -> list[str]:
    """The recipes that a folder of ours holds, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_toml(
    model: type[Model], kind: str, folder: Path, source: str, changes: Sequence[str] = ()
) -> Model:
    """`source` as `model`: a file if it ends in .toml, else `folder`/SOURCE.toml.

    A file that names another recipe as its `base` holds only what differs from that. changes:
    settings such as "epochs=10" or "augmentation.flip=true", in TOML's notation, that replace the
    file's. Raises UserError, one line, for an unknown name, bad TOML, or a field that does not fit.
    """
    content = _read(kind, folder, source, ())
    for change in changes:
        content = merged(content, _parse_change(change))
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind
        raise UserError(f"{kind} {_path(folder, source)}: {where}: {first['msg']}") from None


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes` in it, table by table."""
    result = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def _path(folder: Path, source: str) -> Path:
    return Path(source) if source.endswith(".toml") else folder / f"{source}.toml"


def _read(kind: str, folder: Path, source: str, children: tuple[str, ...]) -> dict[str, Any]:
    """The file's content within that of its base, and so on."""
    path = _path(folder, source)
    if not path.is_file():
        if source.endswith(".toml"):
            raise UserError(f"{kind} {source} does not exist")
        raise unknown_name(kind, source, recipe_names_in(folder))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{kind} {path} is not valid TOML: {error}") from None
    base = content.pop(BASE, None)
    if base is None:
        return content
    if not isinstance(base, str) or base in (source, *children):
        raise UserError(f"{kind} {path}: base {base!r} is not the name of another recipe")
    return merged(_read(kind, folder, base, (source, *children)), content)


def _parse_change(change: str) -> dict[str, Any]:
    """ "a.b=1" as {"a": {"b": 1}}; a value that is no TOML is a string."""
    key, equals, value = change.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {change!r}: give NAME=VALUE, such as epochs=10")
    for text in (value, f"'{value.strip()}'"):
        try:
            return tomllib.loads(f"{key} = {text}")
        except tomllib.TOMLDecodeError as error:
            reason = error
    raise UserError(f"--set {change!r} cannot be read: {reason}")
