"""Work beside a training: what it saves is written while it goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Aside:
    """One piece of work at a time, in a thread; all is done when the context ends.

    A failure is raised by the next call, at the latest by the end of the context.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saving")
        self._work: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Once what was started before is done, so that memory holds what one of them writes."""
        self.wait()
        self._work = self._thread.submit(work)

    def wait(self) -> None:
        """Until nothing is left to do."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()
