"""Sampling a diffusers text-to-image pipeline with a generator for each image."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.diffusers.generator import LORA_FILE
from generation.families.diffusers.kinds import KINDS
from generation.families.diffusers.loading import load_parts, text_to_image
from generation.families.diffusers.text import NULL_PROMPT, PipelineText, text_components
from generation.generator import ImageBatch, Screened, as_levels
from generation.networks.placement import Placement
from generation.pretrained.components import free_memory
from release.errors import UserError


class PipelineGenerator:
    """One pipeline. Where prompts can be cached, text encoder and networks take turns in memory.

    lora: a folder with a LoRA of its network, as diffusers loads it. given: networks in the place
    of the pipeline's own, by the name of their component.
    """

    def __init__(
        self,
        folder: Path,
        placement: Placement,
        lora: Path | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder, self._lora = folder, lora
        self._placement = placement
        self._class = text_to_image(folder)
        self._given = dict(given or {})
        self._pipeline: Any = None
        self._text = PipelineText(folder, placement)

    def prepare(self) -> None:
        """Load now what the first `sample` would load.

        Loading sets torch's default dtype for the whole process: no other thread may compute then.
        """
        if self._pipeline is None:
            self._pipeline = self._load()

    def use(self, component: str, network: Any) -> None:
        """Sample with `network` in the place of the pipeline's component from now on."""
        self._given[component] = network
        if self._pipeline is not None:
            setattr(self._pipeline, component, network)

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3]; UserError for parents or settings that do not fit."""
        if batch.parents is not None:
            raise UserError(f"{self._folder} makes images from text: it must be a first stage")
        if settings.method != "native" or settings.temperature != 1:
            raise UserError(
                f"{self._folder} brings its own sampler: the recipe's needs "
                'method = "native", steps and guidance'
            )
        with torch.inference_mode():
            text = self._told(batch, settings)
            self.prepare()
            images = self._pipeline(
                **text,
                **self._accepted({"height": batch.resolution, "width": batch.resolution}),
                **self._accepted({"use_resolution_binning": False}),
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in batch.seeds],
                output_type="np",
            ).images
        return as_levels(np.asarray(images, np.float32) * 255)

    def _told(self, batch: ImageBatch, settings: SamplerConfig) -> dict[str, Any]:
        """The arguments that carry the prompts, and with guidance the null prompt."""
        prompts = list(batch.prompts)
        if not self._text.cached:
            return {"prompt": prompts}
        guided = settings.guidance > 1
        missing = self._text.missing([*prompts, NULL_PROMPT] if guided else prompts)
        if missing:
            self._pipeline = None
            free_memory()
            self._text.encode(missing)
        text: dict[str, Any] = {**self._on_device(prompts)}
        if guided:
            null = self._on_device([NULL_PROMPT] * len(prompts))
            text |= {f"negative_{name}": tensor for name, tensor in null.items()}
            if "negative_prompt" in inspect.signature(self._class.__call__).parameters:
                text["negative_prompt"] = None  # some default to the empty text, and take one only
        return text

    def _on_device(self, prompts: list[str]) -> dict[str, Tensor]:
        loaded = self._text.load(prompts)
        return {name: tensor.to(self._placement.device) for name, tensor in loaded.items()}

    def _load(self) -> Any:
        """The pipeline on its device, without text parts where prompts are cached."""
        left_out = dict.fromkeys(text_components(self._folder) if self._text.cached else [])
        pipeline = load_parts(self._folder, self._placement.dtype, left_out | self._given)
        if self._lora is not None:
            component = KINDS[type(pipeline).__name__].component
            network = getattr(pipeline, component)
            network.load_lora_adapter(self._lora, prefix=component, weight_name=LORA_FILE)
        pipeline.to(self._placement.device)
        for name in ("transformer", "unet"):
            if getattr(pipeline, name, None) is not None:
                self._placement.arrange(getattr(pipeline, name))
        if hasattr(pipeline.vae, "enable_slicing"):
            pipeline.vae.enable_slicing()  # decodes one image at a time: at 1024 px memory counts
        return pipeline

    def _accepted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        known = inspect.signature(self._class.__call__).parameters
        return {k: v for k, v in arguments.items() if k in known and v is not None}
