"""Importance sampling of a schedule's steps (Nichol & Dhariwal 2021, section 3.3).

    p_t is proportional to sqrt(E[L_t^2]);  L = E_{t ~ p} [L_t / (T p_t)]

E[L_t^2] is the mean over the latest KEPT losses at t. Until every t has as many, all are alike in
probability. A small share of each batch always is, so that no step is forgotten.
"""

import torch
from torch import Tensor, nn

KEPT = 10  # losses a step, as in the paper
ALIKE = 0.001  # share of draws alike in probability, as in the authors' code


class LossHistory(nn.Module):
    """The latest losses at each of `steps`; part of a network while it is trained."""

    losses: Tensor  # float32[T,KEPT]
    seen: Tensor  # int64[T]: how many there have been

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(steps, KEPT))
        self.register_buffer("seen", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """float64[T]: p_t."""
        steps = len(self.seen)
        alike = torch.full((steps,), 1 / steps, dtype=torch.float64, device=self.seen.device)
        roots = self.losses.double().square().mean(dim=1).sqrt()
        total = roots.sum()
        known = (self.seen >= KEPT).all() & (total > 0)
        learned = (1 - ALIKE) * roots / torch.where(total > 0, total, 1.0) + ALIKE * alike
        return torch.where(known, learned, alike)

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """t int64[N] by uniform numbers in [0, 1), and its weight 1 / (T p_t), float32[N]."""
        p = self.probabilities()
        edges = p.cumsum(0)
        t = torch.searchsorted(edges / edges[-1], uniform.double(), right=True)
        t = t.clamp(max=len(p) - 1)
        return t, (1 / (len(p) * p[t])).float()

    @torch.no_grad()
    def note(self, t: Tensor, losses: Tensor) -> None:
        """Losses float[N] at t int64[N], those of all processes in the order of their ranks."""
        t, losses = (_of_all_processes(numbers.detach()) for numbers in (t, losses.float()))
        order = torch.argsort(t, stable=True)
        t, losses = t[order], losses[order]
        starts = torch.searchsorted(t, t)  # where the run of equal t begins
        ends = torch.searchsorted(t, t, right=True)
        place = torch.arange(len(t), device=t.device)
        latest = ends - place <= KEPT  # an earlier one would only be written over
        slots = (self.seen[t] + place - starts) % KEPT
        self.losses[t[latest], slots[latest]] = losses[latest]
        self.seen += torch.bincount(t, minlength=len(self.seen))


def _of_all_processes(numbers: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return numbers
    found = [torch.empty_like(numbers) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, numbers.contiguous())
    return torch.cat(found)
