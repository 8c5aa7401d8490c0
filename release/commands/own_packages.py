"""The packages of this project have plain names, which others may have taken."""

import sys
from importlib.util import find_spec
from pathlib import Path

from release.errors import UserError

PACKAGES = ("release", "generation", "builder", "classifiers", "metrics", "cards")
ROOT = Path(__file__).resolve().parents[2]


def require_own_packages() -> None:
    """UserError if Python finds one of them in another place; imports none of them.

    A folder `metrics/` beside a script, or on PYTHONPATH, is found before an installed package.
    """
    for name in PACKAGES:
        for place in _places(name):
            if place.parent != ROOT:
                raise UserError(
                    f"{place} hides this project's package {name!r}, which is in {ROOT}: run the "
                    "command elsewhere, take that folder's parent off PYTHONPATH, or rename it; "
                    "an environment of its own keeps the two apart"
                )


def _places(name: str) -> list[Path]:
    """The folders that `import NAME` means."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module without a specification, such as a test's
        return []
    if spec is None:
        raise UserError(f"this project's package {name!r} is not installed: install it again")
    if spec.submodule_search_locations is None:  # a module NAME.py
        return [Path(spec.origin or sys.prefix).resolve()]
    return [Path(place).resolve() for place in list(spec.submodule_search_locations)[:1]]
