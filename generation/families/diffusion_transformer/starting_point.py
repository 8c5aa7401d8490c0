"""What a training of DiT or SiT starts from: a checkpoint of ours, or its authors' file."""

from dataclasses import fields

import torch

from generation.denoisers.checkpoint import load_checkpoint
from generation.denoisers.checkpoint_files import resolve
from generation.denoisers.family import Family
from generation.families.diffusion_transformer.converter import convert
from generation.families.diffusion_transformer.files import is_file
from generation.families.diffusion_transformer.network import TransformerDenoiser
from generation.families.diffusion_transformer.recipe import TransformerRecipe
from generation.families.diffusion_transformer.sampling import published_tensors
from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.source_files import locate_file
from release.errors import UserError

CLASSES = "classes.weight"
NEW = 'set classes_embedding = "new" in its [training] to learn an embedding of them from nothing'


def start_body(family: Family, start: str, published: str) -> Transformer:
    """The transformer of the start; UserError if there is none. published: where files are offered,
    in words."""
    if is_file(start):
        file = locate_file(start, published)
        return convert(published_tensors(file), str(file))
    network = load_checkpoint(family, resolve(family, start))
    assert isinstance(network, TransformerDenoiser)
    return network.body


def require_fitting(recipe: TransformerRecipe, plan: TransformerPlan, body: Transformer) -> None:
    """UserError if the start, `body`, is of another shape than the recipe's network, or of other
    classes where its embedding is to be gone on with."""
    found = body.plan
    for field in fields(TransformerPlan):
        was, now = getattr(found, field.name), getattr(plan, field.name)
        if field.name != "classes" and was != now:
            raise UserError(
                f"the start of training recipe {recipe.name} has {field.name} {was}, its network "
                f"{now}: make them the same, or start from nothing"
            )
    if recipe.training.classes_embedding == "start" and found.classes != plan.classes:
        raise UserError(
            f"the start of training recipe {recipe.name} knows {found.classes - 1} classes, "
            f"{recipe.classes} has {plan.classes - 1}: {NEW}"
        )


def started(network: TransformerDenoiser, body: Transformer, recipe: TransformerRecipe) -> None:
    """Give the new `network` the weights of its start, of which it fits all but the classes."""
    require_fitting(recipe, network.body.plan, body)
    state = body.state_dict()
    if recipe.training.classes_embedding == "new":
        state[CLASSES] = network.body.state_dict()[CLASSES]
    with torch.no_grad():
        network.body.load_state_dict(state)
