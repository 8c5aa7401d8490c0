"""Guidance of any network, by itself or by a weaker one; what it carries from step to step."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from generation.diffusion.sampler import Denoiser, split_variance

# x float[N,C,H,W], t int64[N], condition int64[N], parent and what the step before returned last
# => the network's output, and what the next step is to be given
Evaluation = Callable[[Tensor, Tensor, Tensor, Tensor | None, Any], tuple[Tensor, Any]]


def always(_: Any) -> bool:
    """At every time."""
    return True


def guided(
    evaluate: Evaluation,
    condition: Tensor,
    null: int,
    guidance: float,
    parent: Tensor | None,
    acts: Callable[[int], bool] = always,
) -> Denoiser:
    """Imagen's w: uncond + w*(cond - uncond); w = 1 runs the conditional half alone.

    acts: whether guidance acts at a step; at others the conditional half is run alone, too. A
    learned variance is the conditional half's.
    """
    halves = _Halves(evaluate, condition, null, parent)

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        channels = x.shape[1]
        if guidance == 1 or not acts(t):
            return split_variance(halves.conditional(x, t), channels)
        told, untold = halves.both(x, t)
        conditional, v = split_variance(told, channels)
        unconditional, _ = split_variance(untold, channels)
        return unconditional + guidance * (conditional - unconditional), v

    return denoise


class _Halves:
    """A network told the classes of a batch, and the same told none; each carries what is its own.

    Outputs come in x's dtype: guidance is arithmetic on differences.
    """

    def __init__(
        self, evaluate: Evaluation, condition: Tensor, null: int, parent: Tensor | None
    ) -> None:
        self._evaluate, self._parent = evaluate, parent
        self._told = (condition, torch.full_like(condition, null))
        self._carried: list[Any] = [None, None]

    def conditional(self, x: Tensor, t: int) -> Tensor:
        """What the network says, told the classes."""
        return self._half(0, x, t)

    def both(self, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """What it says, and what it says when told none."""
        first, second = self._carried
        # A GPU is filled by both halves at once; a CPU's cache holds the activations of one.
        # The half without a class carries nothing yet where guidance has just begun to act.
        if x.device.type == "cpu" or (first is None) != (second is None):
            return self._half(0, x, t), self._half(1, x, t)
        carried = None if first is None else torch.cat([first, second])
        parents = None if self._parent is None else torch.cat([self._parent] * 2)
        output, found = self._asked(torch.cat([x, x]), t, torch.cat(self._told), parents, carried)
        self._carried = [None, None] if found is None else list(found.chunk(2))
        told, untold = output.chunk(2)
        return told, untold

    def _half(self, which: int, x: Tensor, t: int) -> Tensor:
        told, carried = self._told[which], self._carried[which]
        output, self._carried[which] = self._asked(x, t, told, self._parent, carried)
        return output

    def _asked(
        self, x: Tensor, t: int, told: Tensor, parents: Tensor | None, carried: Any
    ) -> tuple[Tensor, Any]:
        times = torch.full((len(x),), t, device=x.device)
        output, found = self._evaluate(x, times, told, parents, carried)
        return output.to(x.dtype), found


class Bound(Protocol):
    """A network with a batch bound: of x float[N,C,H,W] and a time of its sampler's kind, what it
    says, and what else of that shape."""

    def __call__(self, x: Tensor, t: Any) -> tuple[Tensor, Tensor | None]: ...


def autoguided(
    network: Bound, guide: Bound, guidance: float, acts: Callable[[Any], bool] = always
) -> Bound:
    """guide + w * (network - guide): Karras et al. 2024 (arXiv 2406.02507), equation 3.

    Both are told the class; the guide is a weaker network of the same task. A learned variance is
    the network's. acts: whether guidance acts at a time; at others the guide is not asked.
    """

    def say(x: Tensor, t: Any) -> tuple[Tensor, Tensor | None]:
        said, further = network(x, t)
        if not acts(t):
            return said, further
        weaker, _ = guide(x, t)
        return weaker + guidance * (said - weaker), further

    return say
