"""What a classifier of noisy images learns by (Dhariwal & Nichol 2021, section 4).

L = E -log p(y | x_t),   x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps,   t even on the steps
"""

from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Questions
from generation.training.data.images import DrawnImages


def class_loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
    """Mean cross-entropy, in nats."""
    question = questions.draw(drawn)
    logits, _ = question.put_to(network)
    return F.cross_entropy(logits, drawn.conditions)
