"""The stop flag: set on every worker by the client, looked at between batches."""

_stopped: set[str] = set()
_current: list[str] = []


class Stopped(Exception):  # noqa: N818 - asked for, not an error
    """The build was told to stop; the shard in hand is not finished."""


def stop_run(run: str) -> None:
    """Make the jobs of build `run` on this process stop at their next batch."""
    _stopped.add(run)


def begin_job(run: str) -> None:
    """What follows on this process belongs to `run`; raises Stopped if that was stopped."""
    _current[:] = [run]
    raise_if_stopped()


def is_stopped() -> bool:
    """Whether the build at work here was told to stop."""
    return bool(_current) and _current[0] in _stopped


def raise_if_stopped() -> None:
    """Raise Stopped if it was."""
    if is_stopped():
        raise Stopped
