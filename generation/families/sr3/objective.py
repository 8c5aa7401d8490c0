"""What SR3 learns by: noise of continuous levels (Saharia et al. 2021, section 2).

    t ~ uniform on the steps;  abar ~ uniform between abar_{t-1} and abar_t, where abar_{-1} = 1
    L = E ||eps - f(x_low, sqrt(abar) x + sqrt(1 - abar) eps, abar)||^2

A network that knows all levels can be sampled in any number of steps.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Questions
from generation.diffusion.losses import NoisyImages
from generation.training.data.images import DrawnImages


def continuous_loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
    """Mean squared error of epsilon."""
    noisy = NoisyImages.draw(questions.clean(drawn), questions.schedule, drawn.rng)
    table = torch.from_numpy(np.append(1.0, questions.schedule.alphas_cumprod)).to(noisy.t.device)
    before, at = table[noisy.t], table[noisy.t + 1]
    abar = at + drawn.rng.uniform().double() * (before - at)
    level = abar.float().view(-1, 1, 1, 1)
    between = NoisyImages(noisy.x0, noisy.noise, noisy.t, level.sqrt(), (1 - level).sqrt())
    log_snr = (abar.log() - torch.log1p(-abar)).float()
    question = questions.about(drawn, between, log_snr)
    said, _ = question.put_to(network)
    return F.mse_loss(said, question.target)
