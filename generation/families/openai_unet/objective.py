"""What Improved DDPM and ADM learn by (Nichol & Dhariwal 2021, sections 3.1 and 3.3).

    L_hybrid = L_simple + lambda * L_vlb,   lambda = 0.001                               (eq. 16)
    L_simple = E ||eps - eps_theta(x_t, t, y)||^2;   L_vlb = T E L_t, in bits a dimension

In L_hybrid the bound teaches the variance alone: the gradient to the mean is cut. "vlb" is L_vlb,
whose gradient reaches both. A network of fixed variance learns by L_simple.
"""

import math

from torch import Tensor, nn

from generation.denoisers.learning import Loss, Question, Questions
from generation.diffusion.losses import BOUND_WEIGHT, variational_terms
from generation.diffusion.sampler import predicted_x0, split_variance
from generation.diffusion.schedule import NoiseSchedule
from generation.families.openai_unet.recipe import OpenAITraining
from generation.training.data.images import DrawnImages


def variance_loss(training: OpenAITraining) -> Loss:
    """The loss that a recipe names."""

    bound_alone = training.loss == "vlb"

    def loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
        question = questions.draw(drawn)
        said, _ = question.put_to(network)
        losses = image_losses(said, question, questions.schedule, bound_alone=bound_alone)
        return questions.mean(losses, question)

    return loss


def image_losses(
    said: Tensor, question: Question, schedule: NoiseSchedule, *, bound_alone: bool
) -> Tensor:
    """float32[N]: of each image, at its step; said float[N,C or 2C,H,W]."""
    noisy = question.noisy
    epsilon, v = split_variance(said, noisy.x0.shape[1])
    simple = (epsilon - question.target).square().flatten(1).mean(dim=1)
    if v is None:
        return simple
    x0 = predicted_x0(epsilon, "epsilon", noisy.x, noisy.signal, noisy.spread)
    estimate = x0 if bound_alone else x0.detach()
    terms = variational_terms(v, estimate, noisy.x0, noisy.t, schedule)
    bound = schedule.num_steps * terms.flatten(1).mean(dim=1) / math.log(2)
    return bound if bound_alone else simple + BOUND_WEIGHT * bound
