"""Shapes of which no network can be made, of families that train two: they are one line."""

import pytest

from generation.families import load_training_recipe, trainable
from release.errors import UserError
from tests.models.codes import tiny_vq


def test_a_discriminator_without_room_is_one_line() -> None:
    network = {"multipliers": [1, 1, 2]}
    stage, training = {"resolution": 8}, {"discriminator_layers": 3}
    recipe = tiny_vq.tiny_recipe(stage=stage, network=network, training=training)
    with pytest.raises(UserError, match=r"training recipe tiny, \[network\]: ") as told:
        trainable("vq-autoencoder").memory(recipe, 1)
    assert "\n" not in str(told.value)


def test_an_attention_of_one_pixel_is_one_line() -> None:
    recipe = load_training_recipe("fashion-mnist-biggan")
    shape = recipe.network.model_copy(update={"discriminator": recipe.network.discriminator * 3})
    with pytest.raises(UserError, match=r"training recipe fashion-mnist-biggan, \[network\]: "):
        trainable("biggan").memory(recipe.model_copy(update={"network": shape}), 1)
