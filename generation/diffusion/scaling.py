"""The scale at which a network sees noisy images."""

from torch import Tensor

from generation.diffusion.schedule import ScheduleConfig


def unit_variance(x: Tensor, schedule: ScheduleConfig) -> Tensor:
    """With an input scale below 1 the network sees unit variance (Chen 2023, section 2.3)."""
    if schedule.input_scale == 1:
        return x
    return x / x.flatten(1).std(dim=1).view(-1, *[1] * (x.ndim - 1))
