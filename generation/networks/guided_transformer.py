"""Guidance by labels of a transformer, at the times at which it acts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generation.diffusion.guidance import always

Channels = tuple[int, int]  # so many are guided, of so many
GUIDED: Channels = (3, 4)  # as DiT's code guides latents of Stable Diffusion's autoencoder
Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class GuidedTransformer:
    """A network with a batch's classes bound, as samplers call it: of x and the time t of all.

    network: of x, time and condition, in `dtype`. condition int64[N], null: the class of none.
    guidance w: uncond + w * (cond - uncond), both halves as one batch; 1 runs one half alone, and
    so does a time at which guidance does not act, by `acts`. guided: of so many channels the first
    ones; of other numbers of channels, and where it is None, all.
    """

    def __init__(
        self,
        network: Network,
        condition: Tensor,
        null: int,
        guidance: float,
        dtype: torch.dtype,
        acts: Callable[[Any], bool] = always,
        guided: Channels | None = GUIDED,
    ) -> None:
        self._network, self._guidance, self._dtype = network, guidance, dtype
        self._acts, self._guided = acts, guided
        self._halves = (condition, torch.full_like(condition, null))

    def __call__(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """What it says of the noise or the velocity, and the further channels."""
        n, channels = x.shape[:2]
        acts = self._guidance != 1 and self._acts(t)
        told = torch.cat(self._halves) if acts else self._halves[0]
        inputs = (torch.cat([x, x]) if acts else x).to(self._dtype)
        times = torch.full((len(inputs),), t, device=x.device)
        out = self._network(inputs, times, told).to(x.dtype)
        said, further = out[:n, :channels], out[:n, channels:]
        if not acts:
            return said, further
        some, of = self._guided or (channels, channels)
        guided = some if channels == of else channels
        unconditional = out[n:, :guided]
        change = self._guidance * (said[:, :guided] - unconditional)
        return torch.cat([unconditional + change, said[:, guided:]], dim=1), further
