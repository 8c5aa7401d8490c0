"""Processes that share a batch frame its images as one process does."""

import pytest
import torch

from classifiers.data.batches import Part, _framing
from classifiers.recipes.recipe import load_recipe


@pytest.mark.parametrize("processes", [2, 4])
def test_crops_and_mirrors_do_not_depend_on_the_number_of_processes(processes: int) -> None:
    recipe = load_recipe("fashion-mnist-vit")
    assert recipe.augmentation.shift > 0
    alone = _framing(recipe, 8, 3, 5, Part())
    for index in range(processes):
        own = _framing(recipe, 8 // processes, 3, 5, Part(index, processes))
        assert torch.equal(own.corners, alone.corners[:, index::processes])
        assert torch.equal(own.mirrored, alone.mirrored[index::processes])
