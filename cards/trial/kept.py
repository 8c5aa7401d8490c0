"""What a rerun of a trial says at its start: what is kept, and where the work goes on."""

from collections.abc import Sequence
from pathlib import Path

from cards.trial.log import StepLog, bare
from cards.trial.steps import Step


def told_kept(steps: Sequence[Step], log: StepLog) -> str | None:
    """One line; None where nothing was begun. steps: as far as they are planned."""
    done = [step.title for step in steps if log.is_done(step)]
    left = log.unfinished
    halted = next(
        (
            step
            for step in steps
            if left is not None and bare(left.line) == bare(step.line) and not log.is_done(step)
        ),
        None,
    )
    if not done and halted is None:
        return None
    told = f"kept from before: {'; '.join(done) or 'no whole step'}"
    return told if halted is None else f"{told}. Was under way: {halted.title}; {_goes_on(halted)}"


def _goes_on(step: Step) -> str:
    """Where a command that was ended early takes up its work."""
    if step.words[0] == "run-study":
        return "its finished trainings are kept, others go on from the states that they saved"
    if step.words[0] == "build-dataset":
        return "its finished shards are kept, it goes on with the others"
    from generation.training.loop.state_files import saved_step

    done = saved_step(Path(step.option("--out")))
    steps = f"step {done:,} of {int(step.option('--steps')):,}"
    if not done:
        return f"no state was saved yet, it goes on from {steps}"
    return f"it goes on from its last saved state, {steps}"
