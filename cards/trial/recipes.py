"""The files that a trial writes for the commands: its build recipe and its study."""

import json
import math
from pathlib import Path

from cards.trial.plan import EVALUATIONS, TRAINING, Plan

SET = "generated"  # what the study calls the generated images
INDICES, BATCH = 25, 50  # of a shard; of the network, as a recipe that names none has it
LEAST_SHARD = 10  # classes of a shard, where there are as many


def build_recipe(plan: Plan, out: Path) -> str:
    """TOML of the recipe by which `build-dataset` makes the trial's images."""
    filling = math.ceil(BATCH / min(INDICES, plan.generated))  # classes that fill a batch
    shard = min(plan.classes, max(LEAST_SHARD, filling))
    description = f"Made by a small generator that was trained on {plan.dataset} alone"
    lines = [
        f"name = {_text(f'{plan.dataset}-generated')}",
        f"description = {_text(description)}",
        f"classes = {_text(str(out / 'real'))}",
        f"dataset = {_text(plan.dataset)}",
        'regime = "B"  # the generator was trained on the training images, from nothing',
        'license = "unknown"',
        f"shard = {{ classes = {shard}, indices = {INDICES} }}",
    ]
    for side in plan.chain:
        lines += ["", "[[stage]]", *_stage(plan, out, side)]
    return "\n".join(lines) + "\n"


def _stage(plan: Plan, out: Path, side: int) -> list[str]:
    base = side == plan.chain[0]
    steps = EVALUATIONS[side] // 2 if base else EVALUATIONS[side]
    guidance = "guidance = 1.25" if base else "guidance = 1.0, noise_augmentation = 0.0"
    return [
        f"resolution = {side}",
        'generator = "pixel-unet"',
        f"checkpoint = {_text(str(out / 'runs' / str(side) / 'checkpoint'))}",
        f'sampler = {{ method = "dpm-solver++", steps = {steps}, {guidance} }}',
        'sampler_source = "as the recipe fashion-mnist-fast has it, not chosen for these images"',
        *_model(plan, side),
    ]


def _model(plan: Plan, side: int) -> list[str]:
    """What a card says of the stage's network."""
    return [
        "[stage.model]",
        f"name = {_text(f'Small U-Net for {side} px, trained on {plan.dataset} alone')}",
        'license = "unknown"',
        f"images = {_text(f'It follows from the licence of {plan.dataset}: no other images.')}",
        f"source = {_text(f'trained here by the recipe {TRAINING[side]}')}",
    ]


def study(plan: Plan, out: Path) -> str:
    """TOML of the study that `run-study` performs."""
    description = (
        "Would generated images help? The generator learned from the same training images alone."
    )
    size = json.dumps("all" if plan.per_class is None else plan.per_class)
    lines = [
        f"name = {_text('trial')}",
        f"description = {_text(description)}",
        f"sizes = [{size}]",
        f"seeds = {list(plan.asked.seeds)}",
        "",
        "[real]",
        f"source = {_text(plan.asked.images)}",
        f"release = {_text(str(out / 'real'))}",
        f'config = "{plan.resolution}"',
        f"test_split = {_text(plan.test_split)}",
        f"classes = {plan.classes}",
        f"per_class = {plan.real_per_class or plan.mean_per_class:g}",
        "",
        "[[generated]]",
        f"name = {_text(SET)}",
        f"release = {_text(str(out / 'generated'))}",
        f'config = "{plan.resolution}"',
        f"recipe = {_text(str(out / 'build.toml'))}",
        "",
        "[[model]]",
        f"recipe = {_text(plan.classifier)}",
        f'set = ["epochs={plan.epochs}", "batch=64"]',
        "",
        *_arm("real"),
        *_arm("generated", plan.times, ("steps",)),
        *_arm("real+generated", plan.times, ("epochs", "steps")),
        *_arm("real-repeated", plan.times),
    ]
    return "\n".join(lines)


def _arm(kind: str, times: float | None = None, budgets: tuple[str, ...] = ()) -> list[str]:
    lines = ["[[arm]]", f"kind = {_text(kind)}"]
    lines += [] if times is None else [f"times = [{times:g}]"]
    lines += [f"budgets = {json.dumps(list(budgets))}"] if budgets else []
    return [*lines, ""]


def _text(value: str) -> str:
    """A basic string of TOML, which a string of JSON is."""
    return json.dumps(value, ensure_ascii=False)
