"""Spectral norm, orthogonal start, standing statistics: what a BigGAN's training needs."""

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from generation.families.biggan.network import BatchNorm, BigGAN, truncated_noise

CLASSES = "embeddings"  # of the generator
LAYERS = (nn.Conv2d, nn.Linear, nn.Embedding)
ITERATIONS = 30  # of the power method, where a weight has changed other than by training
EPS = 1e-6


def prepared(network: nn.Module) -> nn.Module:
    """With orthogonal weights (Saxe et al. 2014), each divided by its greatest singular value
    (Miyato et al. 2018), in place; the generator's classes are not divided."""
    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, LAYERS)]
    for name, layer in layers:
        nn.init.orthogonal_(layer.weight)
        if not isinstance(layer, nn.Embedding) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if name != CLASSES:
            parametrizations.spectral_norm(layer, eps=EPS)
    return network


def unlike(network: nn.Module) -> Tensor:
    """Orthogonal regularisation (eq. 3), without its weight: sum ||W W^T * (1 - I)||_F^2, of all
    convolutions and linear layers but the classes'."""
    total = torch.zeros((), device=next(network.parameters()).device)
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and not name.startswith(f"{CLASSES}."):
            rows = weight.flatten(1)
            products = rows @ rows.T
            total = total + (products - products.diag().diag()).square().sum()
    return total


def whole(network: BigGAN, batches: int, batch: int, truncations: int | None = None) -> BigGAN:
    """A copy that needs no training's state: plain weights, standing statistics, evaluation mode.

    Statistics are means over `batches` of `batch` latents each, all classes in turn, at each
    truncation from 0 to 1; truncations = 1: at 1 alone, for all rows.
    """
    done = BigGAN(network.config).to(next(network.parameters()).device)
    done.load_state_dict(_plain_state(network))
    done.eval().requires_grad_(False)
    _stand(done, batches, batch, truncations or done.config.n_stats)
    return done


@torch.no_grad()
def _plain_state(network: BigGAN) -> dict[str, Tensor]:
    """With each weight as it is used. A copy's parametrisations cannot be removed: they are
    properties of a class that copies share."""
    copy = deepcopy(network).train()
    layers = {
        name: layer
        for name, layer in copy.named_modules()
        if parametrize.is_parametrized(layer, "weight")
    }
    for _ in range(ITERATIONS):  # an averaged weight has other singular values than those noted
        for layer in layers.values():
            _ = layer.weight
    copy.eval()
    state = {k: v for k, v in copy.state_dict().items() if ".parametrizations." not in k}
    return state | {f"{name}.weight": layer.weight for name, layer in layers.items()}


@torch.no_grad()
def _stand(network: BigGAN, batches: int, batch: int, truncations: int) -> None:
    """Note the statistics of batches in `network`, which goes by them from now on."""
    norms = [part for part in network.modules() if isinstance(part, BatchNorm)]
    for norm in norms:
        norm.of_batch = True
    rows = network.config.n_stats
    levels = np.linspace(0, 1, rows) if truncations == rows else np.ones(1)
    for number, truncation in enumerate(levels):
        totals = _means(network, norms, batches, batch, float(truncation))
        for norm, (mean, variance) in zip(norms, totals, strict=True):
            place = slice(None) if len(levels) == 1 else number
            norm.running_means[place], norm.running_vars[place] = mean, variance
    for norm in norms:
        norm.of_batch, norm.seen = False, None


def _means(
    network: BigGAN, norms: list[BatchNorm], batches: int, batch: int, truncation: float
) -> list[tuple[Tensor, Tensor]]:
    """Of each norm: the means of what it saw of `batches`."""
    device = next(network.parameters()).device
    found: list[list[tuple[Tensor, Tensor]]] = []
    for number in range(batches):
        seeds = range(number * batch, (number + 1) * batch)
        z = truncated_noise(seeds, network.config.z_dim, truncation)
        labels = torch.tensor(seeds, device=device) % network.config.num_classes
        network(torch.from_numpy(z).to(device), labels, truncation)
        found.append([norm.seen for norm in norms if norm.seen is not None])
    return [
        (torch.stack([mean for mean, _ in of]).mean(0), torch.stack([v for _, v in of]).mean(0))
        for of in zip(*found, strict=True)
    ]
