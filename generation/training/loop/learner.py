"""What changes while an objective is trained: modules, averages, optimizers, losses."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from generation.training.loop import same_order, sharding
from generation.training.loop.activations import keep_block_inputs_alone
from generation.training.loop.objective import Batch, Modules, Objective, TrainingData, Update
from generation.training.loop.optimizers import OptimizerSettings, build_optimizer
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState


class NotFiniteError(UserError):
    """A training no longer has finite numbers: at `step`, counted from 1, `name` was `loss`."""

    def __init__(self, step: int, name: str, loss: float) -> None:
        super().__init__(f"the training diverged: the {name} of step {step} is {loss}")
        self.step, self.name, self.loss = step, name, loss


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a training goes, whatever is trained.

    device: of this process. steps: each makes every update of the objective once. parts: in how
    many a process takes a batch, their gradients added up: those of the mean of their losses or,
    where they `add_up` (parts that differ in size, each weighted by the objective), of the sum.
    rate, decay: learning rate and decay of the averages at a step, counted from 0; without decay
    there are none. precision: of activations, weights stay float32. clip: greatest norm of a
    module's gradient, 0 for none. look_every: steps between looks at the losses, for each of which
    a GPU is waited for. keep_every: steps between calls of `kept`, 0 for none. sharded: weights,
    averages and what optimizers keep are shared out over all processes (FSDP2). compiled: the
    trained modules are called through torch.compile. checkpointed: blocks are computed again for
    the backward pass, so that it need not keep what is within them.
    """

    device: torch.device
    steps: int
    parts: int = 1
    add_up: bool = False
    optimizer: OptimizerSettings
    rate: Callable[[int], float]
    decay: Callable[[int], float] | None = None
    precision: torch.dtype = torch.float32
    clip: float = 0.0
    look_every: int = 1
    keep_every: int = 0
    sharded: bool = False
    compiled: bool = False
    checkpointed: bool = False


@dataclass(frozen=True)
class Snapshot:
    """A training as it is after `done` steps; it stays so while the training goes on.

    losses: by name, one a step. trained: what a training ends in, whole: each module's average,
    where one is kept. content: what a resumed training needs.
    """

    done: int
    losses: Mapping[str, list[float]]
    trained: Modules
    content: Mapping[str, Any]


class Learner(Generic[Batch]):
    """An objective in training; with the step known, all random numbers follow from the data."""

    def __init__(
        self, objective: Objective[Batch], settings: LoopSettings, processes: "PartialState"
    ) -> None:
        self._objective, self._settings = objective, settings
        self.device = settings.device
        self.modules: Modules = objective.modules
        self._together = processes.num_processes > 1
        self._sharded = settings.sharded and self._together
        self._main = processes.is_main_process
        # of two such processes the weights are, to the bit, what they are with shards
        self._as_if_sharded = (
            self._together and self.device.type == "cpu" and len(self.modules) == 1
        )
        whole = self._sharded or self._as_if_sharded
        layout = torch.contiguous_format if whole else torch.channels_last
        for module in self.modules.values():
            module.to(self.device).to(memory_format=layout).train()  # type: ignore[call-overload]
            if settings.checkpointed:
                keep_block_inputs_alone(module)
        averaged = objective.averaged if settings.decay else ()
        self._averages = {name: ModelEmaV3(self.modules[name]) for name in averaged}
        self._copies: dict[str, nn.Module] = {}
        if self._sharded:
            self._shard()
        elif self._as_if_sharded:
            for module in self.modules.values():
                same_order.add_up_by_block(module)
        self._weights = {
            name: [p for p in module.parameters() if p.requires_grad]
            for name, module in self.modules.items()
        }
        self._optimizers = {
            name: build_optimizer(module, settings.optimizer)
            for name, module in self.modules.items()
        }
        self._shared = {
            # else the processes' share of each gradient would be a copy of it
            name: nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)
            for name, module in self.modules.items()
            if self._together and not self._sharded
        }
        called = {**self.modules, **self._shared}
        self._called: dict[str, Any] = {
            name: torch.compile(module) if settings.compiled else module
            for name, module in called.items()
        }
        low = settings.precision == torch.float16  # whose small gradients would be zero
        self._scaler = torch.amp.GradScaler(self.device.type) if low else None
        self.done = 0
        self.losses: dict[str, list[float]] = {update.name: [] for update in objective.updates}

    def _shard(self) -> None:
        """Weights and averages; UserError for several modules, whose gradients come and go."""
        if len(self.modules) > 1:
            raise UserError(
                f"the modules {', '.join(self.modules)} are trained in turn, which sharding = "
                '"full" cannot; set sharding = "none"'
            )
        mesh = sharding.all_processes(self.device)
        for name, module in self.trained.items():
            if self._main:
                self._copies[name] = deepcopy(module).to("cpu")
            sharding.shard(module, mesh)
        for name in self._averages:
            sharding.shard(self.modules[name], mesh)

    @property
    def trained(self) -> Modules:
        """What a training ends in: each module's average, where one is kept."""
        return {**self.modules, **{name: ema.module for name, ema in self._averages.items()}}

    def step(self, data: TrainingData[Batch]) -> Tensor:
        """Every update once; float[updates,parts], the losses here, which are not waited for."""
        parts, rate = self._settings.parts, self._settings.rate(self.done)
        losses = []
        for number, update in enumerate(self._objective.updates):
            for group in self._optimizers[update.trains].param_groups:
                group["lr"] = rate * update.rate
            batches = (data.batch(self.done, number * parts + part) for part in range(parts))
            losses.append(self._update(update, batches))
        self._average()
        self.done += 1
        return self._of_all_processes(torch.stack(losses))

    def _of_all_processes(self, losses: Tensor) -> Tensor:
        """The mean over the processes: so all note the same curve, and stop at the same loss."""
        if self._together:
            torch.distributed.all_reduce(losses)
            losses /= torch.distributed.get_world_size()
        return losses

    def _update(self, update: Update[Batch], batches: Iterable[Batch]) -> Tensor:
        """float[parts]: the loss of each part before the update."""
        settings, optimizer = self._settings, self._optimizers[update.trains]
        modules = self._given_to(update)
        optimizer.zero_grad()
        losses = []
        for part, batch in enumerate(batches, 1):
            with self._gradients_kept_here(update.trains, here=part < settings.parts):
                with self._autocast():
                    loss = update.loss(modules, batch)
                share = loss if settings.add_up or settings.parts == 1 else loss / settings.parts
                (share if self._scaler is None else self._scaler.scale(share)).backward()
            losses.append(loss.detach())
        self._descend(optimizer, self._weights[update.trains])
        return torch.stack(losses)

    def _given_to(self, update: Update[Batch]) -> Modules:
        """The modules as an update sees them: gradients reach the weights of one alone."""
        if len(self.modules) > 1:
            for name, weights in self._weights.items():
                for weight in weights:
                    weight.requires_grad_(name == update.trains)
        return {**self.modules, update.trains: self._called[update.trains]}

    def _gradients_kept_here(self, name: str, *, here: bool) -> AbstractContextManager[None]:
        """Each process adds up its own gradients, until the last part of a batch."""
        if self._sharded:
            sharding.sum_here(self.modules[name], here=here)
        elif here and name in self._shared:
            return self._shared[name].no_sync()
        return nullcontext()

    def _autocast(self) -> torch.autocast:
        low = self._settings.precision != torch.float32
        kind = self._settings.precision if low else torch.bfloat16
        return torch.autocast(self.device.type, dtype=kind, enabled=low)

    def _descend(self, optimizer: torch.optim.Optimizer, weights: list[nn.Parameter]) -> None:
        if self._settings.clip:
            if self._scaler is not None:
                self._scaler.unscale_(optimizer)
            clip = same_order.clip_norm if self._as_if_sharded else nn.utils.clip_grad_norm_
            clip(weights, self._settings.clip)
        if self._scaler is None:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    @torch.no_grad()
    def _average(self) -> None:
        if self._settings.decay is None:
            return
        decay = self._settings.decay(self.done)
        for name, average in self._averages.items():
            average.apply_update_(self.modules[name], decay)

    def note(self, found: list[Tensor]) -> None:
        """The losses of the latest steps; NotFiniteError for the first that is not finite.

        One wait for the device, however many they are.
        """
        parts = torch.stack(found).cpu().double()
        losses = parts.sum(dim=2) if self._settings.add_up else parts.mean(dim=2)
        for step, row in enumerate(losses.tolist(), self.done - len(found) + 1):
            for (name, known), loss in zip(self.losses.items(), row, strict=True):
                if not math.isfinite(loss):
                    raise NotFiniteError(step, name, loss)
                known.append(loss)

    def snapshot(self, *, networks: bool = True) -> Snapshot | None:
        """In the main process; it holds until the next is taken. Sharded, all must call it.

        networks: whether what is trained is wanted as modules, too.
        """
        if not (self._main or self._sharded):
            return None
        content = sharding.whole(self._content(), keep=self._main)
        if not self._main:
            return None
        losses = {name: [*values] for name, values in self.losses.items()}
        return Snapshot(self.done, losses, self._copied(content) if networks else {}, content)

    def _copied(self, content: Mapping[str, Any]) -> Modules:
        """What is trained, with the weights that a saved state holds."""
        for name, module in self.trained.items():
            if name not in self._copies:
                self._copies[name] = deepcopy(module)
            kind = "averages" if name in self._averages else "modules"
            self._copies[name].load_state_dict(content[kind][name])
        return dict(self._copies)

    def _content(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {
            "step": self.done,
            "modules": _states(self.modules),
            "averages": {name: e.module.state_dict() for name, e in self._averages.items()},
            "optimizers": _states(self._optimizers),
            "scaler": self._scaler.state_dict() if self._scaler else None,
            "losses": {n: torch.tensor(ls, dtype=torch.float64) for n, ls in self.losses.items()},
        }

    def resume(self, content: Mapping[str, Any]) -> None:
        """Take up a saved state; what torch raises where it is of another training."""
        own = {
            "modules": self.modules,
            "averages": {name: average.module for name, average in self._averages.items()},
            "optimizers": self._optimizers,
        }
        for kind, holders in own.items():
            if content[kind].keys() != holders.keys():
                raise LookupError(f"{kind}: {', '.join(content[kind])}")
            for name, holder in holders.items():
                if isinstance(holder, nn.Module):
                    sharding.load_module(holder, content[kind][name])
                else:
                    sharding.load_optimizer(holder, content[kind][name])
        if self._scaler:
            self._scaler.load_state_dict(content["scaler"])
        self.done = int(content["step"])
        for name, losses in content["losses"].items():
            self.losses[name] = losses.tolist()


def _states(holders: Mapping[str, Any]) -> dict[str, Any]:
    return {name: holder.state_dict() for name, holder in holders.items()}
