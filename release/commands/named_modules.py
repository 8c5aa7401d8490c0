"""Modules that a recipe names: one of ours by its name, anyone's by its dotted name."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType

from release.errors import UserError, unknown_name


def named_module(
    kind: str, name: str, ours: Mapping[str, str], members: Sequence[str]
) -> ModuleType:
    """The module of `name`; UserError if it cannot be imported, or lacks one of `members`."""
    if name not in ours and "." not in name:
        raise unknown_name(kind, name, ours)
    try:
        module = import_module(ours.get(name, name))
    except Exception as error:  # whatever the module of another raises while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{kind} {name} cannot be imported: {reason}") from None
    for member in members:
        if not hasattr(module, member):
            raise UserError(f"{kind} {name} is no module of that kind: it has no {member!r}")
    return module
