"""What the autoencoder learns by (Rombach et al. 2022, section 3.1, after Esser et al. 2021).

With z the encoder's latents, e the nearest codes, sg no gradient, beta the commitment:

    L_rec = |x - dec(e)|, or its square        (mean over pixels)
    L_vq  = ||sg(z) - e||^2 + beta ||z - sg(e)||^2
    L     = L_rec + w L_vq - a lambda D(dec(e))
    lambda = ||grad L_rec|| / (||grad D|| + 1e-4), of the decoder's last layer, at most 1e4

The decoder's gradient reaches z as it reached e (straight-through). The discriminator has the hinge
loss, half of it:

    L_D = (max(0, 1 - D(x)) + max(0, 1 + D(dec(e)))) / 2

The paper's L_rec also has a perceptual distance, by LPIPS; that one is not here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.vq_autoencoder.network import PatchDiscriminator, new_autoencoder
from generation.families.vq_autoencoder.recipe import AutoencoderRecipe
from generation.training.data.images import DrawnImages, to_signal
from generation.training.loop.objective import Modules, Update

AUTOENCODER, DISCRIMINATOR = "autoencoder", "discriminator"
MOST = 1e4  # of lambda
SMALL = 1e-4


class AutoencoderObjective:
    """An autoencoder and, where the recipe weighs it, its discriminator, which are trained in turn.

    network: the autoencoder of `recipe`, new or gone on with.
    """

    averaged = (AUTOENCODER,)

    def __init__(self, network: Any, recipe: AutoencoderRecipe) -> None:
        self._config = config = recipe.training
        self._last = network.decoder.conv_out.weight
        self.modules: dict[str, nn.Module] = {AUTOENCODER: network.requires_grad_(True)}
        self.updates: Sequence[Update[DrawnImages]] = (Update("loss", AUTOENCODER, self._loss),)
        if config.adversarial:
            self.modules[DISCRIMINATOR] = PatchDiscriminator(
                network.config.in_channels,
                config.discriminator_channels,
                config.discriminator_layers,
            )
            told_apart = Update("discriminator_loss", DISCRIMINATOR, self._discriminator_loss)
            self.updates = (*self.updates, told_apart)

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        config, x = self._config, to_signal(drawn.images)
        made, vq = modules[AUTOENCODER](x, return_dict=False)
        difference = made.float() - x
        loss = (difference.abs() if config.reconstruction == "l1" else difference.square()).mean()
        total: Tensor = loss + config.codebook * vq.float()
        if not config.adversarial:
            return total
        fooled = -modules[DISCRIMINATOR](made).float().mean()
        weight = config.adversarial * self._begun(drawn) * self._balance(loss, fooled)
        loss_and_more: Tensor = total + weight * fooled
        return loss_and_more

    def _balance(self, loss: Tensor, fooled: Tensor) -> Tensor:
        """lambda, without gradient."""
        of_loss, of_fooled = (
            torch.autograd.grad(term, self._last, retain_graph=True)[0].norm()
            for term in (loss, fooled)
        )
        balance: Tensor = (of_loss / (of_fooled + SMALL)).clamp(0, MOST).detach()
        return balance

    def _discriminator_loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        x = to_signal(drawn.images)
        with torch.no_grad():
            made, _ = modules[AUTOENCODER](x, return_dict=False)
        # both in one call: what keeps the weights the same in all processes allows no other
        real, false = modules[DISCRIMINATOR](torch.cat([x, made.to(x.dtype)])).float().chunk(2)
        hinge: Tensor = F.relu(1 - real).mean() + F.relu(1 + false).mean()
        return hinge * self._begun(drawn) / 2

    def _begun(self, drawn: DrawnImages) -> Tensor:
        """1 from the step on at which the discriminator begins, before it 0."""
        return (drawn.rng.step >= self._config.adversarial_start).float()


def new_objective(recipe: AutoencoderRecipe, channels: int) -> AutoencoderObjective:
    """Of an untrained autoencoder, whose weights follow from the recipe's seed."""
    torch.manual_seed(recipe.training.seed)
    return AutoencoderObjective(new_autoencoder(recipe, channels), recipe)
