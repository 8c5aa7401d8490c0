"""What commands say of their progress, in a terminal and without one."""

import re
import time

import pytest

from release.commands.progress import Pace, progress_bar


def test_the_time_left_is_of_recent_work() -> None:
    """A cheap first stage, then one ten times as dear: 900 images at 1 a second are left."""
    pace = Pace(2000, 0.0)
    for second in range(1, 101):
        pace.advance(10, float(second))
    assert pace.left(100.0) == pytest.approx(100)
    for second in range(101, 201):
        pace.advance(1, float(second))
    assert pace.rate(200.0) == pytest.approx(1, rel=0.05)
    assert pace.left(200.0) == pytest.approx(900, rel=0.05)


def test_what_was_done_before_counts_for_no_speed() -> None:
    pace = Pace(6000, 0.0)
    pace.advance(5000, 0.1)
    pace.advance(10, 10.1)
    assert pace.rate(10.1) == pytest.approx(1)
    assert pace.left(10.1) == pytest.approx(990)


def test_a_stall_shows() -> None:
    pace = Pace(100, 0.0)
    pace.advance(10, 10.0)
    assert pace.left(10.0) == pytest.approx(90)
    assert pace.left(100.0) == pytest.approx(900)


def test_work_in_large_pieces_has_a_rate() -> None:
    pace = Pace(1000, 0.0)
    assert pace.left_text(5.0) == "-:--:-- left"
    for number in range(1, 6):
        pace.advance(100, 200.0 * number)
    assert pace.rate(1000.0) == pytest.approx(0.5)
    assert pace.left_text(1000.0) == "0:16:40 left"


def test_without_a_terminal_there_are_plain_lines_even_while_nothing_gets_done(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("release.commands.progress.LINE_S", 0.05)
    with progress_bar(4, "tiny", "steps", quiet=False) as advance:
        time.sleep(0.3)
        advance(4)
    first, *_, last = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"tiny: 0 of 4 steps, -/s, 0:00:00, -:--:-- left", first)
    assert re.fullmatch(r"tiny: 4 of 4 steps, .*/s, 0:00:00, 0:00:00 left", last)


def test_quiet_is_quiet_and_a_short_task_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        with progress_bar(2, "tiny", "steps", quiet=quiet) as advance:
            advance(2)
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_bar_does_not_cut_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bar(60_000, "fashion-mnist-real", "images", quiet=False) as advance:
        advance(60_000)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().err)
    assert "60000/60000" in text
    assert "0:00:00 left" in text
    assert "…" not in text
