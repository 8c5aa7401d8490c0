"""Training a classifier: the last step is the result, never the best one."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classifiers.data.batches import ImageData, Part, open_batches
from classifiers.data.order import Visits, derived_seed
from classifiers.data.sharing import launched_processes
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.checkpoint import start_from
from generation.networks.timm_classifier import build_model
from release.errors import UserError
from release.files.checked_files import read_state, write_state

if TYPE_CHECKING:
    from accelerate import PartialState

INITIALISATION = 0  # what numbers are drawn for, kept apart from those of step 0, 1, 2 …
STEPS_BETWEEN_CHECKS = 50


class DivergedError(UserError):
    """A training no longer has finite numbers."""


@dataclass(frozen=True)
class StateFile:
    """Where a training keeps its state, how often, and the key that says which training it is."""

    path: Path
    key: str
    seconds: float = 60.0

    def read(self) -> dict[str, Any] | None:
        """What is kept, None if nothing is; UserError if it is damaged or of another training."""
        if not self.path.is_file():
            return None
        content = read_state(self.path)
        if content.get("key") != self.key:
            raise UserError(f"{self.path} is the state of another training; remove it to begin")
        return content


def train(
    recipe: ClassifierRecipe,
    data: ImageData,
    seed: int,
    steps: int | None = None,
    on_step: Callable[[], None] = lambda: None,
    *,
    on_end: Callable[[float], None] = lambda _: None,
    visits: Visits | None = None,
    start: Path | None = None,
    state: StateFile | None = None,
    loaders: int | None = None,
) -> nn.Module:
    """The trained model, in evaluation mode; its averaged weights if the recipe has an EMA.

    `steps` replaces the recipe's epochs, to compare sets of different size at equal updates;
    `visits` says how often an epoch sees which image, by default each once. start: a saved
    classifier to go on from. state: kept on the way and, if it is there, gone on from. All
    randomness follows from the seed and the step, so on a CPU with the same number of threads the
    same arguments give the same weights, interrupted or not. on_end gets the seconds that training
    took, those before an interruption included. Of several processes that accelerate started, each
    takes its share of every batch. Raises UserError if the loss is not finite.
    """
    processes = launched_processes()
    device = training_device(processes)
    visits = Visits.once(len(data)) if visits is None else visits
    require_parts(recipe, len(data.class_ids), processes.num_processes)
    if not len(visits):
        raise UserError("--weights: so little weight that an epoch sees no image")
    part = Part(processes.process_index, processes.num_processes)
    total = total_steps(recipe, len(visits), steps)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_torch(seed, INITIALISATION)
        run = Fit(recipe, len(data.class_ids), device)
        if start is not None:
            start_from(start, run.model, data.class_ids)
        first = run.resume(state)
        model = run.distributed(part)
        batches = open_batches(
            recipe, data, visits, seed, device, range(first, total), part, loaders
        )
        for _ in range(first):
            on_step()
        saved, losses = time.monotonic(), list[Tensor]()
        for step in range(first, total):
            seed_torch(seed, 1 + step, *([part.index] if part.of > 1 else []))
            run.set_learning_rate(learning_rate_at(step, total, recipe))
            losses.append(training_step(model, run.optimizer, *batches.batch(step), recipe))
            run.update_average(step)
            due = state is not None and time.monotonic() - saved >= state.seconds
            if due or len(losses) == STEPS_BETWEEN_CHECKS or step + 1 == total:
                _require_finite(losses, step, seed, recipe)
                losses = []
            on_step()
            if state is not None and due:
                if processes.is_main_process and step + 1 < total:
                    run.save(state, step + 1)
                saved = time.monotonic()
    on_end(run.seconds)
    return run.trained.eval()


def require_parts(recipe: ClassifierRecipe, classes: int, processes: int) -> None:
    """UserError unless a batch can be shared by the processes and taken in the recipe's parts.

    Batch normalisation has nothing to normalise by where it sees one image of one position: then
    no part may be a single image. Computes nothing, as `require_fitting`.
    """
    if recipe.batch % processes:
        raise UserError(f"batch = {recipe.batch} does not divide over {processes} processes")
    own = recipe.batch // processes
    if own // _parts(own, recipe) > 1:
        return
    with torch.device("meta"):
        model = build_model(recipe, classes).train()
        image = torch.zeros(1, recipe.channels, recipe.resolution, recipe.resolution)
    try:
        model(image)
    except ValueError as error:
        shared = f" on {processes} processes" if processes > 1 else ""
        taken = f" with micro_batch = {recipe.micro_batch}" if recipe.micro_batch else ""
        raise UserError(
            f"classifier recipe {recipe.name}: batch = {recipe.batch}{shared}{taken} leaves a "
            f"single image to {recipe.model}, whose batch normalisation needs two ({error}); "
            "change batch or micro_batch so that each part has two images or more"
        ) from None


def _parts(images: int, recipe: ClassifierRecipe) -> int:
    """In how many parts, alike in size, a device takes so many images."""
    return math.ceil(images / (recipe.micro_batch or images))


class Fit:
    """Model, optimizer and averaged weights of one training."""

    def __init__(self, recipe: ClassifierRecipe, classes: int, device: torch.device) -> None:
        from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
        from timm.utils.model_ema import ModelEmaV3

        model = build_model(recipe, classes)
        self.model = model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = create_optimizer_v2(
            self.model,
            opt=recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
        average = ModelEmaV3(self.model, recipe.ema, use_warmup=True) if recipe.ema else None
        self.average: ModelEmaV3 | None = average
        self._started, self._before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """That the training has taken, those before an interruption included."""
        return self._before + time.perf_counter() - self._started

    @property
    def trained(self) -> nn.Module:
        """What a training ends in."""
        return self.model if self.average is None else self.average.module

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update_average(self, step: int) -> None:
        if self.average is not None:
            self.average.update(self.model, step)

    def distributed(self, part: Part) -> nn.Module:
        """The model, or what keeps it the same in all processes."""
        if part.of == 1:
            return self.model
        return nn.parallel.DistributedDataParallel(self.model)

    def save(self, state: StateFile, steps: int) -> None:
        """Write all that a training needs to go on, `steps` steps being done."""
        content = {
            "key": state.key,
            "steps": steps,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
        }
        write_state(state.path, content)

    def resume(self, state: StateFile | None) -> int:
        """Take up what was saved; the steps that are done. UserError if it is of another run."""
        content = None if state is None else state.read()
        if content is None:
            return 0
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(content["average"])
        self._before = float(content["seconds"])
        return int(content["steps"])


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: Tensor,
    recipe: ClassifierRecipe,
) -> Tensor:
    """One update; returns the loss before it."""
    optimizer.zero_grad()
    count = _parts(len(images), recipe)
    losses = []
    parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
    for left, (part, wanted) in zip(range(count - 1, -1, -1), parts, strict=True):
        with _gradients_kept_here(model, here=left > 0):
            with autocast(recipe, images.device):
                loss = F.cross_entropy(model(part), wanted, label_smoothing=recipe.label_smoothing)
            if len(part) < len(images):
                loss = loss * (len(part) / len(images))
            loss.backward()
        losses.append(loss.detach())
    if recipe.clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return torch.stack(losses).sum()


def _gradients_kept_here(model: nn.Module, *, here: bool) -> AbstractContextManager[None]:
    """Of several processes each adds up its own gradients, until the last part of a batch."""
    if here and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def autocast(recipe: ClassifierRecipe, device: torch.device) -> torch.autocast:
    """The recipe's precision; weights stay float32."""
    low = recipe.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def total_steps(recipe: ClassifierRecipe, images: int, steps: int | None) -> int:
    """`steps` if given, else as many as it takes to see every image `recipe.epochs` times."""
    return steps if steps is not None else max(1, round(recipe.epochs * images / recipe.batch))


def learning_rate_at(step: int, total: int, recipe: ClassifierRecipe) -> float:
    """Linear warm-up to the peak, then down to zero by the recipe's schedule; steps count from 0.

    With a linear schedule this is the one-cycle policy in its triangular form (Smith 2018).
    """
    warmup = recipe.warmup * total
    if step + 1 < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    left = (total - step) / (total + 1 - max(1.0, warmup))  # 1 at the peak, above 0 at the end
    shapes = {
        "cosine": 0.5 * (1 - math.cos(math.pi * left)),
        "linear": left,
        "constant": 1.0,
    }
    return recipe.learning_rate * shapes[recipe.schedule]


def seed_torch(seed: int, *purpose: int) -> None:
    """Set torch's generators from the run's seed and what the numbers are for.

    One by one, since torch.manual_seed formats the stack for each kind of device that is not in
    use: in the midst of a training half a millisecond, a fortieth of a small network's step. A GPU
    must have been in use, as it is once a training has begun.
    """
    number = derived_seed(seed, *purpose)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


def training_device(processes: "PartialState") -> torch.device:
    """This process's GPU if it has one, else the CPU."""
    if not torch.cuda.is_available() or processes.device.type != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", processes.local_process_index)


def _require_finite(
    losses: Sequence[Tensor], last: int, seed: int, recipe: ClassifierRecipe
) -> None:
    """Of the steps up to `last`, some at once: a GPU would have to be waited for each time."""
    finite = torch.stack(tuple(losses)).isfinite().tolist()
    if not all(finite):
        step = last + 1 - len(losses) + finite.index(False)
        raise DivergedError(
            f"classifier recipe {recipe.name}: the loss is not finite at step {step + 1}, "
            f"seed {seed}; lower learning_rate = {recipe.learning_rate}"
        )
