"""Modules that a recipe names: one of ours by its name, anyone's by its dotted name."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from release.errors import UserError, unknown_name


def named_module(kind: str, name: str, ours: Mapping[str, str], members: Sequence[str]) -> Any:
    """The module of `name`, or its object where `ours` says "module:object".

    UserError if it cannot be imported, or lacks one of `members`.
    """
    if name not in ours and "." not in name:
        raise unknown_name(kind, name, ours)
    try:
        place, _, attribute = ours.get(name, name).partition(":")
        module = import_module(place)
    except Exception as error:  # whatever the module of another raises while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{kind} {name} cannot be imported: {reason}") from None
    found = getattr(module, attribute) if attribute else module
    for member in members:
        if not hasattr(found, member):
            raise UserError(f"{kind} {name} is no module of that kind: it has no {member!r}")
    return found
