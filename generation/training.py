"""Training one stage of a cascade on a labelled image set."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from generation.errors import UserError
from generation.hybrid_loss import hybrid_term
from generation.pixel_unet import PixelUNet, augment, split_variance
from generation.sampler import predicted_x0
from generation.sampler_config import Prediction
from generation.schedule import NoiseSchedule
from generation.training_config import TrainingConfig

STATE_FILE = "state.pt"
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


@dataclass
class TrainingState:
    """What a resumed run needs: with the step known, every random number follows from the seed."""

    step: int
    losses: list[float]


def train_stage(
    network: PixelUNet,
    data: TrainingSet,
    config: TrainingConfig,
    folder: Path,
    on_progress: Callable[[int], None],
    on_save: Callable[[PixelUNet, list[float]], None],
    keep: Callable[[PixelUNet, int], None] = lambda _, __: None,
) -> tuple[PixelUNet, list[float]]:
    """Train `network` (in place), saving state to `folder` every `save_every` steps.

    Rerun with the same arguments it goes on from the last state, and ends with the weights of an
    uninterrupted run. Returns the network with its averaged (EMA) weights. `on_progress` gets the
    number of steps done since it was last called, `on_save` the averaged network and all losses
    at each save but the last, whose two are returned; `keep` the averaged network and the step
    every `keep_every` steps, before that step is saved, so that no kill can leave one out.
    """
    accelerator = Accelerator(
        mixed_precision=config.precision, gradient_accumulation_steps=config.accumulation
    )
    share = accelerator.num_processes * config.accumulation
    if config.batch % share:
        raise UserError(f"batch = {config.batch} does not divide over {share} parts")
    network = network.train().requires_grad_(True).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False).to(accelerator.device)
    optimizer = OPTIMIZERS[config.optimizer](network.parameters(), lr=config.learning_rate)
    model, optimizer = accelerator.prepare(network, optimizer)
    state = _load_state(folder / STATE_FILE, accelerator, network, average, optimizer)
    schedule = NoiseSchedule(network.config.schedule)
    on_progress(state.step)
    while state.step < config.steps:
        loss = _optimizer_step(accelerator, model, optimizer, data, schedule, config, state.step)
        _update_average(average, network, min(config.ema, (1 + state.step) / (10 + state.step)))
        state.step += 1
        state.losses.append(loss)
        on_progress(1)
        last = state.step == config.steps
        due = config.keep_every and state.step % config.keep_every == 0
        if due and accelerator.is_main_process:
            keep(average, state.step)
        if accelerator.is_main_process and (last or state.step % config.save_every == 0):
            _save_state(folder / STATE_FILE, accelerator, network, average, optimizer, state)
            if not last:
                on_save(average, state.losses)
    return average, state.losses


def _optimizer_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: TrainingSet,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    step: int,
) -> float:
    """One update over all accumulation parts; returns the mean loss of this process."""
    size = config.batch // (accelerator.num_processes * config.accumulation)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, config)
    total = 0.0
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
        total += float(loss.detach())
    return total / config.accumulation


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, current in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(current, 1 - decay)


def _save_state(
    path: Path,
    accelerator: Accelerator,
    network: PixelUNet,
    average: PixelUNet,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
) -> None:
    content = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,  # fp16 alone
        "step": state.step,
        "losses": torch.tensor(state.losses, dtype=torch.float64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def _load_state(
    path: Path,
    accelerator: Accelerator,
    network: PixelUNet,
    average: PixelUNet,
    optimizer: torch.optim.Optimizer,
) -> TrainingState:
    """The saved state, loaded into the arguments; a fresh one where nothing was saved."""
    if not path.exists():
        return TrainingState(0, [])
    content = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(content["network"])
    average.load_state_dict(content["average"])
    optimizer.load_state_dict(content["optimizer"])
    if accelerator.scaler:
        accelerator.scaler.load_state_dict(content["scaler"])
    return TrainingState(content["step"], content["losses"].tolist())


def _to_signal(images: Tensor) -> Tensor:
    """uint8 [0, 255] => float32 [-1, 1]."""
    return images.float() / 127.5 - 1
