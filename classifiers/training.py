"""Training a classifier: the last step is the result, never the best one."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classifiers.batches import ResidentBatches
from classifiers.recipe import ClassifierRecipe
from generation.errors import UserError
from generation.image_sets import LabelledImages
from generation.timm_classifier import build_model

INITIALISATION = 0  # what numbers are drawn for, kept apart from those of step 0, 1, 2 …
STEPS_BETWEEN_CHECKS = 50


def train(
    recipe: ClassifierRecipe,
    data: LabelledImages,
    seed: int,
    steps: int | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """The trained model, in evaluation mode; its averaged weights if the recipe has an EMA.

    `steps` replaces the recipe's epochs, to compare sets of different size at equal updates. All
    randomness follows from the seed and the step, so on a CPU with the same number of threads the
    same arguments give the same weights. Raises UserError if the loss is no longer finite.
    """
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
    from timm.utils.model_ema import ModelEmaV3

    device = training_device()
    total = total_steps(recipe, len(data), steps)
    batches = ResidentBatches(recipe, data, seed, device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_torch(seed, INITIALISATION)
        model = build_model(recipe, len(data.class_ids))
        model = model.to(device).to(memory_format=torch.channels_last).train()
        optimizer = create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
        average = ModelEmaV3(model, recipe.ema, use_warmup=True) if recipe.ema else None
        for step in range(total):
            seed_torch(seed, 1 + step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, total, recipe)
            loss = training_step(model, optimizer, *batches.batch(step), recipe.label_smoothing)
            if average is not None:
                average.update(model, step)
            if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step + 1 == total:
                _require_finite(loss, step, recipe)
            on_step()
    trained: nn.Module = model if average is None else average.module
    return trained.eval()


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: Tensor,
    label_smoothing: float,
) -> Tensor:
    """One update; returns the loss before it."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), targets, label_smoothing=label_smoothing)
    loss.backward()
    optimizer.step()
    return loss.detach()


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


def seed_torch(seed: int, purpose: int) -> None:
    """Set torch's generators from the run's seed and what the numbers are for."""
    torch.manual_seed(int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0]))


def training_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _require_finite(loss: Tensor, step: int, recipe: ClassifierRecipe) -> None:
    if not torch.isfinite(loss):
        raise UserError(
            f"classifier recipe {recipe.name}: the loss is not finite at step {step + 1}; "
            f"lower learning_rate = {recipe.learning_rate}"
        )
