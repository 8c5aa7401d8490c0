"""One loop that trains every family: generators, whatever they learn by, and classifiers.

What is learned and from what is handed in (objective.py); what changes meanwhile is a Learner
(learner.py): modules, averages, optimizers, gradients of several parts and processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from generation.training.loop.aside import Aside
from generation.training.loop.learner import Learner, LoopSettings, Snapshot
from generation.training.loop.objective import Batch, Objective, TrainingData
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

MISFIT = (RuntimeError, ValueError, LookupError, TypeError)  # of a state and a training


class States(Protocol):
    """Where a training keeps its state.

    read: what is kept, None if nothing is; UserError if it is damaged or of another training. due:
    whether the state after `done` of `steps` steps is to be written, asked once a step. write: must
    be durable when it returns. other: the error for a state that does not fit what is trained.
    """

    def read(self) -> dict[str, Any] | None: ...
    def due(self, done: int, steps: int) -> bool: ...
    def write(self, content: dict[str, Any]) -> None: ...
    def other(self) -> UserError: ...


@dataclass(frozen=True)
class Hooks:
    """What is called on the way: `advanced` in every process, the others in the first alone, aside
    of the training, which goes on meanwhile.

    advanced gets the steps that were done since the last call. kept comes every `keep_every` steps,
    before the step's state is written, so that no kill can leave one out. saved comes after each
    state but that of the last step, and where a training goes on: a kill may have come between.
    """

    advanced: Callable[[int], None] = lambda _: None
    kept: Callable[[Snapshot], None] | None = None
    saved: Callable[[Snapshot], None] | None = None


NO_HOOKS = Hooks()


def train(
    objective: Objective[Batch],
    data: TrainingData[Batch],
    settings: LoopSettings,
    states: States,
    processes: "PartialState",
    hooks: Hooks = NO_HOOKS,
) -> Learner[Batch]:
    """Train the objective's modules, in place, to the last step; they and their averages.

    Called again with the same arguments it goes on from the last state, and ends with the weights
    of an undisturbed training. States are written aside, and are all there when it returns; what
    failed in writing one is raised at the next. NotFiniteError at the first loss that is not
    finite; the last state stays.
    """
    learner = Learner(objective, settings, processes)
    _take_up(states, learner)
    unread = list[Tensor]()
    with Aside() as aside:
        hooks.advanced(learner.done)
        if 0 < learner.done < settings.steps:
            _save(aside, learner, saved=hooks.saved)
        while learner.done < settings.steps:
            unread.append(learner.step(data))
            hooks.advanced(1)
            done, last = learner.done, learner.done == settings.steps
            due = states.due(done, settings.steps)
            keeping = settings.keep_every > 0 and done % settings.keep_every == 0
            if due or keeping or last or len(unread) >= settings.look_every:
                learner.note(unread)
                unread = []
            if keeping or due:
                before = hooks.kept if keeping else None
                after = hooks.saved if due and not last else None
                _save(aside, learner, before, states if due else None, after)
    return learner


def _save(
    aside: Aside,
    learner: Learner[Any],
    kept: Callable[[Snapshot], None] | None = None,
    states: States | None = None,
    saved: Callable[[Snapshot], None] | None = None,
) -> None:
    """One after the other what is given, of the training as it is now."""
    aside.wait()  # the last snapshot is written
    snapshot = learner.snapshot(networks=not (kept is None and saved is None))
    if snapshot is not None:
        aside.start(partial(_write, snapshot, kept, states, saved))


def _write(
    snapshot: Snapshot,
    kept: Callable[[Snapshot], None] | None,
    states: States | None,
    saved: Callable[[Snapshot], None] | None,
) -> None:
    if kept is not None:
        kept(snapshot)
    if states is not None:
        states.write(dict(snapshot.content))
    if saved is not None:
        saved(snapshot)


def _take_up(states: States, learner: Learner[Any]) -> None:
    content = states.read()
    if content is None:
        return
    try:
        learner.resume(content)
    except MISFIT:
        raise states.other() from None


def require_even_batch(batch: int, processes: int, accumulation: int) -> None:
    """UserError if the batch does not divide over all processes and accumulation steps."""
    share = processes * accumulation
    if batch % share:
        raise UserError(f"batch = {batch} does not divide over {share} parts")
