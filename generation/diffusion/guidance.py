"""Guidance of any network, by itself or by a weaker one; what it carries from step to step."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from generation.diffusion.sampler import Denoiser, split_variance

# x float[N,C,H,W], t int64[N], condition int64[N], parent and what the step before returned last
# => the network's output, and what the next step is to be given
Evaluation = Callable[[Tensor, Tensor, Tensor, Tensor | None, Any], tuple[Tensor, Any]]


def guided(
    evaluate: Evaluation, condition: Tensor, null: int, guidance: float, parent: Tensor | None
) -> Denoiser:
    """Imagen's w: uncond + w*(cond - uncond); w = 1 runs the conditional half alone.

    A learned variance is the conditional half's. Each half carries what is its own.
    """
    n = len(condition)
    halves = [condition] if guidance == 1 else [condition, torch.full_like(condition, null)]
    # A GPU is filled by both halves at once; a CPU's cache holds the activations of one.
    passes = halves if condition.device.type == "cpu" else [torch.cat(halves)]
    copies = len(passes[0]) // n
    parents = None if parent is None else torch.cat([parent] * copies)
    carried: list[Any] = [None] * len(passes)

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        inputs, times = torch.cat([x] * copies), torch.full((copies * n,), t, device=x.device)
        found = []
        for i, told in enumerate(passes):
            output, carried[i] = evaluate(inputs, times, told, parents, carried[i])
            found.append(output)
        out = torch.cat(found).to(x.dtype)  # guidance is arithmetic on differences: in x's
        conditional, v = split_variance(out[:n], x.shape[1])
        if guidance == 1:
            return conditional, v
        unconditional, _ = split_variance(out[n:], x.shape[1])
        return unconditional + guidance * (conditional - unconditional), v

    return denoise


class Bound(Protocol):
    """A network with a batch bound: of x float[N,C,H,W] and a time of its sampler's kind, what it
    says, and what else of that shape."""

    def __call__(self, x: Tensor, t: Any) -> tuple[Tensor, Tensor | None]: ...


def always(_: Any) -> bool:
    """At every time."""
    return True


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
