"""The one training loop: several updates a step, exact resume, optimizers, learning rates."""

import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from accelerate import PartialState
from timm.optim import Lamb
from torch import Tensor, nn

from generation.families import load_training_recipe, trainable
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.config import OptimizerName, RateName, TrainingConfig
from generation.training.loop.learner import Learner, LoopSettings, NotFiniteError
from generation.training.loop.loop import Hooks, train
from generation.training.loop.objective import Modules
from generation.training.loop.optimizers import OPTIMIZERS, OptimizerSettings, build_optimizer
from generation.training.loop.rates import (
    RATES,
    annealed,
    ema_decay_by_count,
    one_cycle,
)
from generation.training.pictures import loss_curve, loss_table
from generation.training.record import DRAWN, RULE, claim_folder
from release.commands.validation import validated
from release.errors import UserError
from tests.models.tiny_network import tiny_network
from tests.models.train_tiny import tiny_data, train_stage
from tests.toy_gan import Points, ToyGan

CPU = torch.device("cpu")
STEPS = 7

# ---------------------------------------------------------------- a toy GAN on points of a plane


class Memory:
    """States as bytes, one every step."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def read(self) -> dict[str, Any] | None:
        if self.content is None:
            return None
        return dict(torch.load(io.BytesIO(self.content), weights_only=True))

    def due(self, done: int, steps: int) -> bool:  # noqa: ARG002
        return True

    def write(self, content: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(content, file)
        self.content = file.getvalue()

    def other(self) -> UserError:
        return UserError("another training")


class NoStates(Memory):
    def due(self, done: int, steps: int) -> bool:  # noqa: ARG002
        return False


def settings(**changes: Any) -> LoopSettings:
    usual: dict[str, Any] = {
        "device": CPU,
        "steps": STEPS,
        "parts": 2,
        "optimizer": OptimizerSettings("adam", 0.01, betas=(0.0, 0.99)),
        "rate": lambda step: 0.01 / (1 + step),
        "decay": lambda step: ema_decay_by_count(step, 0.9),
        "clip": 1.0,
    }
    return LoopSettings(**usual | changes)


def run_gan(states: Memory, stop: int | None = None, **changes: Any) -> Learner[Any]:
    done = 0

    def advanced(steps: int) -> None:
        nonlocal done
        done += steps
        if done == stop:
            raise KeyboardInterrupt

    processes = PartialState(cpu=True)
    return train(
        ToyGan(), Points(), settings(**changes), states, processes, Hooks(advanced=advanced)
    )


def flat(content: Any) -> list[Any]:
    """Tensors as lists, so that == compares everything."""
    if isinstance(content, dict):
        return [(key, flat(value)) for key, value in content.items()]
    if isinstance(content, list | tuple):
        return [flat(value) for value in content]
    return content.tolist() if isinstance(content, Tensor) else content


def test_two_updates_a_step_go_on_exactly_where_they_stopped() -> None:
    whole, stopped = Memory(), Memory()
    run_gan(whole)
    for stop in (1, 2, 5):  # stopped before the state of that step is written
        with pytest.raises(KeyboardInterrupt):
            run_gan(stopped, stop)
    resumed = run_gan(stopped)
    assert flat(whole.read()) == flat(stopped.read())
    assert resumed.losses.keys() == {"discriminator_loss", "generator_loss"}
    assert [len(losses) for losses in resumed.losses.values()] == [STEPS] * 2


def test_two_updates_a_step_are_what_they_are_written_out() -> None:
    """Each of its own optimizer, on batches of its own, the second after the first."""
    learner = run_gan(Memory())
    gan, data = ToyGan(), Points()
    average = {k: v.clone() for k, v in gan.modules["generator"].state_dict().items()}
    optimizers = {
        name: torch.optim.Adam(module.train().parameters(), betas=(0.0, 0.99))
        for name, module in gan.modules.items()
    }
    losses = {"discriminator_loss": [], "generator_loss": []}
    for step in range(STEPS):
        for number, (name, loss, rate) in enumerate(
            [("discriminator", gan.judged, 0.02), ("generator", gan.fooled, 0.01)]
        ):
            gradients = 0.0
            found = []
            weights = list(gan.modules[name].parameters())
            for part in (0, 1):
                value = loss(gan.modules, data.batch(step, 2 * number + part))
                own = torch.cat([g.flatten() for g in torch.autograd.grad(value / 2, weights)])
                gradients = gradients + own
                found.append(float(value.detach()))
            gradients = gradients * min(1.0, 1.0 / (float(gradients.norm()) + 1e-6))
            sizes = [w.numel() for w in weights]
            for weight, own in zip(weights, gradients.split(sizes), strict=True):
                weight.grad = own.view_as(weight)
            optimizers[name].param_groups[0]["lr"] = rate / (1 + step)
            optimizers[name].step()
            losses[f"{name}_loss"].append(np.mean(found))
        decay = min(0.9, (1 + step) / (10 + step))
        for key, weight in gan.modules["generator"].state_dict().items():
            average[key].mul_(decay).add_(weight, alpha=1 - decay)
    for name, module in gan.modules.items():
        for key, wanted in module.state_dict().items():
            given = learner.modules[name].state_dict()[key]
            torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)
    for key, given in learner.trained["generator"].state_dict().items():
        torch.testing.assert_close(given, average[key], atol=1e-5, rtol=1e-4)
    assert learner.trained["discriminator"] is learner.modules["discriminator"]
    for name, values in losses.items():
        np.testing.assert_allclose(learner.losses[name], values, rtol=1e-4, atol=1e-5)


def test_an_update_leaves_the_other_module_alone() -> None:
    """Its weights get no gradient: what they have is of their own update."""
    seen = {}

    class Watched(ToyGan):
        def fooled(self, modules: Modules, batch: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
            judge = modules["discriminator"]
            seen["frozen"] = not any(p.requires_grad for p in judge.parameters())
            seen["free"] = all(p.requires_grad for p in modules["generator"].parameters())
            return super().fooled(modules, batch)

    train(Watched(), Points(), settings(steps=1), Memory(), PartialState(cpu=True))
    assert seen == {"frozen": True, "free": True}


def test_the_first_loss_that_is_not_finite_is_named() -> None:
    class Diverging(ToyGan):
        def fooled(self, modules: Modules, batch: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
            value = super().fooled(modules, batch)
            return value * math.nan if float(batch[1][0, 0]) == float(third[0, 0]) else value

    third = Points().batch(2, 3)[1]
    rarely, processes = settings(look_every=5), PartialState(cpu=True)
    with pytest.raises(NotFiniteError, match="the generator_loss of step 3 is nan") as caught:
        train(Diverging(), Points(), rarely, NoStates(), processes)
    assert (caught.value.step, caught.value.name) == (3, "generator_loss")


def test_a_state_of_other_modules_is_refused() -> None:
    states = Memory()
    run_gan(states)

    class Renamed(ToyGan):
        averaged = ("discriminator",)

    with pytest.raises(UserError, match="another training"):
        train(Renamed(), Points(), settings(), states, PartialState(cpu=True))


def test_several_losses_share_a_table_and_a_curve() -> None:
    losses = {"a_loss": [float(i) for i in range(20)], "b_loss": [-1.0] * 20}
    header, first, *_ = loss_table(losses).decode().splitlines()
    assert header == "step,mean_a_loss_of_2,mean_b_loss_of_2"
    assert first == "2,0.500000,-1.000000"
    assert len(loss_curve(losses)) > 1000


# ---------------------------------------------------------------- averages


def test_averages_warm_up_by_their_formula() -> None:
    assert [ema_decay_by_count(n, 0.5) for n in (0, 1, 2, 100)] == [0.1, 2 / 11, 0.25, 0.5]
    assert ema_decay_by_count(89_990, 0.9999) == pytest.approx(0.9999, abs=1e-9)


# ---------------------------------------------------------------- learning rates


def line(share: float) -> float:
    return 1 - share


def half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("schedule", "fall"),
    [("constant", lambda _: 1.0), ("cosine", half_cosine), ("linear", line)],
)
def test_a_rate_rises_in_the_warm_up_and_falls_by_its_formula(
    schedule: str, fall: Callable[[float], float]
) -> None:
    """Both rules: over 100 steps, of which 10 are warm-up."""
    rates = [annealed(schedule, 0.5, step, 110, 10) for step in range(111)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(rates[10:], [0.5 * fall(n / 100) for n in range(101)], atol=1e-12)
    cycle = [one_cycle(schedule, 0.5, step, 109, 10.0) for step in range(109)]
    np.testing.assert_allclose(cycle[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(cycle[9:], [0.5 * fall(n / 100) for n in range(100)], atol=1e-12)
    assert annealed(schedule, 0.5, 0, 10, 0) == 0.5
    assert one_cycle(schedule, 0.5, 0, 10, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("rule", [annealed, one_cycle])
def test_the_inverse_square_root_is_that_of_vaswani(rule: Callable[..., float]) -> None:
    """d^-0.5 * min(n^-0.5, n * warmup^-1.5), scaled to its peak, which is at n = warmup."""
    for n in (1, 5, 10, 11, 40, 1000):
        wanted = min(n**-0.5, n * 10**-1.5) / 10**-0.5
        assert rule("inverse-square-root", 0.3, n - 1, 2000, 10) == pytest.approx(0.3 * wanted)
    assert rule("inverse-square-root", 0.3, 3, 9, 0) == pytest.approx(0.15)


@pytest.mark.parametrize("rule", [annealed, one_cycle])
def test_an_unknown_schedule_lists_the_known_ones(rule: Callable[..., float]) -> None:
    with pytest.raises(UserError, match="schedule 'step'; known: constant, cosine, inverse-square"):
        rule("step", 0.1, 5, 10, 2)
    assert set(RATES) == set(get_args(RateName))


# ---------------------------------------------------------------- optimizers


@pytest.mark.parametrize(
    ("name", "kind", "facts"),
    [
        ("adafactor", torch.optim.Adafactor, {}),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8}),
        ("lamb", Lamb, {"betas": (0.9, 0.999), "eps": 1e-6}),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_each_optimizer_by_its_name(name: str, kind: type, facts: dict[str, Any]) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimizer = build_optimizer(module, OptimizerSettings(name, 0.1))
    assert type(optimizer) is kind
    assert {key: optimizer.defaults[key] for key in facts} == facts
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]
    decayed = build_optimizer(module, OptimizerSettings(name, 0.1, weight_decay=0.2))
    by_decay = {group["weight_decay"]: len(group["params"]) for group in decayed.param_groups}
    assert by_decay == {0.0: 3, 0.2: 1}  # biases and normalisation are spared
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))


def test_betas_and_eps_reach_the_optimizer_that_has_them() -> None:
    chosen = OptimizerSettings("adamw", 0.1, betas=(0.0, 0.95), eps=1e-6)
    defaults = build_optimizer(nn.Linear(2, 2), chosen).defaults
    assert (defaults["betas"], defaults["eps"]) == ((0.0, 0.95), 1e-6)


def test_unknown_names_list_the_options() -> None:
    with pytest.raises(UserError, match="optimizer 'adan'; known: adafactor, adam, adamw, lamb, m"):
        build_optimizer(nn.Linear(2, 2), OptimizerSettings("adan", 0.1))
    for setting in ("optimizer", "schedule"):
        with pytest.raises(UserError, match=f"{setting}: Input should be .*not 'adan'") as caught:
            validated(TrainingConfig, {"steps": 9, setting: "adan"}, "recipe x")
        known = get_args(OptimizerName if setting == "optimizer" else RateName)
        assert all(f"'{name}'" in str(caught.value) for name in known)
    with pytest.raises(
        UserError, match=r"trained generator 'repa'; known: adm, adm-256, .*pixel-unet"
    ):
        trainable("repa")


def test_settings_without_effect_are_refused() -> None:
    for setting in ({"betas": [0.9, 0.99]}, {"eps": 1e-3}):
        with pytest.raises(UserError, match="has no effect on adafactor, only on adam, "):
            validated(TrainingConfig, {"steps": 9, "optimizer": "adafactor", **setting}, "x")


@pytest.mark.parametrize(
    "chosen",
    [
        {"optimizer": "adafactor", "schedule": "constant", "weight_decay": 0.01},
        {"optimizer": "adam", "betas": [0.8, 0.99], "schedule": "linear"},
        {"optimizer": "adamw", "weight_decay": 0.1, "eps": 1e-6, "clip": 0.5},
        {"optimizer": "lamb", "weight_decay": 0.01, "schedule": "inverse-square-root"},
        {"optimizer": "momentum", "clip": 1.0},
        {"optimizer": "sgd", "weight_decay": 0.01},
    ],
    ids=lambda chosen: chosen["optimizer"],
)
def test_a_recipe_with_each_optimizer_resumes_exactly(
    chosen: dict[str, Any], tmp_path: Path
) -> None:
    content = {"steps": 4, "batch": 2, "warmup": 1, "save_every": 1, "flip": True, **chosen}
    config = PixelUNetTraining.model_validate(content)
    before = [p.clone() for p in tiny_network(dropout=0.2).parameters()]

    def run(folder: str, stop: int | None = None) -> list[Tensor]:
        network = tiny_network(dropout=0.2)
        seen: list[int] = []

        def advance(steps: int) -> None:
            seen.append(steps)
            if sum(seen) == stop:
                raise KeyboardInterrupt

        out = tmp_path / folder
        average, _ = train_stage(network, tiny_data(network), config, out, advance, lambda *_: None)
        return [*network.parameters(), *average.parameters()]

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("stopped", 3)
    for one, other in zip(whole, run("stopped"), strict=True):
        assert torch.equal(one, other)
    assert not all(torch.equal(one, other) for one, other in zip(whole, before, strict=False))


# ---------------------------------------------------------------- what was written before

RECORDED = {  # sha256 of what training.json said of these recipes before there was a choice
    "fashion-mnist-16": "3c6787771abb52884fa3978ff9b080fe24487302ddf45df7a0ca3c75ea053def",
    "fashion-mnist-32-continued": (
        "f08421c6ecf374fe1f796660adfd8211d9a027317587e78527589b47e41a8502"
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_record_of_before_is_that_of_the_same_training(name: str, tmp_path: Path) -> None:
    recipe = load_training_recipe(name)

    def content(**training: Any) -> dict[str, Any]:
        changed = recipe.with_training(**training)
        return changed.model_dump(mode="json", exclude={"training": {"keep_every"}})

    text = json.dumps(content(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == RECORDED[name]
    claim_folder(tmp_path, {"recipe": json.loads(text)})
    claim_folder(tmp_path, {"recipe": content()})
    with pytest.raises(UserError, match=r"recipe\.training\.schedule was not set, is \"constant\""):
        claim_folder(tmp_path, {"recipe": content(schedule="constant")})


def test_a_run_of_before_is_refused_as_its_random_numbers_were_others(tmp_path: Path) -> None:
    now = {"recipe": {"name": "x"}, DRAWN: RULE}
    (tmp_path / "training.json").write_text('{"recipe": {"name": "x"}}')
    with pytest.raises(UserError, match="an earlier version, which drew other random numbers"):
        claim_folder(tmp_path, now)
    claim_folder(tmp_path / "new", now)
    claim_folder(tmp_path / "new", now)
