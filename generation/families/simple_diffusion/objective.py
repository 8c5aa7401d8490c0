"""What Simple Diffusion learns by (Hoogeboom et al. 2023, section 3.2).

The network predicts v = alpha * eps - sigma * x of z = alpha * x + sigma * eps. Since
eps^ = sigma * z + alpha * v^, the error of epsilon is eps^ - eps = alpha * (v^ - v).

    L = E ||eps^ - eps||^2                         without multiscale
    L = sum over s in {m, 2m, ..., d} of 1/s * E ||D_s[eps^] - D_s[eps]||^2

each a mean over pixels, D_s the mean of blocks that leave s by s of them: it is linear, so the
error is pooled.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Loss, Questions
from generation.families.simple_diffusion.recipe import SimpleDiffusionRecipe
from generation.training.data.images import DrawnImages


def multiscale_loss(recipe: SimpleDiffusionRecipe) -> Loss:
    """The loss of a recipe's error at its scales."""
    training, side = recipe.training, recipe.stage.resolution

    def loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
        question = questions.draw(drawn)
        said, _ = question.put_to(network)
        error = said - question.target
        if training.error == "epsilon":
            error = error * question.noisy.signal.to(error.device)
        if training.multiscale is None:
            return error.square().mean()
        return squared_at_scales(error, training.multiscale, side)

    return loss


def squared_at_scales(error: Tensor, least: int, side: int) -> Tensor:
    """sum of 1/s * mean(D_s[error]^2) over s = least, 2 * least, ..., side; one number.

    error float[N,C,side,side].
    """
    loss = error.new_zeros(())
    for s in (least << i for i in range((side // least).bit_length())):
        loss = loss + F.avg_pool2d(error, side // s).square().mean() / s
    return loss
