"""Settings of large trainings: sharding, gradient checkpointing, compile; saving aside."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from torch import nn

from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.config import TrainingConfig
from generation.training.loop.activations import keep_block_inputs_alone
from generation.training.loop.aside import Aside
from generation.training.loop.learner import LoopSettings
from generation.training.loop.loop import Hooks, train
from generation.training.loop.optimizers import OptimizerSettings
from generation.training.memory import TrainingMemory, require_memory, training_memory
from release.commands.validation import validated
from release.errors import UserError
from tests.models.tiny_network import tiny_network
from tests.models.train_tiny import tiny_data, train_stage
from tests.toy_gan import Points, ToyGan

CPU = torch.device("cpu")


def quiet(*_: object) -> None:
    pass


def trained(folder: Path, **changes: Any) -> tuple[list[float], list[torch.Tensor]]:
    settings = {"steps": 3, "batch": 4, "warmup": 0, "save_every": 9, **changes}
    config = PixelUNetTraining.model_validate(settings)
    network = tiny_network(dropout=0.2)
    average, losses = train_stage(network, tiny_data(network), config, folder, quiet, quiet)
    return losses, list(average.parameters())


# ---------------------------------------------------------------- what is computed stays the same


def test_gradient_checkpointing_changes_no_weight_with_dropout_either(tmp_path: Path) -> None:
    network = tiny_network(dropout=0.2)
    keep_block_inputs_alone(network)
    assert network.unet.is_gradient_checkpointing
    plain, again = trained(tmp_path / "a"), trained(tmp_path / "b", gradient_checkpointing=True)
    assert plain[0] == again[0]
    for one, other in zip(plain[1], again[1], strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UserError, match="gradient_checkpointing: no part of Linear has it"):
        keep_block_inputs_alone(nn.Linear(2, 2))


def test_a_compiled_training_has_the_curve_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured as a whole, dropout and all, and called as torch would call it otherwise."""
    plain = trained(tmp_path / "a")
    compiling = partial(torch.compile, backend="eager")
    calls: list[nn.Module] = []

    def compiled(module: nn.Module) -> Any:
        calls.append(module)
        return compiling(module)

    monkeypatch.setattr(torch, "compile", compiled)
    found = trained(tmp_path / "b", compile=True)
    assert len(calls) == 1
    assert found[0] == pytest.approx(plain[0], rel=1e-4)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("optimizer", ["adafactor", "lamb"])
def test_an_optimizer_that_looks_at_whole_weights_is_not_sharded(optimizer: str) -> None:
    content = {"steps": 9, "optimizer": optimizer, "sharding": "full"}
    with pytest.raises(UserError, match=f"{optimizer} looks at whole weights.*adam, adamw, mom"):
        validated(TrainingConfig, content, "x")
    with pytest.raises(UserError, match='goes with precision = "bf16" or "no"'):
        validated(TrainingConfig, {"steps": 9, "sharding": "full", "precision": "fp16"}, "x")


def test_a_record_names_the_settings_of_large_trainings_only_where_they_are_used() -> None:
    names = {"sharding", "gradient_checkpointing", "compile"}
    assert not names & TrainingConfig(steps=9).model_dump().keys()
    used = TrainingConfig(steps=9, sharding="full", gradient_checkpointing=True, compile=True)
    assert names <= used.model_dump().keys()


def test_memory_is_planned_for_shards_checkpointing_and_saves() -> None:
    def plan(processes: int, **changes: Any) -> TrainingMemory:
        network = tiny_network().train().requires_grad_(True).to("meta")
        config = TrainingConfig(steps=9, batch=8, **changes)

        def run(images: int) -> None:
            zeros = partial(torch.zeros, images, device="meta")
            network(zeros(1, 8, 8), zeros(dtype=torch.int64), zeros(dtype=torch.int64))

        return training_memory(network, run, config, processes)

    alone, pair, full = plan(1), plan(2), plan(2, sharding="full")
    assert alone.fixed == 5 * 4 * alone.parameters  # weights, gradients, average, two moments
    assert (pair.fixed, full.fixed) == (5 * 4 * alone.parameters, alone.fixed // 2)
    assert alone.saving == 5 * 4 * alone.parameters  # the state, and the network of the samples
    less = plan(1, gradient_checkpointing=True)
    assert less.activations < alone.activations / 2
    assert "takes at least" in str(less)
    assert "takes about" in str(alone)
    huge = TrainingMemory(1, 0, 0, 1, saving=1 << 60)
    with pytest.raises(UserError, match=r"GB to save it, and .* GB are free"):
        require_memory(huge, CPU)


# ---------------------------------------------------------------- aside


class Slow:
    """States whose writing waits for `let`, and fails at a step."""

    def __init__(self, fails: int | None = None) -> None:
        self.let, self.fails = threading.Event(), fails
        self.written: list[tuple[int, float]] = []

    def read(self) -> None:
        return None

    def due(self, done: int, steps: int) -> bool:
        return done in (1, steps)

    def write(self, content: dict[str, Any]) -> None:
        assert self.let.wait(60)
        if content["step"] == self.fails:
            raise OSError(28, "No space left on device")
        weight = content["modules"]["generator"]["0.weight"]
        self.written.append((content["step"], float(weight.sum())))


def run(states: Slow, hooks: Hooks) -> Any:
    settings = LoopSettings(
        device=CPU, steps=4, optimizer=OptimizerSettings("adam", 0.01), rate=lambda _: 0.01
    )
    return train(ToyGan(), Points(), settings, states, PartialState(cpu=True), hooks)  # type: ignore[arg-type]


def test_a_training_goes_on_while_its_state_is_written_as_it_was() -> None:
    states, sums, done = Slow(), {}, 0
    gan = ToyGan()
    weights = gan.modules["generator"][0].weight  # type: ignore[index]
    saved = []

    def advanced(steps: int) -> None:
        nonlocal done
        done += steps
        sums[done] = float(weights.detach().sum())
        if done == 3:  # two steps after the one whose state is being written
            states.let.set()

    settings = LoopSettings(
        device=CPU, steps=4, optimizer=OptimizerSettings("adam", 0.01), rate=lambda _: 0.01
    )
    hooks = Hooks(advanced, saved=lambda snapshot: saved.append(snapshot.done))
    train(gan, Points(), settings, states, PartialState(cpu=True), hooks)  # type: ignore[arg-type]
    assert states.written == [(1, pytest.approx(sums[1])), (4, pytest.approx(sums[4]))]
    assert sums[1] != sums[3]
    assert saved == [1]


@pytest.mark.parametrize("step", [1, 4])
def test_a_write_that_fails_ends_the_training_with_its_reason(step: int) -> None:
    states = Slow(fails=step)
    states.let.set()
    with pytest.raises(OSError, match="No space left"):
        run(states, Hooks())
    assert [done for done, _ in states.written] == [1, 4][: step // 4]


def test_work_aside_is_done_in_turn_and_before_the_end() -> None:
    seen: list[int] = []
    with Aside() as aside:
        for number in range(3):
            aside.start(partial(seen.append, number))
    assert seen == [0, 1, 2]
    aside = Aside()
    aside.start(partial(seen.append, 3))
    aside.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # a training that was stopped
    assert seen == [0, 1, 2, 3]
