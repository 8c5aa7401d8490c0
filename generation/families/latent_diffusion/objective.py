"""What latent diffusion learns by (Rombach et al. 2022, eq. 3): the noise in a latent.

z_t = sqrt(abar) z + sqrt(1 - abar) eps,   t even on the steps
L = E ||eps - eps_theta(z_t, t, y)||^2
"""

from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Questions
from generation.training.data.images import DrawnImages


def noise_loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
    """Mean squared error of epsilon."""
    question = questions.draw(drawn)
    said, _ = question.put_to(network)
    return F.mse_loss(said, question.target)
