"""What DiT and SiT learn by.

DiT (Peebles & Xie 2023, section 3.1): epsilon at a step of the schedule, and the variational term
of Nichol & Dhariwal 2021 for its variance, in bits a dimension.

    L = E ||eps - eps_theta(x_t)||^2 + L_vlb(stop(eps_theta), v_theta)

SiT (Ma et al. 2024, eq. 9): the velocity of the linear path, at a time uniform in [0, 1).

    x_t = t x + (1 - t) eps;    L = E ||x - eps - v_theta(x_t, t)||^2
"""

from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Questions
from generation.diffusion.losses import NoisyImages, denoising_loss
from generation.diffusion.sampler import split_variance
from generation.training.data.images import DrawnImages


def hybrid_loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
    """DiT's."""
    schedule = questions.schedule
    noisy = NoisyImages.draw(questions.clean(drawn), schedule, drawn.rng)
    out, _ = network(noisy.x, noisy.t.float(), questions.told(drawn))
    said, v = split_variance(out.float(), noisy.x.shape[1])
    return denoising_loss(said, v, noisy, "epsilon", schedule)


def velocity_loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
    """SiT's."""
    clean = questions.clean(drawn)
    time, noise = drawn.rng.uniform(), drawn.rng.normal(*clean.shape[1:])
    share = time.view(-1, 1, 1, 1)
    x = share * clean + (1 - share) * noise
    out, _ = network(x, time, questions.told(drawn))
    said, _ = split_variance(out.float(), clean.shape[1])
    return F.mse_loss(said, clean - noise)
