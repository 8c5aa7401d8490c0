"""Group norms of networks that are trained here: as many groups as a recipe says."""

import pytest
import torch
from torch import nn

from generation.denoisers.recipe import config_of
from generation.families import load_training_recipe, trainable
from generation.families.vq_autoencoder.network import new_autoencoder
from tests.models.codes import tiny_vq
from tests.models.tiny_denoisers import PROMPTS, tiny_denoiser
from tests.models.tiny_noisy_classifier import tiny_classifier

OF_FAMILIES = ("unet", "uvit", "sr3", "sr3-base", "ldm", "adm", "cdm")
SMALL = (
    *("iddpm", "adm", "adm-16", "adm-upsampler", "cdm-16", "cdm-32", "sr3-base", "sr3"),
    *("simple-diffusion-unet", "simple-diffusion-uvit"),
)


def groups(network: nn.Module) -> set[int]:
    """Of its norms."""
    return {norm.num_groups for norm in network.modules() if isinstance(norm, nn.GroupNorm)}


@pytest.mark.parametrize("kind", OF_FAMILIES)
def test_norms_have_the_groups_of_the_recipe(kind: str) -> None:
    narrowest = 32 if kind in ("ldm", "adm", "cdm") else 8
    assert max(groups(tiny_denoiser(kind))) <= 32
    assert groups(tiny_denoiser(kind, network={"groups": 4})) == {4}
    assert min(groups(tiny_denoiser(kind))) == narrowest


def test_so_do_those_of_a_noisy_classifier_and_of_an_autoencoder() -> None:
    assert groups(tiny_classifier(network={"groups": 2})) == {2}
    recipe = tiny_vq.tiny_recipe(network={"groups": 4})
    assert groups(new_autoencoder(recipe, 3)) == {4}


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_have_four_channels_in_a_group(name: str) -> None:
    """With one channel in each, images came out too bright or too dark as a whole; on the bands of
    wavelets, whose means are a pattern of 2 px, with that of their noise."""
    recipe = load_training_recipe(f"fashion-mnist-{name}")
    with torch.device("meta"):
        network = trainable(recipe.generator).family.network(config_of(recipe, PROMPTS, 1))
    norms = [norm for norm in network.modules() if isinstance(norm, nn.GroupNorm)]
    assert norms
    assert all(norm.num_channels >= 4 * norm.num_groups for norm in norms)
