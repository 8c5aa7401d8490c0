"""What a training of one of OpenAI's U-Nets starts from: a checkpoint file, or one trained here."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.families.adm.generators import OpenAISource
from generation.families.adm.networks import NETWORKS
from generation.families.adm.recipe import OpenAIRecipe
from generation.families.adm.shapes import Shape
from generation.pretrained.downloads import model_cache
from generation.pretrained.finetuned import FINE_TUNED, Base, fine_tuned, lasting_name
from generation.pretrained.training_data import saw_tuning
from generation.training.trainable import StartFacts
from release.classes.class_list import load_classes
from release.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from generation.families.adm.objective import LabelledUNet

NEW = 'set classes_embedding = "new" in its [stage] to train an embedding of them from nothing'


def start_file(source: OpenAISource, start: str | None) -> Path:
    """The checkpoint; UserError if none is named, or it is not on this machine."""
    if start is None:
        raise UserError(
            f"{source.name} is fine-tuned, not trained from nothing: name a checkpoint, by `start` "
            "in the recipe or by --from; the generator adm trains such a network from nothing"
        )
    return source.locate(start)


def with_shape_of(source: OpenAISource, recipe: OpenAIRecipe, start: str | None) -> OpenAIRecipe:
    """The recipe with the shape of its start; UserError if that is of another stage or classes."""
    from generation.families.adm.converter import read_shape
    from generation.pretrained.source_files import read_tensors

    file = start_file(source, start)
    return _fitting(source, recipe, read_shape(read_tensors(file), str(file)), str(start))


def with_planned_shape(
    source: OpenAISource, recipe: OpenAIRecipe, start: str | None
) -> OpenAIRecipe:
    """The same of the start's file if it is here, else of the published network of that name."""
    if start is None or any(p.exists() for p in (Path(start), model_cache() / Path(start).name)):
        return with_shape_of(source, recipe, start)
    return _fitting(source, recipe, NETWORKS[source.name].published, start)


def _fitting(source: OpenAISource, recipe: OpenAIRecipe, shape: Shape, start: str) -> OpenAIRecipe:
    stage, enlarges = recipe.stage, NETWORKS[source.name].enlarges
    if shape.in_channels != (6 if enlarges else 3):
        raise UserError(f"{start} takes {shape.in_channels} channels: another generator's")
    if enlarges != (stage.low_resolution is not None):
        wanted = "low_resolution must be given" if enlarges else "low_resolution must be left out"
        raise UserError(f"training recipe {recipe.name}: {source.name} is trained: {wanted}")
    if shape.side != stage.resolution:
        raise UserError(
            f"{start} makes images of {shape.side} px, the recipe's stage has resolution "
            f"{stage.resolution}"
        )
    count = len(load_classes(recipe.classes))
    if stage.classes_embedding == "new":
        shape = replace(shape, classes=count)
    elif shape.classes != count:
        knows = "no classes" if shape.classes is None else f"{shape.classes} classes"
        raise UserError(
            f"{start} knows {knows}, the recipe's list {recipe.classes} has {count}: {NEW}"
        )
    return recipe.model_copy(update={"network": asdict(shape)})


def shape_in(recipe: OpenAIRecipe) -> Shape:
    """What a start filled in, maybe read back from a record."""
    named: dict[str, Any] = dict(recipe.network)
    return Shape(**{**named, "widths": tuple(named["widths"]), "attends": tuple(named["attends"])})


def start_facts(source: OpenAISource, start: str | None) -> StartFacts:
    """What a record says of the start."""
    file = start_file(source, start)
    return StartFacts(source.sha256(file), saw_tuning(file.parent))


def base_of(source: OpenAISource, start: str | None) -> Base:
    """What a checkpoint is to say it came from: of a start that was trained here, its own base."""
    file = start_file(source, start)
    told = fine_tuned(file.parent) if (file.parent / FINE_TUNED).is_file() else None
    if told is not None:
        return told.base
    return Base(checkpoint=lasting_name(str(file), file), sha256=source.sha256(file))


def starting_network(source: OpenAISource, recipe: OpenAIRecipe, file: Path) -> "LabelledUNet":
    """The U-Net in float32; a new embedding of classes follows from the recipe's seed."""
    from generation.families.adm.converter import LABELS, convert_unet
    from generation.families.adm.layers import set_dropout
    from generation.families.adm.objective import LabelledUNet
    from generation.networks.finite import require_finite
    from generation.pretrained.source_files import read_tensors

    state = read_tensors(file)
    if recipe.stage.classes_embedding == "new":
        state[LABELS] = _new_embedding(state, shape_in(recipe), recipe.training.seed)
    unet = convert_unet(state, NETWORKS[source.name].heads, str(file))
    require_finite(unet.state_dict().items(), f"start {file}")
    set_dropout(unet, recipe.training.dropout)
    return LabelledUNet(unet)


def _new_embedding(state: "dict[str, Tensor]", shape: Shape, seed: int) -> "Tensor":
    """float32[K,D] of unit variance, as torch draws a new one."""
    import torch

    assert shape.classes is not None
    width = state["time_embed.2.weight"].shape[0]
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(shape.classes, width, generator=drawn)
