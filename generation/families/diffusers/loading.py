"""A text-to-image pipeline of diffusers from its folder, whole or in part."""

import inspect
from pathlib import Path
from typing import Any

import torch

from generation.pretrained.diffusers_folder import index_components, pipeline_class, weights
from release.errors import UserError


def text_to_image(folder: Path) -> Any:
    """Its class; UserError for what is no text-to-image pipeline of this diffusers."""
    import diffusers

    name = pipeline_class(folder)
    found: Any = getattr(diffusers, name, None)
    if found is None or "prompt" not in inspect.signature(found.__call__).parameters:
        raise UserError(f"{folder} is a {name}, no text-to-image pipeline of this diffusers")
    return found


def load_parts(folder: Path, dtype: torch.dtype, given: dict[str, Any]) -> Any:
    """The pipeline without what would screen or mark its images.

    given: what stands in a component's place, by its name; None leaves it out.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    logging.disable_progress_bar()  # a worker's bars run into the build's own
    diffusers_logging.disable_progress_bar()
    components = index_components(folder)
    networks = [c for c in components if (folder / c / "config.json").is_file()]
    half = any((found := weights(folder / c)) and found[0] for c in networks)
    kind = text_to_image(folder)
    accepted = inspect.signature(kind.__init__).parameters
    none = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    settings = {"requires_safety_checker": False, "add_watermarker": False}
    pipeline = kind.from_pretrained(
        folder,
        dtype=dtype,
        variant="fp16" if half else None,
        **{k: v for k, v in (none | settings).items() if k in accepted},
        **given,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
