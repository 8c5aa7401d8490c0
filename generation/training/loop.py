"""Training one stage of a cascade on a labelled image set."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from generation.diffusion.hybrid_loss import hybrid_term
from generation.diffusion.sampler import predicted_x0
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule
from generation.families.pixel_unet.network import PixelUNet, augment, split_variance
from generation.networks.finite import require_finite, tensors_in
from generation.training.config import TrainingConfig
from generation.training.state import TrainingStates
from release.errors import UserError

STEPS_BETWEEN_CHECKS = 50  # on a GPU, which a look at each loss would keep waiting
OPTIMIZERS = {"adam": torch.optim.Adam, "adafactor": torch.optim.Adafactor}


@dataclass(frozen=True)
class TrainingSet:
    """Everything a stage learns from, in memory.

    images uint8[N,C,H,W] at the stage's resolution; parents uint8[N,C,h,w] at the parent's, None
    for a base stage; prompts int64[N], indices into the network's prompt embeddings, of which
    `null_prompt` is the one that dropped captions become; prediction: what the network learns.
    """

    images: Tensor
    parents: Tensor | None
    prompts: Tensor
    null_prompt: int
    prediction: Prediction


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a half cosine to zero; `step` counts from 0."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    progress = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * warm * 0.5 * (1 + float(np.cos(np.pi * min(1.0, progress))))


def training_loss(
    network: Callable[..., Tensor],
    data: TrainingSet,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    rng: np.random.Generator,
    size: int,
    device: torch.device,
) -> Tensor:
    """The loss of one batch drawn from `rng`, which decides all its randomness.

    Mean squared error, and the hybrid term where the network gives its variance.
    """
    rows = torch.from_numpy(rng.integers(len(data.images), size=size))
    x0 = _to_signal(data.images[rows]) * schedule.input_scale
    if config.flip:
        mirrored = torch.from_numpy(rng.random(size) < 0.5)
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
    t = torch.from_numpy(rng.integers(schedule.num_steps, size=size))
    noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    abar = torch.from_numpy(schedule.alphas_cumprod)[t].float().view(-1, 1, 1, 1)
    signal, spread = abar.sqrt(), (1 - abar).sqrt()
    x = signal * x0 + spread * noise
    target = {"epsilon": noise, "x0": x0, "v": signal * noise - spread * x0}[data.prediction]
    prompt = data.prompts[rows].clone()
    prompt[torch.from_numpy(rng.random(size) < config.caption_dropout)] = data.null_prompt
    inputs = [x, t, prompt]
    if data.parents is not None:
        parent = _to_signal(data.parents[rows])
        if config.flip:
            parent = torch.where(mirrored[:, None, None, None], parent.flip(3), parent)
        level = torch.from_numpy(rng.random(size) * config.max_augmentation)
        dirt = torch.from_numpy(rng.standard_normal(parent.shape, dtype=np.float32))
        inputs += [augment(parent, dirt, level), (level * schedule.num_steps).float()]
    out = network(*(tensor.to(device) for tensor in inputs)).float()
    prediction, v = split_variance(out, x0.shape[1])
    loss = F.mse_loss(prediction, target.to(device))
    if v is None:
        return loss
    x0, x, t, signal, spread = (tensor.to(device) for tensor in (x0, x, t, signal, spread))
    estimate = predicted_x0(prediction, data.prediction, x, signal, spread)
    return loss + hybrid_term(v, estimate, x0, t, schedule)


@dataclass(frozen=True)
class _Learner:
    """What changes while a stage is trained; with the step known, all random numbers follow."""

    accelerator: Accelerator
    network: PixelUNet
    average: PixelUNet
    model: nn.Module  # the network, or what keeps it the same in all processes
    optimizer: torch.optim.Optimizer

    def content(self, losses: list[float], key: str) -> dict[str, Any]:
        """What a resumed run needs. UserError if a number in it is not finite."""
        scaler = self.accelerator.scaler  # with fp16 alone
        content = {
            "key": key,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "step": len(losses),
            "losses": torch.tensor(losses, dtype=torch.float64),
        }
        require_finite(tensors_in(content), f"the training at step {len(losses)}")
        return content

    def resume(self, content: dict[str, Any] | None, key: str, folder: Path) -> list[float]:
        """Take up a saved state; the losses of its steps. UserError if of another training."""
        if content is None:
            return []
        other = UserError(f"{folder} holds the state of another training; name another --out")
        if content.get("key", key) != key:  # states of before do not say
            raise other
        try:
            self.network.load_state_dict(content["network"])
            self.average.load_state_dict(content["average"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError, LookupError, TypeError):
            raise other from None
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        losses: list[float] = content["losses"].tolist()
        return losses


def train_stage(
    network: PixelUNet,
    data: TrainingSet,
    config: TrainingConfig,
    folder: Path,
    on_progress: Callable[[int], None],
    on_save: Callable[[PixelUNet, list[float]], None],
    keep: Callable[[PixelUNet, int], None] = lambda _, __: None,
    key: str = "",
) -> tuple[PixelUNet, list[float]]:
    """Train `network` (in place), saving state to `folder` every `save_every` steps.

    Rerun with the same arguments it goes on from the last state, and ends with the weights of an
    uninterrupted run. Returns the network with its averaged (EMA) weights. `on_progress` gets the
    number of steps done since it was last called, `on_save` the averaged network and all losses
    at each save but the last, whose two are returned, and again where a run goes on; `keep` the
    averaged network and the step every `keep_every` steps, before that step is saved, so that no
    kill can leave one out. `key` says which training a state is of.

    UserError, naming the step, at the first loss that is not finite, or if the state to be saved
    is not; the last state that was stays.
    """
    accelerator = _accelerator(config)
    learner = _learner(network, config, accelerator)
    states = TrainingStates(folder)
    losses = learner.resume(states.read(), key, folder)
    unread: list[Tensor] = []
    patience = 1 if accelerator.device.type == "cpu" else STEPS_BETWEEN_CHECKS
    schedule = NoiseSchedule(network.config.schedule)
    on_progress(len(losses))
    if 0 < len(losses) < config.steps and accelerator.is_main_process:
        on_save(learner.average, losses)  # a kill may have come between the state and this
    for step in range(len(losses), config.steps):
        unread.append(_optimizer_step(learner, data, schedule, config, step))
        _update_average(learner.average, network, min(config.ema, (1 + step) / (10 + step)))
        on_progress(1)
        done = step + 1
        last = done == config.steps
        saving = last or done % config.save_every == 0
        keeping = config.keep_every > 0 and done % config.keep_every == 0
        if saving or keeping or len(unread) >= patience:
            losses += _finite_losses(unread, len(losses), config)
            unread = []
        if keeping and accelerator.is_main_process:
            keep(learner.average, done)
        if saving and accelerator.is_main_process:
            states.write(learner.content(losses, key))
            if not last:
                on_save(learner.average, losses)
    return learner.average, losses


def require_even_batch(config: TrainingConfig, processes: int) -> None:
    """UserError if the batch does not divide over all processes and accumulation steps."""
    share = processes * config.accumulation
    if config.batch % share:
        raise UserError(f"batch = {config.batch} does not divide over {share} parts")


def _accelerator(config: TrainingConfig) -> Accelerator:
    accelerator = Accelerator(
        mixed_precision=config.precision, gradient_accumulation_steps=config.accumulation
    )
    require_even_batch(config, accelerator.num_processes)
    return accelerator


def _learner(network: PixelUNet, config: TrainingConfig, accelerator: Accelerator) -> _Learner:
    network = network.train().requires_grad_(True).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False).to(accelerator.device)
    optimizer = OPTIMIZERS[config.optimizer](network.parameters(), lr=config.learning_rate)
    model, optimizer = accelerator.prepare(network, optimizer)
    return _Learner(accelerator, network, average, model, optimizer)


def _finite_losses(found: list[Tensor], before: int, config: TrainingConfig) -> list[float]:
    """The losses of the steps that follow the first `before`; UserError for one that is not finite.

    One wait for the device, however many they are.
    """
    losses: list[float] = torch.stack(found).cpu().double().mean(dim=1).tolist()
    for step, loss in enumerate(losses, before + 1):
        if not math.isfinite(loss):
            raise UserError(
                f"the training diverged: the loss of step {step} is {loss}; a learning_rate below "
                f"{config.learning_rate:g} may help, in a run of its own; the last state that was "
                "saved is kept"
            )
    return losses


def _optimizer_step(
    learner: _Learner,
    data: TrainingSet,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    step: int,
) -> Tensor:
    """One update; float[accumulation], the loss of each part in this process, not waited for."""
    accelerator, model, optimizer = learner.accelerator, learner.model, learner.optimizer
    size = config.batch // (accelerator.num_processes * config.accumulation)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, config)
    losses = []
    for part in range(config.accumulation):
        counter = [0, 0, accelerator.process_index, part]
        rng = np.random.Generator(np.random.Philox(key=[config.seed, step], counter=counter))
        dropout_seed = np.random.SeedSequence([config.seed, step, *counter]).generate_state(1)
        torch.manual_seed(int(dropout_seed[0]))
        with accelerator.accumulate(model):
            loss = training_loss(model, data, schedule, config, rng, size, accelerator.device)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, current in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(current, 1 - decay)


def _to_signal(images: Tensor) -> Tensor:
    """uint8 [0, 255] => float32 [-1, 1]."""
    return images.float() / 127.5 - 1
