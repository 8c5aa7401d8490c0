"""What a RIN learns by: to denoise, from latents of a first pass (Jabri et al. 2022, section 3.2).

    Z~ = latents of f(x_t, t, 0)
    L  = E ||eps - f(x_t, t, sg(Z~))||^2    for a share of the images, f(x_t, t, 0) for the others

where sg passes no gradient on. A sampler begins with none and then has those of the step before.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Loss, Questions
from generation.training.data.images import DrawnImages


def self_conditioned_loss(share: float) -> Loss:
    """Mean squared error, where `share` of the images have latents of a first pass."""

    def loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
        question = questions.draw(drawn)
        begun = drawn.rng.uniform() < share
        latents = None
        if share > 0:  # not where some are begun: sharded processes pass through together
            with torch.no_grad():
                _, latents = question.put_to(network)
            torch.clear_autocast_cache()  # it holds weights without their gradient
            latents = latents * begun.to(latents)[:, None, None]
        said, _ = question.put_to(network, latents)
        return F.mse_loss(said, question.target)

    return loss
