"""What a training step of a classifier recipe keeps for its backward pass, counted without a GPU.

The activations that autograd saves, in the recipe's precision, by tensors that have a size and no
content; weights, their gradients and the optimizer's state come on top. The last line is one JSON
object: for each recipe MiB an image and GiB of what a device takes at once.

    python benchmarks/speed/classifier_memory.py imagenet-resnet50 imagenet-deit-b
"""

import argparse
import json

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from classifiers.recipes.recipe import ClassifierRecipe, load_recipe, recipe_names
from classifiers.training.objective import autocast
from generation.networks.timm_classifier import build_model

FEW, MORE = 4, 8  # images; the difference leaves out what does not grow with them
CLASSES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="*", help="by default all that are built in")
    names = parser.parse_args().recipe or recipe_names()
    found = {}
    for name in names:
        recipe = load_recipe(name)
        image = (saved_bytes(recipe, MORE) - saved_bytes(recipe, FEW)) / (MORE - FEW)
        at_once = recipe.micro_batch or recipe.batch
        found[name] = {
            "mib_an_image": round(image / 2**20, 1),
            "images": at_once,
            "gib": round(image * at_once / 2**30, 1),
        }
        print(name, found[name], flush=True)
    print(json.dumps(found))


def saved_bytes(recipe: ClassifierRecipe, images: int) -> int:
    """Of a forward pass, each storage once, the model's weights left out."""
    model = build_model(recipe, CLASSES).train()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = torch.zeros(images, recipe.channels, recipe.resolution, recipe.resolution)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            autocast(recipe, torch.device("cpu")),
        ):
            model(batch)
    return sum(s.nbytes() for key, s in saved.items() if key not in weights)


if __name__ == "__main__":
    main()
