"""A codebook whose codes follow the latents (Razavi et al. 2019, eq. 3; van den Oord et al. 2017).

Of the latents z_ij whose nearest code is e_i, n_i in number, at a step:

    N_i = g N_i + (1 - g) n_i,   m_i = g m_i + (1 - g) sum_j z_ij,   e_i = m_i / N_i

with N_i smoothed (Laplace); a code that is never nearest stays where it is. Ours: the codes begin
as latents of the first batch, evenly taken from it, so that none begins far from all.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = 1e-5


class Codebook(nn.Module):
    """`codes` vectors of `width` numbers; in training each call moves them."""

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._begun = False
        self.register_buffer("vectors", torch.zeros(codes, width))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z float[N,W,h,w] => the codes nearest to it, of that shape and with its gradient; the
        mean square of what they miss it by, whose gradient is z's alone; their numbers,
        int64[N,h,w]."""
        flat = z.permute(0, 2, 3, 1).float()
        if self.training and not self._begun:
            self._begin(flat.detach().flatten(0, 2))
        nearest = self.nearest(flat)
        found = F.embedding(nearest, self.vectors)
        missed = (flat - found).square().mean()
        passed = flat + (found - flat).detach()
        if self.training:
            self._follow(flat.detach().flatten(0, 2), nearest.flatten())
        return passed.permute(0, 3, 1, 2), missed, nearest

    def nearest(self, flat: Tensor) -> Tensor:
        """int64[…] of float32[…,W]; autocast leaves cdist in it."""
        return torch.cdist(flat.flatten(0, -2), self.vectors).argmin(dim=1).view(flat.shape[:-1])

    def planes(self, numbers: Tensor) -> Tensor:
        """float[N,W,h,w] of int64[N,h,w]."""
        return F.embedding(numbers, self.vectors).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _begin(self, flat: Tensor) -> None:
        """At latents of the first batch; not of a training that goes on."""
        if not self.counts.any():
            places = torch.linspace(0, len(flat) - 1, len(self.vectors), device=flat.device)
            self.vectors.copy_(flat[places.long()])
            if _together():
                torch.distributed.broadcast(self.vectors, 0)
        self._begun = True

    @torch.no_grad()
    def _follow(self, flat: Tensor, nearest: Tensor) -> None:
        counts = torch.zeros_like(self.counts).index_add_(0, nearest, torch.ones_like(flat[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, nearest, flat)
        if _together():
            for found in (counts, sums):  # of the latents of all processes
                torch.distributed.all_reduce(found)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + SMALL) / (total + len(self.counts) * SMALL) * total
        seen = (self.counts > SMALL)[:, None]
        self.vectors.copy_(torch.where(seen, self.sums / smoothed[:, None], self.vectors))


def _together() -> bool:
    """Whether several processes train."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
