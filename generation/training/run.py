"""The folder of a training run: what is trained there, its curves, samples and checkpoints.

training.json            all that decides the weights; another training is refused
state.pt, state-previous.pt   to go on from
loss.csv, loss.png, samples-STEP.png   at each save
checkpoints/STEP, checkpoint   kept on the way, and the last
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from generation.pretrained.training_data import RECORD_FILE
from generation.training.config import PRECISION_NAMES, TrainingConfig
from generation.training.data.dropout import with_image_dropout
from generation.training.loop.learner import Learner, LoopSettings, NotFiniteError, Snapshot
from generation.training.loop.loop import NO_HOOKS, Hooks, train
from generation.training.loop.optimizers import OptimizerSettings
from generation.training.loop.rates import annealed, ema_decay_by_count
from generation.training.loop.state_files import TrainingStates
from generation.training.pictures import loss_curve, loss_table, picture
from generation.training.trainable import Course
from release.errors import UserError
from release.files.commit import (
    delete_folder,
    remove_temporaries,
    sha256_text,
    sync_folder,
    write_atomically,
)

if TYPE_CHECKING:
    from accelerate import PartialState

HALF = ".half"  # ending of a kept checkpoint that is being written
STEPS_BETWEEN_LOOKS = 50  # on a GPU, which a look at each loss would keep waiting


def train_course(
    course: Course,
    config: TrainingConfig,
    states: TrainingStates,
    processes: "PartialState",
    hooks: Hooks = NO_HOOKS,
) -> Learner[Any]:
    """Train to the end, or on from the last state.

    UserError, naming the step, at the first loss that is not finite, or if the state to be saved
    is not; the last state that was stays.
    """
    settings = loop_settings(config, processes.device)
    for module in course.objective.modules.values():
        with_image_dropout(module)
    try:
        return train(course.objective, course.data, settings, states, processes, hooks)
    except NotFiniteError as error:
        raise UserError(
            f"{error}; a learning_rate below {config.learning_rate:g} may help, in a run of its "
            "own; the last state that was saved is kept"
        ) from None


def loop_settings(config: TrainingConfig, device: torch.device) -> LoopSettings:
    """What the loop has to know of a training recipe."""

    def rate(step: int) -> float:
        return annealed(config.schedule, config.learning_rate, step, config.steps, config.warmup)

    return LoopSettings(
        device=device,
        steps=config.steps,
        parts=config.accumulation,
        optimizer=OptimizerSettings(
            config.optimizer,
            config.learning_rate,
            config.weight_decay or None,
            config.betas,
            config.eps,
        ),
        rate=rate,
        decay=lambda step: ema_decay_by_count(step, config.ema),
        precision=getattr(torch, PRECISION_NAMES[config.precision]),
        clip=config.clip,
        look_every=1 if device.type == "cpu" else STEPS_BETWEEN_LOOKS,
        keep_every=config.keep_every,
        sharded=config.sharding == "full",
        compiled=config.compile,
        checkpointed=config.gradient_checkpointing,
    )


@dataclass(frozen=True)
class TrainingRun:
    """A claimed folder, whose files all appear by rename."""

    out: Path
    course: Course

    @property
    def key(self) -> str:
        """Which training a state is of."""
        return sha256_text(self._record().decode())

    def tidy(self) -> None:
        """Remove what killed processes were writing."""
        remove_temporaries(self.out)
        for half in (self.out / "checkpoints").glob(f".*{HALF}"):
            delete_folder(half)

    def train(
        self,
        config: TrainingConfig,
        processes: "PartialState",
        advanced: Callable[[int], None] = lambda _: None,
    ) -> Path | None:
        """To the end, keeping what belongs in the folder; the checkpoint, in the main process."""
        if processes.is_main_process:
            self.tidy()
        states = TrainingStates(self.out, self.key, config.save_every)
        hooks = Hooks(advanced, self.keep, self.save)
        learner = train_course(self.course, config, states, processes, hooks)
        end = learner.snapshot()
        return None if end is None else self.finish(end)

    def save(self, snapshot: Snapshot) -> None:
        """The loss curve, and a grid of samples."""
        write_atomically(self.out / "loss.csv", loss_table(snapshot.losses))
        write_atomically(self.out / "loss.png", loss_curve(snapshot.losses))
        grid = picture(self.course.samples(snapshot))
        write_atomically(self.out / f"samples-{snapshot.done:06d}.png", grid)

    def keep(self, snapshot: Snapshot) -> None:
        """A checkpoint on the way; it appears whole."""
        folder = self.out / "checkpoints" / str(snapshot.done)
        if folder.exists():  # of a run killed since: the same one
            return
        half = folder.with_name(f".{snapshot.done}{HALF}")
        delete_folder(half)
        self.course.save(snapshot, half)
        write_atomically(half / RECORD_FILE, self._record())
        half.rename(folder)
        sync_folder(folder.parent)

    def finish(self, snapshot: Snapshot) -> Path:
        """The last save and the checkpoint."""
        self.save(snapshot)
        folder = self.out / "checkpoint"
        for name in (RECORD_FILE, "loss.csv", "loss.png"):
            write_atomically(folder / name, (self.out / name).read_bytes())
        self.course.save(snapshot, folder)
        return folder

    def _record(self) -> bytes:
        return (self.out / RECORD_FILE).read_bytes()
