"""A classifier of images: a timm model, how it sees pixels, and reading one from disk."""

import difflib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from release.errors import UserError, unknown_name
from release.files.checked_files import read_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)  # ITU-R 601 times 2^16, Pillow's mode L
Positive = Annotated[int, Field(gt=0)]
ModelArgument = bool | int | float | str | tuple[int, ...]
# What timm's models raise for arguments and images that do not fit them.
MODEL_ERRORS = (
    *(TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError),
    *(LookupError, AttributeError, OSError),
)


class ClassifierModel(BaseModel):
    """What a classifier is and how it sees images.

    model, model_args: timm's name and the arguments it takes. stem_stride, stem_pool: stride of
    the first convolution and whether its max-pooling stays, for small images; by default as timm
    has them. channels: 1 turns the images grey. mean, std: of pixels in [0, 1], one a channel.
    position: a transformer's position embedding; "sincos" is the fixed one of Beyer et al. 2022.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    model: str
    model_args: dict[str, ModelArgument] = {}
    stem_stride: Positive | None = None
    stem_pool: bool = True
    resolution: Positive
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    position: Literal["learned", "sincos"] = "learned"

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> "ClassifierModel":
        if {len(self.mean), len(self.std)} != {self.channels}:
            raise ValueError(f"mean and std need {self.channels} values each, one a channel")
        return self


def read_header(path: Path) -> dict[str, str]:
    """What `train-classifier --save` wrote beside the weights: recipe and class_ids, as JSON.

    Raises UserError if `path` is no such file. Imports no torch.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _not_saved(path, error) from None
    missing = {"recipe", "class_ids"} - header.keys()
    if missing:
        raise _not_saved(path, f"no {min(missing)} in its header")
    return header


def read_classifier(path: Path) -> tuple[ClassifierModel, tuple[str, ...]]:
    """What the classifier in `path` is, and the class ids of its outputs in order."""
    header = read_header(path)
    try:
        recipe = json.loads(header["recipe"])
        fields = {name: recipe[name] for name in ClassifierModel.model_fields if name in recipe}
        return ClassifierModel.model_validate(fields), tuple(json.loads(header["class_ids"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _not_saved(path, error) from None


def load_network(path: Path) -> "nn.Module":
    """The network of a saved classifier, on the CPU, in evaluation mode; UserError if damaged."""
    about, class_ids = read_classifier(path)
    model = build_model(about, len(class_ids))
    try:
        model.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise _not_saved(path, error) from None
    return model.eval()


def _not_saved(path: Path, reason: object) -> UserError:
    first = str(reason).splitlines()[0]
    return UserError(f"{path} is not a classifier that this project saved: {first}")


def build_model(about: ClassifierModel, classes: int) -> "nn.Module":
    """Untrained, float32[N,channels,H,W] => logits float32[N,classes].

    Raises UserError for a model timm does not have, arguments or a stem the model does not have.
    """
    import timm

    if not timm.is_model(about.model):
        close = difflib.get_close_matches(about.model, timm.list_models(), n=8, cutoff=0.3)
        raise unknown_name("timm model", about.model, close)
    try:
        arguments: dict[str, Any] = {
            "num_classes": classes,
            "in_chans": about.channels,
            **_image_size(about),
            **about.model_args,
        }
        model: nn.Module = timm.create_model(about.model, **arguments)
    except MODEL_ERRORS as error:
        raise UserError(
            f"classifier recipe {about.name}: model_args: {_first_line(error)}"
        ) from None
    if about.stem_stride is not None:
        _set_stem_stride(model, about, about.stem_stride)
    if not about.stem_pool:
        _remove_stem_pool(model, about)
    if about.position == "sincos":
        _fix_positions(model, about)
    return model


def require_fitting(about: ClassifierModel, classes: int) -> None:
    """UserError unless the model gives `classes` numbers of an image of its size.

    Computes nothing: its tensors have a shape and no content.
    """
    import torch

    with torch.device("meta"):
        model = build_model(about, classes).eval()
        image = torch.zeros(1, about.channels, about.resolution, about.resolution)
    try:
        found = model(image)
    except MODEL_ERRORS as error:
        raise UserError(
            f"classifier recipe {about.name}: {about.model} takes no images of "
            f"{about.resolution} px ({_first_line(error)}); change resolution or model_args"
        ) from None
    if tuple(getattr(found, "shape", ())) != (1, classes):
        raise UserError(
            f"classifier recipe {about.name}: model_args make {about.model} something else than a "
            f"classifier of {classes} classes"
        )


def _image_size(about: ClassifierModel) -> dict[str, int]:
    """The argument of models that are built for one size, where the recipe's is another."""
    import timm

    known = timm.get_pretrained_cfg(about.model)
    if known is None or not known.fixed_input_size or known.input_size[-1] == about.resolution:
        return {}
    return {"img_size": about.resolution}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8[N,H,W,3] => uint8[N,channels,H,W]; with 1 channel as Pillow makes grey."""
    if channels == 1:
        # In blocks: a set of 60,000 images would otherwise pass through a copy of 32-bit integers.
        blocks = np.array_split(images, max(1, len(images) // 4096))
        grey = [(block @ LUMA + 0x8000 >> 16).astype(np.uint8) for block in blocks]
        return np.concatenate(grey)[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def normalise(images: "Tensor", about: ClassifierModel) -> "Tensor":
    """uint8 [0, 255] => float32 of about mean 0 and variance 1, by the model's mean and std."""
    mean, scale = _pixel_statistics(about.mean, about.std, images.device)
    return images.float().sub_(mean).div_(scale)


@lru_cache(maxsize=8)  # each small operation costs a training step as much as its arithmetic
def _pixel_statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: "torch.device"
) -> tuple["Tensor", "Tensor"]:
    """float32[C,1,1] twice, of pixels in [0, 255]."""
    import torch

    levels = (torch.tensor(values, device=device).view(-1, 1, 1) * 255 for values in (mean, std))
    return next(levels), next(levels)


def _set_stem_stride(model: "nn.Module", about: ClassifierModel, stride: int) -> None:
    from torch import nn

    facts: Any = model.pretrained_cfg
    name = facts["first_conv"]  # timm's own note of where the first convolution is
    convolution = model.get_submodule(name) if isinstance(name, str) else None
    if not isinstance(convolution, nn.Conv2d):
        raise UserError(
            f"classifier recipe {about.name}: {about.model} has no single first convolution, "
            "so stem_stride cannot be set; leave it out"
        )
    convolution.stride = (stride, stride)


def _remove_stem_pool(model: "nn.Module", about: ClassifierModel) -> None:
    from torch import nn

    if not isinstance(getattr(model, "maxpool", None), nn.MaxPool2d):
        raise UserError(
            f"classifier recipe {about.name}: {about.model} has no max-pooling after its stem; "
            "leave stem_pool out"
        )
    model.maxpool = nn.Identity()


def _fix_positions(model: "nn.Module", about: ClassifierModel) -> None:
    """Positions as sines and cosines of both coordinates, not trained; prefix tokens have none."""
    import torch
    from timm.layers import build_sincos2d_pos_embed  # type: ignore[attr-defined]
    from torch import nn

    positions = getattr(model, "pos_embed", None)
    if not isinstance(positions, nn.Parameter):
        raise UserError(
            f"classifier recipe {about.name}: {about.model} has no position embedding; "
            "leave position out"
        )
    patches: Any = model.patch_embed
    embedded = build_sincos2d_pos_embed(list(patches.grid_size), positions.shape[-1])
    with torch.no_grad():
        positions.zero_()
        positions[0, -len(embedded) :] = embedded
    positions.requires_grad_(False)
