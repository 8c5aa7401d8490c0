"""A shard that takes so little that nothing of it is kept halfway."""

from builder.shards.slots import Slots


class NothingKept:
    """What fill_slots asks for what was done before, and when to keep what is done."""

    def take_up(self, slots: Slots) -> dict[int, bytes]:  # noqa: ARG002
        return {}

    def due(self, *, stopped: bool) -> bool:  # noqa: ARG002
        return False

    def save(self, slots: Slots, images: dict[int, bytes]) -> None:  # noqa: ARG002
        raise AssertionError
