"""What a trial knows of its commands' time, and how it waits for one that outlived it."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cards.trial import conducting, steps
from cards.trial.kept import told_kept
from cards.trial.log import StepLog
from generation.training.loop.state_files import TrainingStates
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


def trial_steps(out: Path) -> list[steps.Step]:
    (out / "build.toml").touch()
    training = ("finetune-generator", "--steps", "1250", "--out", str(out / "runs/16"))
    return [
        steps.Step("the images", ("build-dataset", "--real", "photos")),
        steps.Step("the stage at 16 px", training),
        steps.Step("its images", ("build-dataset",), reads=out / "build.toml"),
        steps.Step("classifiers", ("run-study",)),
    ]


@pytest.mark.parametrize(
    ("done", "told"),
    [
        (0, "no whole step. Was under way: the images; its finished shards are kept"),
        (1, "the images. Was under way: the stage at 16 px; no state was saved yet, it goes on fr"),
        (2, "the images; the stage at 16 px. Was under way: its images; its finished shards"),
        (3, "the images; the stage at 16 px; its images. Was under way: classifiers; its finished"),
    ],
)
def test_a_rerun_says_what_is_kept_and_what_goes_on(tmp_path: Path, done: int, told: str):
    made = trial_steps(tmp_path)
    assert told_kept(made, StepLog(tmp_path)) is None
    for number in range(done + 1):
        log = StepLog(tmp_path)
        log.begin(made[number])
        if number < done:
            log.end(1, done=True)
    line = told_kept(made, StepLog(tmp_path))
    assert line is not None
    assert line.startswith(f"kept from before: {told}")


def test_a_rerun_says_from_which_step_a_training_goes_on(tmp_path: Path):
    made = trial_steps(tmp_path)
    StepLog(tmp_path).begin(made[1])
    states = TrainingStates(tmp_path / "runs/16")
    for step, said in (
        (0, "no state was saved yet, it goes on from step 0 of 1,250"),
        (1000, "it goes on from its last saved state, step 1,000 of 1,250"),
        (1100, "it goes on from its last saved state, step 1,100 of 1,250"),
    ):
        if step:
            (tmp_path / "runs/16").mkdir(parents=True, exist_ok=True)
            states.write({"step": step})
        assert str(told_kept(made, StepLog(tmp_path))).endswith(said)
    (tmp_path / "runs/16/state.pt").write_bytes(b"cut")  # the training takes the one before it
    assert str(told_kept(made, StepLog(tmp_path))).endswith("step 1,000 of 1,250")


def test_a_finished_trial_says_that_all_is_kept(tmp_path: Path):
    made, log = trial_steps(tmp_path), StepLog(tmp_path)
    for step in made:
        log.begin(step)
        log.end(1, done=True)
    everything = "kept from before: the images; the stage at 16 px; its images; classifiers"
    assert told_kept(made, log) == everything


@pytest.mark.parametrize("finished", [True, False])
def test_a_rerun_tells_what_is_kept_before_any_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: bool,
):
    """And the line that a shell needs where commands follow."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    made, log = trial_steps(tmp_path), StepLog(tmp_path)
    for step in made if finished else made[:1]:
        log.begin(step)
        log.end(1, done=True)
    conducting.tell_start(made, log, are_all=True)
    kept, *others = capsys.readouterr().err.splitlines()
    assert kept.startswith("kept from before: the images")
    assert others == ([] if finished else [f"$ {steps.path_line()}"])
    # the import is done, what follows is not planned yet
    conducting.tell_start(made[:1], log, are_all=False)
    assert f"$ {steps.path_line()}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["commands.json", "unfinished.json"])
def test_a_damaged_log_is_one_line(tmp_path: Path, name: str):
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=rf"{name} is damaged: remove it"):
        StepLog(tmp_path)
