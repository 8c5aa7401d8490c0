"""One loop that trains every family: generators, whatever they learn by, and classifiers.

What is learned and from what is handed in (objective.py); what changes meanwhile is a Learner
(learner.py): modules, averages, optimizers, gradients of several parts and processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from generation.training.learner import Learner, LoopSettings
from generation.training.objective import Batch, Objective, TrainingData
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
    """What is called on the way: `advanced` in every process, the others in the first alone.

    advanced gets the steps that were done since the last call. kept comes every `keep_every` steps,
    before the step's state is written, so that no kill can leave one out. saved comes after each
    state but that of the last step, and where a training goes on: a kill may have come between.
    """

    advanced: Callable[[int], None] = lambda _: None
    kept: Callable[[Learner[Any]], None] = lambda _: None
    saved: Callable[[Learner[Any]], None] = lambda _: None


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
    of an undisturbed training. NotFiniteError at the first loss that is not finite; the last state
    stays.
    """
    learner = Learner(objective, settings, processes)
    _take_up(states, learner)
    main, unread = processes.is_main_process, list[Tensor]()
    hooks.advanced(learner.done)
    if main and 0 < learner.done < settings.steps:
        hooks.saved(learner)
    while learner.done < settings.steps:
        unread.append(learner.step(data))
        hooks.advanced(1)
        done, last = learner.done, learner.done == settings.steps
        due = states.due(done, settings.steps)
        keeping = settings.keep_every > 0 and done % settings.keep_every == 0
        if due or keeping or last or len(unread) >= settings.look_every:
            learner.note(unread)
            unread = []
        if keeping and main:
            hooks.kept(learner)
        if due and main:
            states.write(learner.content())
            if not last:
                hooks.saved(learner)
    return learner


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
