"""Whether a second, weaker network can guide another: what both must have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from release.errors import shortened

OWN_ALONE = (
    "cannot guide it: of this generator only checkpoints that finetune-generator wrote guide, and "
    "are guided by, another"
)


def guide_difference(
    network: Mapping[str, Any],
    guide: Mapping[str, Any],
    classes: Sequence[str] = (),
    known: Sequence[str] = (),
) -> str | None:
    """Where a guide is not as the network it is to guide, in words that follow its name.

    None if it fits. network, guide: facts of both by the same names. classes: those of the network;
    known: the guide's, which may be more.
    """
    for name, value in network.items():
        if guide[name] != value:
            return (
                f"has {name} {shortened(str(guide[name]))}, the network it is to guide "
                f"{shortened(str(value))}"
            )
    lacking = [one for one in classes if one not in set(known)]
    if lacking:
        return f"does not know the class {lacking[0]!r}, which the network it is to guide knows"
    return None
