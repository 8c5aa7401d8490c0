"""What a BigGAN learns by (Brock et al. 2019, section 3 and appendix B): the hinge loss.

    L_D = E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z, y), y))
    L_G = -E D(G(z, y), y) + beta sum ||W W^T * (1 - I)||_F^2      (eq. 3, W of the generator)

z is normal; y are the classes of the images drawn. The discriminator takes several steps for one of
the generator. Batch norms go by the images that a process sees at once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.biggan.discriminator import Discriminator
from generation.families.biggan.network import BatchNorm, BigGAN, BigGANConfig
from generation.families.biggan.normalisation import prepared, unlike
from generation.families.biggan.recipe import BigGANRecipe
from generation.training.data.images import DrawnImages, to_signal
from generation.training.loop.objective import Modules, Update

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
EPS = 1e-4  # of batch norms, as published
WHOLE = 1.0  # truncation, which has no effect on norms that go by their batch


class BigGANObjective:
    """A generator and a discriminator, trained in turn."""

    averaged = (GENERATOR,)

    def __init__(self, recipe: BigGANRecipe, classes: int) -> None:
        config = recipe.training
        self._z, self._orthogonal = recipe.network.z_dim, config.orthogonal
        self.modules: Modules = new_networks(recipe, classes)
        steps = range(1, config.discriminator_steps + 1)
        of_each = [
            Update(_name(step), DISCRIMINATOR, self._discriminator_loss, config.discriminator_rate)
            for step in steps
        ]
        self.updates = (*of_each, Update("generator_loss", GENERATOR, self._generator_loss))

    def _made(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        made: Tensor = modules[GENERATOR](drawn.rng.normal(self._z), drawn.conditions, WHOLE)
        return made

    def _discriminator_loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        x, y = to_signal(drawn.images), drawn.conditions
        with torch.no_grad():
            made = self._made(modules, drawn)
        # both in one call: what keeps the weights the same in all processes allows no other
        both = modules[DISCRIMINATOR](torch.cat([x, made.to(x.dtype)]), torch.cat([y, y]))
        real, false = both.float().chunk(2)
        return F.relu(1 - real).mean() + F.relu(1 + false).mean()

    def _generator_loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        made = self._made(modules, drawn)
        loss: Tensor = -modules[DISCRIMINATOR](made, drawn.conditions).float().mean()
        if self._orthogonal:
            loss = loss + self._orthogonal * unlike(self.modules[GENERATOR])
        return loss


def _name(step: int) -> str:
    return "discriminator_loss" if step == 1 else f"discriminator_loss_{step}"


def config_of(recipe: BigGANRecipe, classes: int) -> BigGANConfig:
    """config.json of the generator."""
    shape = recipe.network
    return BigGANConfig(
        output_dim=recipe.stage.resolution,
        z_dim=shape.z_dim,
        channel_width=shape.channel_width,
        num_classes=classes,
        layers=shape.layers,
        attention_layer_position=shape.attention,
        eps=EPS,
        n_stats=shape.statistics,
    )


def new_networks(recipe: BigGANRecipe, classes: int) -> dict[str, nn.Module]:
    """Untrained; their weights follow from torch's generator."""
    generator = BigGAN(config_of(recipe, classes))
    for part in generator.modules():
        if isinstance(part, BatchNorm):
            part.of_batch = True
    discriminator = Discriminator(recipe.network, classes)
    return {GENERATOR: prepared(generator), DISCRIMINATOR: prepared(discriminator)}
