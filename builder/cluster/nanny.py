"""The nanny of a worker on this machine: as Dask's, which gives up where a worker dies early."""

from distributed import Nanny, Status

STARTS = 5
ENDING = (Status.closing, Status.closing_gracefully, Status.closed, Status.failed)


class PersistentNanny(Nanny):  # type: ignore[misc]
    """Starts its worker again if that is killed while it starts; after STARTS times it gives up."""

    async def instantiate(self) -> Status:
        """Status.running once the worker has registered."""
        status = await super().instantiate()
        for _ in range(STARTS - 1):
            if status == Status.running or self.status in ENDING:
                break
            status = await super().instantiate()
        return status
