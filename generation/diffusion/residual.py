"""What a super-resolution stage diffuses: an image, or its difference from the enlarged parent."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Residual:
    """z = (image - centre) / deviation, which is diffused, and back; by default the image itself.

    image and centre are float[N,C,H,W] in [-1, 1]. deviation: the standard deviation of image -
    centre over the training images, so that z has unit variance, as the schedules expect.
    """

    centre: Tensor | float = 0.0
    deviation: float = 1.0

    def of(self, image: Tensor) -> Tensor:
        """z of `image`."""
        return (image - self.centre) / self.deviation

    def image(self, z: Tensor) -> Tensor:
        """The image of `z`."""
        return self.centre + z * self.deviation


WHOLE_IMAGE = Residual()


def residual_of(parent: Tensor | None, side: int, deviation: float | None) -> Residual:
    """Of images of `side` px to their parent, float[N,C,h,w]; without a deviation WHOLE_IMAGE.

    Residual prediction: Li et al. 2022 (SRDiff), section 3.3. The centre repeats each pixel of the
    parent. Where parents are means of blocks of pixels, a black pixel of one says that its block is
    black: the residual of a black background is exactly zero.
    """
    if parent is None or deviation is None:
        return WHOLE_IMAGE
    return Residual(F.interpolate(parent, size=(side, side), mode="nearest"), deviation)
