"""Training a classifier: the last step is the result, never the best one.

A recipe becomes an objective, data and settings; generation/training/loop/loop.py trains them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from classifiers.data.batches import Batches, ImageData, Part, open_batches
from classifiers.data.mixing import MixedVisits
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.auxiliary_norm import with_auxiliary, without_auxiliary
from classifiers.training.checkpoint import start_from
from classifiers.training.objective import (
    MODEL,
    ClassifierData,
    ClassifierObjective,
    LabelledPart,
    parts_of,
    seed_torch,
)
from classifiers.training.self_supervised import SimclrModel, SimclrObjective
from classifiers.training.state import StateFile, TimedStates
from generation.networks.timm_classifier import build_model, load_network
from generation.training.data.order import Visits
from generation.training.loop.learner import LoopSettings, NotFiniteError
from generation.training.loop.loop import Hooks
from generation.training.loop.loop import train as run_loop
from generation.training.loop.objective import Objective
from generation.training.loop.optimizers import OptimizerSettings
from generation.training.loop.rates import ema_decay_by_count, one_cycle
from generation.training.processes import launched_processes
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

INITIALISATION = 0  # what numbers are drawn for, kept apart from those of step 0, 1, 2 …
STEPS_BETWEEN_LOOKS = 50
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class DivergedError(UserError):
    """A training no longer has finite numbers."""


def train(
    recipe: ClassifierRecipe,
    data: ImageData,
    seed: int,
    steps: int | None = None,
    on_steps: Callable[[int], None] = lambda _: None,
    *,
    on_end: Callable[[float], None] = lambda _: None,
    visits: Visits | MixedVisits | None = None,
    start: Path | None = None,
    teacher: Path | None = None,
    network: Callable[[], nn.Module] | None = None,
    state: StateFile | None = None,
    loaders: int | None = None,
) -> nn.Module:
    """The trained model, in evaluation mode; its averaged weights if the recipe has an EMA.

    `steps` replaces the recipe's epochs, to compare sets of different size at equal updates;
    `visits` says how often an epoch sees which image, by default each once. start: a saved
    classifier to go on from; teacher: one to learn from, as the recipe says; network: makes the one
    that is trained, by default the recipe's.
    state: kept on the way and, if it is there, gone on from. All randomness follows from the seed
    and the step, so on a CPU with the same number of threads the same arguments give the same
    weights, interrupted or not. on_end gets the seconds that training took, those before an
    interruption included; on_steps the steps that were done since its last call, with those of
    before at first. Of several processes that accelerate started, each takes its share of
    every batch. Raises UserError if the loss is not finite.
    """
    processes = launched_processes()
    device = training_device(processes)
    visits = Visits.once(len(data)) if visits is None else visits
    require_parts(recipe, len(data.class_ids), processes.num_processes)
    if not len(visits):
        raise UserError("--weights: so little weight that an epoch sees no image")
    place = Part(processes.process_index, processes.num_processes)
    settings = loop_settings(recipe, total_steps(recipe, len(visits), steps), device, place.of)

    def batches(first: int) -> Batches:
        left = range(first, settings.steps)
        return open_batches(recipe, data, visits, seed, device, left, place, loaders)

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        states = TimedStates(state)
        seed_torch(seed, INITIALISATION)
        built = _built(recipe, data.class_ids, network, start)
        model = with_auxiliary(built, place.of, recipe) if _apart(recipe, visits) else built
        own = ClassifierData(batches, seed, place, settings.parts)
        objective = _objective(model, recipe, teacher, device)
        with _told_of_divergence(recipe, seed):
            learner = run_loop(objective, own, settings, states, processes, Hooks(on_steps))
    on_end(states.seconds)
    trained = learner.trained[MODEL]
    trained = trained.network if isinstance(trained, SimclrModel) else trained
    return (trained if model is built else without_auxiliary(trained, built)).eval()


@contextmanager
def _told_of_divergence(recipe: ClassifierRecipe, seed: int) -> Iterator[None]:
    try:
        yield
    except NotFiniteError as error:
        raise DivergedError(
            f"classifier recipe {recipe.name}: the loss is not finite at step {error.step}, "
            f"seed {seed}; lower learning_rate = {recipe.learning_rate}"
        ) from None


def _built(
    recipe: ClassifierRecipe,
    class_ids: tuple[str, ...],
    network: Callable[[], nn.Module] | None,
    start: Path | None,
) -> nn.Module:
    """What is trained, with the weights of `start` if there is one."""
    built = build_model(recipe, len(class_ids)) if network is None else network()
    if start is not None:
        start_from(start, built, class_ids)
    return built


def _objective(
    model: nn.Module, recipe: ClassifierRecipe, teacher: Path | None, device: torch.device
) -> Objective[LabelledPart]:
    if recipe.objective == "simclr":
        return SimclrObjective(model, recipe)
    return ClassifierObjective(
        model, recipe, None if teacher is None else load_network(teacher).to(device)
    )


def _apart(recipe: ClassifierRecipe, visits: Visits | MixedVisits) -> bool:
    """Whether generated images have batch normalisation of their own."""
    return isinstance(visits, MixedVisits) and recipe.mixing.batch_norm == "separate"


def loop_settings(
    recipe: ClassifierRecipe, steps: int, device: torch.device, processes: int = 1
) -> LoopSettings:
    """What the loop has to know of a recipe, in each of so many processes."""
    return LoopSettings(
        device=device,
        steps=steps,
        parts=parts_of(recipe.batch // processes, recipe),
        add_up=True,
        optimizer=OptimizerSettings(
            recipe.optimizer,
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        ),
        rate=lambda step: learning_rate_at(step, steps, recipe),
        decay=(lambda step: ema_decay_by_count(step, recipe.ema)) if recipe.ema else None,
        precision=PRECISIONS[recipe.precision],
        clip=recipe.clip,
        look_every=STEPS_BETWEEN_LOOKS,
    )


def require_parts(recipe: ClassifierRecipe, classes: int, processes: int) -> None:
    """UserError unless a batch can be shared by the processes and taken in the recipe's parts.

    Batch normalisation has nothing to normalise by where it sees one image of one position: then
    no part may be a single image. Computes nothing, as `require_fitting`.
    """
    if recipe.objective == "simclr" and processes > 1:
        raise UserError(
            f'classifier recipe {recipe.name}: objective = "simclr" compares all views of a batch, '
            "so it trains on one process"
        )
    if recipe.batch % processes:
        raise UserError(f"batch = {recipe.batch} does not divide over {processes} processes")
    own = recipe.batch // processes
    if own // parts_of(own, recipe) > 1:
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


def total_steps(recipe: ClassifierRecipe, images: int, steps: int | None) -> int:
    """`steps` if given, else as many as it takes to see every image `recipe.epochs` times."""
    return steps if steps is not None else max(1, round(recipe.epochs * images / recipe.batch))


def learning_rate_at(step: int, total: int, recipe: ClassifierRecipe) -> float:
    """A warm-up to the peak, then the recipe's schedule; steps count from 0."""
    warmup = recipe.warmup * total
    return one_cycle(recipe.schedule, recipe.learning_rate, step, total, warmup)


def training_device(processes: "PartialState") -> torch.device:
    """This process's GPU if it has one, else the CPU."""
    if not torch.cuda.is_available() or processes.device.type != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", processes.local_process_index)
