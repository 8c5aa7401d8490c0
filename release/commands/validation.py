"""Content that people or other programs wrote, as a pydantic model; errors are one line each."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from release.errors import UserError, unknown_name

Model = TypeVar("Model", bound=BaseModel)
Place = Sequence[str | int]  # keys and positions, from the outside in


def validated(model: type[Model], content: Any, source: str) -> Model:
    """`content` as `model`; UserError names the source, the place in it and what is wrong there."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {complaint(model, content, error)[1]}") from None


def complaint(model: type[BaseModel], content: Any, error: ValidationError) -> tuple[Place, str]:
    """Where the worst error is, and the setting there with what is wrong with it.

    For a setting that does not exist the text lists those that do.
    """
    # an unknown setting first: it may be why another one is missing
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = _place(first, content)
    if first["type"] != "extra_forbidden":
        return place, ": ".join(part for part in (_spelled(place), reason(first)) if part)
    *table, name = place
    unknown = unknown_name("setting", str(name), _known(model, table))
    return place, ": ".join(part for part in (_spelled(table), str(unknown)) if part)


def misfit(content: Any, error: ValidationError) -> str:
    """Where the first error is and what is wrong there, for a type that is no model."""
    first = error.errors()[0]
    return ": ".join(part for part in (_spelled(_place(first, content)), reason(first)) if part)


def reason(error: ErrorDetails) -> str:
    """What pydantic says is wrong, with the value that was given where it is a plain one."""
    message = error["msg"].removeprefix("Value error, ")
    plain = isinstance(error["input"], str | int | float)
    if error["type"] in ("value_error", "extra_forbidden") or not plain:
        return message
    return f"{message}, not {error['input']!r}"


def _place(error: ErrorDetails, content: Any) -> list[str | int]:
    """Where in the content it is: pydantic's place less the names of a type's alternatives."""
    place: list[str | int] = []
    for part in error["loc"]:
        in_list = isinstance(content, list) and isinstance(part, int)
        if in_list or (isinstance(content, dict) and part in content):
            content = content[part]
        elif error["type"] != "missing":
            break
        place.append(part)
    return place


def _spelled(place: Place) -> str:
    """As people count: the third table [[arm]] is "arm 3"."""
    text = ""
    for before, part in zip(("", *place), place, strict=False):
        if isinstance(part, int):
            text += f" {part + 1}"
        else:
            text += f"{': ' if isinstance(before, int) else '.' if text else ''}{part}"
    return text


def _known(model: type[BaseModel], table: Place) -> list[str]:
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
