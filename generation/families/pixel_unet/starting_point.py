"""What a training starts from: nothing, a checkpoint of ours, or a U-Net in diffusers' layout."""

from pathlib import Path
from typing import TYPE_CHECKING

from generation.families.pixel_unet.checkpoint_files import (
    HASHED_FILES,
    checkpoint_sha256,
    resolve_checkpoint,
)
from generation.families.pixel_unet.recipe import PixelUNetRecipe
from generation.pretrained.source_files import files_sha256
from generation.pretrained.training_data import saw_tuning
from generation.prompts.conditioning import embed_conditions
from generation.training.trainable import StartFacts
from release.classes.class_list import load_classes
from release.errors import UserError
from release.files.json_files import read_json

if TYPE_CHECKING:
    from generation.families.pixel_unet.network import PixelUNet

UNET_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def with_network_of(recipe: PixelUNetRecipe, start: str | None) -> PixelUNetRecipe:
    """The recipe with the [network] of `start` where it has none of its own.

    UserError where the recipe has another than a checkpoint of ours.
    """
    from generation.families.pixel_unet.network_shape import differences, shape_in

    if start is None:
        return recipe
    bare = _bare_unet(start)
    path = (bare or resolve_checkpoint(start)) / "config.json"
    shape = shape_in(read_json(path))
    if not recipe.network:
        return recipe.model_copy(update={"network": shape})
    if bare is None:
        found = [f"{n} {was}, not {now}" for n, was, now in differences(shape, recipe.network)]
        if found:
            raise UserError(
                f"--from {start} has another network than the recipe's [network]: "
                f"{'; '.join(found)}; leave [network] empty to train what it has"
            )
    return recipe


def starting_network(recipe: PixelUNetRecipe, start: str | None) -> "PixelUNet":
    """The network to train; from nothing (None) its weights follow from the recipe's seed.

    UserError if `start` is no checkpoint, or one of another stage or network than the recipe's, and
    for a [network] that cannot be.
    """
    recipe = with_network_of(recipe, start)
    if start is None:
        return _new_network(recipe)
    unet = _bare_unet(start)
    if unet is not None:
        return _with_weights_of(_new_network(recipe), unet, start)
    return _own_network(recipe, start)


def _own_network(recipe: PixelUNetRecipe, start: str) -> "PixelUNet":
    """A checkpoint of ours; one told texts learns of the recipe's prompts if it lacks any."""
    from generation.families.pixel_unet.checkpoint import load_checkpoint
    from generation.families.pixel_unet.network import PixelUNet

    network = load_checkpoint(resolve_checkpoint(start))
    for field in type(recipe.stage).model_fields:
        found, wanted = getattr(network.config, field), getattr(recipe.stage, field)
        if found != wanted and (field, wanted) != ("channels", None):
            raise UserError(f"--from {start} has {field} {found}, the recipe's stage {wanted}")
    texts = prompts_of(recipe)
    if recipe.stage.conditioning != "text" or set(texts) <= set(network.prompts.prompts):
        return network
    prompts, encoder = embed_conditions("text", texts)
    if encoder != network.config.text_encoder:
        raise UserError(
            f"--from {start} was told texts by {network.config.text_encoder}, which cannot encode "
            f"the prompts of {recipe.classes} here"
        )
    config = network.config.model_copy(update={"prompts": prompts.prompts})
    return PixelUNet(network.unet, config, prompts)


def prompts_of(recipe: PixelUNetRecipe) -> tuple[str, ...]:
    """Of the recipe's classes, in label order."""
    return tuple(c.prompt for c in load_classes(recipe.classes))


def start_facts(start: str | None) -> StartFacts:
    """What a record says of `start`."""
    if start is None:
        return StartFacts()
    unet = _bare_unet(start)
    if unet is not None:
        return StartFacts(files_sha256(unet, UNET_FILES))
    folder = resolve_checkpoint(start)
    return StartFacts(checkpoint_sha256(folder), saw_tuning(folder))


def _bare_unet(start: str) -> Path | None:
    """The folder of a U-Net as diffusers saves it, alone or in a pipeline; None if it is ours."""
    for folder in (Path(start), Path(start) / "unet"):
        has = {name for name in HASHED_FILES if (folder / name).is_file()}
        if has == set(UNET_FILES):
            return folder
    return None


def _new_network(recipe: PixelUNetRecipe) -> "PixelUNet":
    import torch

    from generation.families.pixel_unet.network import build_unet
    from generation.families.pixel_unet.network_shape import planned_network, stage_and_prompts

    texts = prompts_of(recipe)
    planned_network(recipe, texts)  # refuses what cannot be
    torch.manual_seed(recipe.training.seed)
    return build_unet(*stage_and_prompts(recipe.stage, texts), recipe.network)


def _with_weights_of(network: "PixelUNet", folder: Path, start: str) -> "PixelUNet":
    """`network` with the U-Net's weights from `folder`, which must fit it tensor for tensor."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from generation.networks.finite import require_finite

    try:
        weights = load_file(folder / UNET_FILES[1])
    except (SafetensorError, OSError) as error:
        raise UserError(f"--from {start}: {UNET_FILES[1]} cannot be read: {error}") from None
    require_finite(weights.items(), f"--from {start}")
    own = network.unet.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        shapes = [tuple(s[name].shape) if name in s else None for s in (weights, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"--from {start}: its tensor {name} has shape {shapes[0]}, the recipe's "
                f"{shapes[1]}: give the recipe the [network] and [stage] that the checkpoint has"
            )
    network.unet.load_state_dict(weights)
    return network
