"""How a recipe that was changed is called."""

from collections.abc import Sequence

MOST = 3  # changes that are named


def with_changes(name: str, changes: Sequence[str]) -> str:
    """ "imagenet-resnet50 with epochs=1, batch=64"."""
    if not changes:
        return name
    more = len(changes) - MOST
    rest = f" and {more} more setting{'' if more == 1 else 's'}" if more > 0 else ""
    return f"{name} with {', '.join(changes[:MOST])}{rest}"
