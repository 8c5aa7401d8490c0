"""What networks that denoise learn by: to say how an image became noise, told what it shows."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from generation.diffusion.augmentation import augment
from generation.diffusion.losses import NoisyImages, denoising_loss
from generation.diffusion.residual import residual_of
from generation.diffusion.sampler import split_variance
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule
from generation.training.data.images import DrawnImages, to_signal


@dataclass(frozen=True)
class NoisyTraining:
    """How images are made noisy for a network of any family, and its loss.

    The network is called with x float[N,C,H,W], t int64[N] and the condition int64[N]; a
    super-resolution network also with the augmented parent float[N,C,h,w] and the table index of
    its augmentation level, float[N]. null_condition: what a share `condition_dropout` of the
    conditions becomes. max_augmentation: the level is uniform up to this. residual: deviation of
    the images from their enlarged parents where that difference is what is diffused
    (generation/diffusion/residual.py), else None. All is drawn on the images' device, which is the
    network's.
    """

    prediction: Prediction
    schedule: NoiseSchedule
    null_condition: int
    condition_dropout: float
    max_augmentation: float
    residual: float | None = None

    def loss(self, network: Callable[..., Tensor], drawn: DrawnImages) -> Tensor:
        """Mean squared error, and the hybrid term where the network gives its variance."""
        x0 = self._diffused(drawn) * self.schedule.input_scale
        noisy = NoisyImages.draw(x0, self.schedule, drawn.rng)
        inputs = [noisy.x, noisy.t, self._conditions(drawn), *self._parents(drawn)]
        out = network(*inputs).float()
        said, v = split_variance(out, x0.shape[1])
        return denoising_loss(said, v, noisy, self.prediction, self.schedule)

    def _diffused(self, drawn: DrawnImages) -> Tensor:
        images = to_signal(drawn.images)
        parents = None if drawn.parents is None else to_signal(drawn.parents)
        return residual_of(parents, images.shape[-1], self.residual).of(images)

    def _conditions(self, drawn: DrawnImages) -> Tensor:
        """int64[N]: a share is dropped, for classifier-free guidance."""
        dropped = drawn.rng.uniform() < self.condition_dropout
        return drawn.conditions.masked_fill(dropped, self.null_condition)

    def _parents(self, drawn: DrawnImages) -> list[Tensor]:
        """Parents with noise of a random level in them, and that level as the network is told it;
        nothing for a base stage."""
        if drawn.parents is None:
            return []
        parent = to_signal(drawn.parents)
        level = drawn.rng.uniform() * self.max_augmentation
        noise = drawn.rng.normal(*parent.shape[1:])
        return [augment(parent, noise, level), level * self.schedule.num_steps]
