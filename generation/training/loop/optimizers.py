"""The optimizers that trainings of generators and classifiers name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import Lamb, param_groups_weight_decay  # type: ignore[attr-defined]
from torch import nn

from generation.training.config import WITH_BETAS
from release.errors import unknown_name


@dataclass(frozen=True)
class OptimizerSettings:
    """name: one of OPTIMIZERS. betas, eps: of adam, adamw and lamb; None for their own.

    weight_decay: of weights, spared by biases, normalisation and what the module says itself
    (`no_weight_decay`); None keeps all weights in one group. momentum: of sgd and momentum.
    """

    name: str
    learning_rate: float
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    momentum: float = 0.9


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adafactor": torch.optim.Adafactor,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "lamb": Lamb,
    "momentum": torch.optim.SGD,
    "sgd": torch.optim.SGD,
}


def build_optimizer(module: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Of the module's weights that have a gradient; UserError for a name that is unknown."""
    if settings.name not in OPTIMIZERS:
        raise unknown_name("optimizer", settings.name, OPTIMIZERS)
    own: dict[str, Any] = {}
    if settings.name in WITH_BETAS:
        given = {"betas": settings.betas, "eps": settings.eps}
        own = {name: value for name, value in given.items() if value is not None}
    elif settings.name in ("sgd", "momentum"):
        own = {"momentum": settings.momentum, "nesterov": settings.name == "sgd"}
    # the groups have their own weight decay; the optimizer's, which some are not without, is none
    return OPTIMIZERS[settings.name](
        _groups(module, settings.weight_decay), lr=settings.learning_rate, weight_decay=0.0, **own
    )


def _groups(module: nn.Module, weight_decay: float | None) -> Any:
    """Parameters, or those without weight decay and those with it, as timm tells them apart."""
    if weight_decay is None:
        return [parameter for parameter in module.parameters() if parameter.requires_grad]
    spared: Callable[[], set[str]] = getattr(module, "no_weight_decay", set)
    return param_groups_weight_decay(
        module, weight_decay=weight_decay, no_weight_decay_list=spared()
    )
