"""Dropout by the image: what of an image is dropped follows from its own random numbers.

So it is the same on any number of processes, and the same again where a forward pass is repeated
for the backward pass (gradient checkpointing).
"""

from typing import ClassVar

from torch import Tensor, nn

from generation.diffusion.random_numbers import ImageRandom


class ImageDropout(nn.Dropout):
    """nn.Dropout of the images that `rng` is of.

    rng: of the images in the network now, set before each forward pass; None leaves it to torch's
    own generator. layer: the number of the layer, so that no two drop alike. x: its first dimension
    is the images, or several rows an image, one image's after the other's.
    """

    rng: ClassVar[ImageRandom | None] = None

    def __init__(self, p: float, layer: int) -> None:
        super().__init__(p)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """x float[rows,…], in training with a share `p` of it zero and the rest larger for that."""
        rng = ImageDropout.rng
        if rng is None or not self.training or self.p == 0:
            return super().forward(x)
        each = len(x) // len(rng)
        kept = rng.kept(self.p, self.layer, each, *x.shape[1:]).reshape(x.shape)
        return x * kept / (1 - self.p)


def with_image_dropout(module: nn.Module) -> None:
    """Replace each nn.Dropout within, in place; its weights and their names stay as they are."""
    layers = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout
    ]
    for number, (parent, name, child) in enumerate(layers):
        setattr(parent, name, ImageDropout(child.p, number).train(child.training))
