"""The steps of a noise schedule that a sampler visits, apart from it so that they need no torch."""

from collections.abc import Callable

import numpy as np

from generation.diffusion.flow_times import acts_on
from generation.diffusion.sampler_config import PIXEL_METHODS, SamplerConfig, steps_made
from generation.diffusion.schedule import NoiseSchedule, level_abar
from release.errors import UserError


def sampling_steps(schedule: NoiseSchedule, config: SamplerConfig) -> list[int]:
    """The table indices visited, falling from T - 1: the noisiest step is never left out.

    A solver that ends on x0 gains nothing from evaluating t = 0, so its last point is dropped.
    """
    if config.method not in PIXEL_METHODS:
        raise UserError(f"method {config.method} belongs to other generators, not to this one")
    extra = 1 if config.method == "dpm-solver++" else 0
    if config.steps + extra > schedule.num_steps:
        most = schedule.num_steps - extra
        raise UserError(f"steps = {config.steps} is more than the {most} this schedule allows")
    power = config.spacing_power
    points = np.linspace((schedule.num_steps - 1) ** (1 / power), 0, config.steps + extra) ** power
    steps = [int(p) for p in np.round(points)[: config.steps]]
    if len(set(steps)) < len(steps):
        raise UserError(
            f"spacing_power = {power:g} makes one of {schedule.num_steps} steps twice at steps = "
            f"{config.steps}: give fewer, or a power nearer to 1"
        )
    return steps


def visited_steps(
    schedule: NoiseSchedule, config: SamplerConfig, strength: float = 1.0
) -> list[int]:
    """The same, less those that have no more noise than `stop` leaves; UserError if all of them.

    strength: share of them that is made, the last ones.
    """
    table, end = schedule.alphas_cumprod, final_abar(config)
    visited = [t for t in sampling_steps(schedule, config) if table[t] < end]
    if not visited:
        raise UserError(f"stop = {config.stop:g} leaves no step to take")
    return visited[-steps_made(len(visited), strength) :]


def final_abar(config: SamplerConfig) -> float:
    """abar of what the reverse process ends on: 1, or that of `stop`."""
    return 1.0 if config.stop == 0 else level_abar(config.stop)


def acting(schedule: NoiseSchedule, config: SamplerConfig) -> Callable[[int], bool]:
    """Whether guidance acts at a step: where its share of noise is in `guidance_interval`."""
    interval = config.guidance_interval
    return lambda t: acts_on(interval, float(schedule.noise_shares[t]))


def guided_steps(schedule: NoiseSchedule, config: SamplerConfig, strength: float = 1.0) -> int:
    """At so many of them guidance acts."""
    return sum(map(acting(schedule, config), visited_steps(schedule, config, strength)))
