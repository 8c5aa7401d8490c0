"""Reading a recipe that a person wrote as TOML: by name from a folder of ours, or from a file."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from release.commands.named_files import named_file, names_in, read_utf8
from release.commands.validation import Model, Place, complaint
from release.errors import UserError
from release.files.names import plain_name

BASE, NAME, SUFFIX = "base", "name", ".toml"


def recipe_names_in(folder: Path) -> list[str]:
    """The recipes that a folder of ours holds, sorted."""
    return names_in(folder, SUFFIX)


def recipe_descriptions(folder: Path) -> dict[str, str]:
    """What each of the recipes in a folder of ours says it is."""
    return {
        name: str(_read("recipe", folder, name, ()).get("description", ""))
        for name in recipe_names_in(folder)
    }


def recipe_text(folder: Path, name: str, kind: str = "recipe") -> str:
    """A recipe of ours as it is written, after the one that it names as its `base`."""
    text = read_utf8(named_file(kind, folder, SUFFIX, name))
    base = tomllib.loads(text).get(BASE)
    if base is None:
        return text
    above = "".join(f"# {line}\n" for line in recipe_text(folder, base, kind).splitlines())
    return f"# {base}, which {name} changes:\n#\n{above}\n{text}"


def setting_in(kind: str, folder: Path, source: str, name: str) -> Any:
    """One of the outermost settings of a recipe, as it is written; None where it is left out."""
    return _read(kind, folder, source, ()).get(name)


def load_toml(
    model: type[Model], kind: str, folder: Path, source: str, changes: Sequence[str] = ()
) -> Model:
    """`source` as `model`: one of `folder` by its name, else the file at that path.

    A file that names another recipe as its `base` holds only what differs from that. changes:
    settings such as "epochs=10" or "augmentation.flip=true", in TOML's notation, that replace the
    file's. Raises UserError, one line, for an unknown name, bad TOML, a field that does not fit, or
    a recipe whose own name is not plain.
    """
    content = _read(kind, folder, source, ())
    parsed = {change: _parse_change(change) for change in changes}
    for change in parsed.values():
        content = merged(content, change)
    try:
        chosen = model.model_validate(content)
    except ValidationError as error:
        place, text = complaint(model, content, error)
        raise UserError(f"{_inputs(f'{kind} {source}', parsed, place)}: {text}") from None
    try:  # what is made goes into folders and files that are named after the recipe
        plain_name(content[NAME])
    except ValueError as error:
        inputs = _inputs(f"{kind} {source}", parsed, [NAME])
        raise UserError(f"{inputs}: {NAME}: {error}") from None
    return chosen


def _inputs(source: str, changes: Mapping[str, Any], place: Place) -> str:
    """What the user gave that holds the error: the changes at its place, else the file.

    An error of no place is of settings that do not fit each other, from either.
    """
    guilty = [f"--set {text}" for text, change in changes.items() if _holds(change, place)]
    return " ".join(guilty if guilty and place else [source, *guilty])


def _holds(change: Any, place: Place) -> bool:
    """Whether a change sets what stands at `place`, or something in it."""
    for part in place:
        if not isinstance(change, dict):
            return True
        if part not in change:
            return False
        change = change[part]
    return True


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes` in it, table by table."""
    result = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def _read(kind: str, folder: Path, source: str, children: tuple[str, ...]) -> dict[str, Any]:
    """The file's content within that of its base, and so on."""
    path = named_file(kind, folder, SUFFIX, source)
    try:
        content = tomllib.loads(read_utf8(path))
    except UnicodeDecodeError:
        raise UserError(f"{kind} {path} is not valid TOML: it is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{kind} {path} is not valid TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{kind} {path} is not valid TOML: it is nested too deeply") from None
    if _has_nul(content):
        raise UserError(f"{kind} {path}: a text in it has a NUL character, \\u0000: take it out")
    base = content.pop(BASE, None)
    if base is None:
        return content
    if not isinstance(base, str) or base in (source, *children):
        raise UserError(f"{kind} {path}: base {base!r} is not the name of another recipe")
    return merged(_read(kind, folder, base, (source, *children)), content)


def _has_nul(content: Any) -> bool:
    """Whether a text has a character that no file's name may have, nor any other setting needs."""
    if isinstance(content, dict):
        return any(_has_nul(part) for part in content.values())
    if isinstance(content, list):
        return any(_has_nul(part) for part in content)
    return isinstance(content, str) and "\0" in content


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
