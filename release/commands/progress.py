"""The progress of every command: done, rate and time left, on standard error.

A bar in a terminal, plain lines anywhere else. Rates are of recent work.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import IO

LINE_S = 10.0  # between lines at first, then a twentieth of the time that went by, so that a log
LONGEST_LINE_S = 60.0  # stays short; but a reader waits for no line longer than this
RECENT_S = 60.0  # a rate is of the work of the last minute,
RECENT_REPORTS = 8  # and of at least so many reports, for work that comes in large pieces
TOGETHER_S = 0.5  # reports this close count as one
AT_ONCE_S = 1.0  # what is reported so early was done before: a rerun's finished part


class Pace:
    """How fast `total` units get done. Times are seconds of one clock that only goes forward."""

    def __init__(self, total: int, now: float) -> None:
        self.total, self.done = total, 0
        self._start = now
        self._reports: deque[tuple[float, int]] = deque([(now, 0)])

    def advance(self, n: int, now: float) -> None:
        """`n` more units are done."""
        self.done += n
        if now - self._start < AT_ONCE_S:
            self._reports.clear()
        if len(self._reports) > 1 and now - self._reports[-2][0] < TOGETHER_S:
            self._reports.pop()
        self._reports.append((now, self.done))
        while len(self._reports) > RECENT_REPORTS and now - self._reports[1][0] > RECENT_S:
            self._reports.popleft()

    def elapsed(self, now: float) -> float:
        """Seconds since the start."""
        return now - self._start

    def rate(self, now: float) -> float | None:
        """Units a second of recent work, less and less while none comes; None before any."""
        then, before = self._reports[0]
        return (self.done - before) / (now - then) if self.done > before and now > then else None

    def left(self, now: float) -> float | None:
        """Seconds to the end at that rate, None before there is one."""
        if self.done >= self.total:
            return 0.0
        rate = self.rate(now)
        return (self.total - self.done) / rate if rate else None

    def rate_text(self, now: float) -> str:
        rate = self.rate(now)
        return f"{rate:,.1f}/s" if rate else "-/s"

    def left_text(self, now: float) -> str:
        return f"{_spelled(self.left(now))} left"

    def line(self, label: str, unit: str, now: float) -> str:
        """All of it in plain text."""
        count = f"{self.done:,} of {self.total:,} {unit}"
        taken = _spelled(self.elapsed(now))
        return f"{label}: {count}, {self.rate_text(now)}, {taken}, {self.left_text(now)}"


@contextmanager
def progress_bar(
    total: int, label: str, unit: str, *, quiet: bool
) -> Iterator[Callable[[int], None]]:
    """Progress over `total` units; yields the function that moves it by n. Silent when `quiet`."""
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console

    console = Console(file=sys.stderr)
    pace = Pace(total, time.monotonic())
    if console.is_terminal:
        from release.commands.bar import draw_bar

        with draw_bar(console, pace, label, unit) as advance:
            yield advance
    else:
        with _lines(sys.stderr, pace, label, unit) as advance:
            yield advance


@contextmanager
def _lines(stream: IO[str], pace: Pace, label: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Lines now and then, whether or not anything gets done, and one in the end."""
    lock, over = threading.Lock(), threading.Event()

    def say() -> None:
        with lock:
            print(pace.line(label, unit, time.monotonic()), file=stream, flush=True)

    def say_now_and_then() -> None:
        while not over.wait(_pause(pace.elapsed(time.monotonic()))):
            say()

    def advance(n: int) -> None:
        with lock:
            pace.advance(n, time.monotonic())

    teller = threading.Thread(target=say_now_and_then, name="progress", daemon=True)
    teller.start()
    try:
        yield advance
    finally:
        over.set()
        teller.join()
        say()


def _pause(elapsed: float) -> float:
    return min(LONGEST_LINE_S, max(LINE_S, elapsed / 20))


def _spelled(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
