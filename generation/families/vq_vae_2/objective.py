"""What VQ-VAE-2 learns by (Razavi et al. 2019, sections 2.1 and 3).

The autoencoder, whose codes e follow the latents z by their averages (codebook.py):

    L = mean |x - dec(e)|^2 + beta (mean |z_top - sg(e_top)|^2 + mean |z_bottom - sg(e_bottom)|^2)

The decoder's gradient reaches z as it reached e. Then the priors, on the codes of its images:

    L_top = -log p(top | class),   L_bottom = -log p(bottom | top, class)    (nats, mean over codes)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.vq_vae_2.hierarchy import Hierarchy
from generation.training.data.images import DrawnImages, to_signal
from generation.training.loop.objective import Modules, Update

AUTOENCODER, TOP, BOTTOM = "autoencoder", "top", "bottom"


class HierarchyObjective:
    """An autoencoder; no average of it is kept, as its codes would not be those of its latents."""

    averaged: Sequence[str] = ()

    def __init__(self, network: Hierarchy, commitment: float) -> None:
        self.modules: Modules = {AUTOENCODER: network}
        self.updates = (Update("loss", AUTOENCODER, self._loss),)
        self._commitment = commitment

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        x = to_signal(drawn.images)
        made, missed = modules[AUTOENCODER](x)
        loss: Tensor = F.mse_loss(made.float(), x) + self._commitment * missed
        return loss


class PriorObjective:
    """The two priors, trained in turn on the codes of an autoencoder that stays as it is."""

    averaged = (TOP, BOTTOM)

    def __init__(self, priors: dict[str, nn.Module], autoencoder: Hierarchy) -> None:
        self.modules: Modules = priors
        self.updates = (
            Update("top_loss", TOP, self._top_loss),
            Update("bottom_loss", BOTTOM, self._bottom_loss),
        )
        self._autoencoder = autoencoder

    def _top_loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        top, _ = self._codes(drawn)
        return F.cross_entropy(modules[TOP](top, drawn.conditions).float(), top)

    def _bottom_loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        top, bottom = self._codes(drawn)
        return F.cross_entropy(modules[BOTTOM](bottom, drawn.conditions, top).float(), bottom)

    @torch.no_grad()
    def _codes(self, drawn: DrawnImages) -> tuple[Tensor, Tensor]:
        """In float32: a code must not follow from the precision of the training."""
        with torch.autocast(drawn.images.device.type, enabled=False):
            return self._autoencoder.codes(to_signal(drawn.images))
