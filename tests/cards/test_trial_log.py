"""What a trial knows of its commands' time, and how it waits for one that outlived it."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cards.trial import steps
from cards.trial.log import StepLog
from release.errors import UserError

STEP = steps.Step("its images", ("build-dataset", "--out", "made"))


def killed_run(out: Path, hours_ago: float) -> None:
    """A trial whose command began so long ago, and that noted no end."""
    StepLog(out).begin(STEP)
    path = out / "unfinished.json"
    since = time.time() - 3600 * hours_ago
    path.write_text(json.dumps({**json.loads(path.read_text()), "since": since}))
    os.utime(path, (since, since))


def test_a_command_that_outlived_a_killed_trial_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with steps.held(tmp_path, quiet=False) as lock:
        outliving = subprocess.Popen(["sleep", "0.5"], pass_fds=(lock,))
    killed_run(tmp_path, hours_ago=2)
    with steps.held(tmp_path, quiet=False):
        assert outliving.poll() is not None or outliving.wait(0.2) == 0
    told = capsys.readouterr().err
    expected = f"build-dataset is still at work in {tmp_path}, for 2.0 hours now: its images"
    assert told.startswith(f"{expected}; waiting for its end\n")
    assert "waiting for build-dataset: 1 of 1 command" in told
    # it was at work until now, so all of the two hours are its own
    log = StepLog(tmp_path)
    log.begin(STEP)
    log.end(60, done=True)
    assert log.seconds[STEP.line] == pytest.approx(7260, abs=5)
    with steps.held(tmp_path, quiet=False):
        assert not capsys.readouterr().err


def test_nothing_but_one_line_is_told_under_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with steps.held(tmp_path, quiet=True) as lock:
        outliving = subprocess.Popen(["sleep", "0.3"], pass_fds=(lock,))
    with steps.held(tmp_path, quiet=True):
        assert outliving.wait(1) == 0
    told = f"a command of this trial is still at work in {tmp_path}; waiting for its end\n"
    assert capsys.readouterr().err == told


def test_a_killed_run_counts_up_to_the_last_file_that_it_wrote(tmp_path: Path):
    killed_run(tmp_path, hours_ago=2)
    (tmp_path / "made").mkdir()
    shard = tmp_path / "made/shard"
    shard.touch()
    os.utime(shard, (time.time() - 3600,) * 2)
    log = StepLog(tmp_path)
    log.begin(STEP)
    log.end(60, done=True)
    assert log.seconds[STEP.line] == pytest.approx(3660, abs=5)


def test_the_runs_of_a_command_add_up(tmp_path: Path):
    for seconds, done in ((10, False), (20, False), (30, True)):
        log = StepLog(tmp_path)
        log.begin(STEP)
        log.end(seconds, done=done)
    other = steps.Step("a study", ("run-study", "study.toml"))
    log.begin(other)
    log.end(5, done=True)
    assert StepLog(tmp_path).seconds == {STEP.line: 60, other.line: 5}


@pytest.mark.parametrize("name", ["commands.json", "unfinished.json"])
def test_a_damaged_log_is_one_line(tmp_path: Path, name: str):
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=rf"{name} is damaged: remove it"):
        StepLog(tmp_path)
