"""Reading a recipe that a person wrote as TOML: by name from a folder of ours, or from a file."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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
    parsed = {change: _parse_change(change) for change in changes}
    for change in parsed.values():
        content = merged(content, change)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # an unknown setting first: it may be why another one is missing
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        place = _place(first, content)
        inputs = _inputs(f"{kind} {source}", parsed, place)
        raise UserError(f"{inputs}: {_complaint(model, first, place)}") from None


def _inputs(source: str, changes: Mapping[str, Any], place: Sequence[str | int]) -> str:
    """What the user gave that holds the error: the changes at its place, else the file.

    An error of no place is of settings that do not fit each other, from either.
    """
    guilty = [f"--set {text}" for text, change in changes.items() if _holds(change, place)]
    return " ".join(guilty if guilty and place else [source, *guilty])


def reason(error: ErrorDetails) -> str:
    """What pydantic says is wrong, with the value that was given where it is a plain one."""
    message = error["msg"].removeprefix("Value error, ")
    plain = isinstance(error["input"], str | int | float)
    if error["type"] in ("value_error", "extra_forbidden") or not plain:
        return message
    return f"{message}, not {error['input']!r}"


def _complaint(model: type[BaseModel], error: ErrorDetails, place: Sequence[str | int]) -> str:
    """The setting and what is wrong with it; for an unknown one, which are known there."""
    if error["type"] != "extra_forbidden":
        return ": ".join(part for part in (_spelled(place), reason(error)) if part)
    *table, name = place
    unknown = unknown_name("setting", str(name), _known(model, table))
    return ": ".join(part for part in (_spelled(table), str(unknown)) if part)


def _place(error: ErrorDetails, content: Any) -> list[str | int]:
    """Where in the file the error is: pydantic's place less the names of a type's alternatives."""
    place: list[str | int] = []
    for part in error["loc"]:
        in_list = isinstance(content, list) and isinstance(part, int)
        if in_list or (isinstance(content, dict) and part in content):
            content = content[part]
        elif error["type"] != "missing":
            break
        place.append(part)
    return place


def _holds(change: Any, place: Sequence[str | int]) -> bool:
    """Whether a change sets what stands at `place`, or something in it."""
    for part in place:
        if not isinstance(change, dict):
            return True
        if part not in change:
            return False
        change = change[part]
    return True


def _spelled(place: Sequence[str | int]) -> str:
    """As people count: the third table [[arm]] is "arm 3"."""
    text = ""
    for before, part in zip(("", *place), place, strict=False):
        if isinstance(part, int):
            text += f" {part + 1}"
        else:
            text += f"{': ' if isinstance(before, int) else '.' if text else ''}{part}"
    return text


def _known(model: type[BaseModel], table: Sequence[str | int]) -> list[str]:
    """The settings of the table at that place, as they are written in the file."""
    for part in table:
        fields = (f for name, f in model.model_fields.items() if part in (name, f.alias))
        model = next((m for field in fields for m in _models_in(field.annotation)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


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
