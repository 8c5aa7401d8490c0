"""Sampling a diffusers text-to-image pipeline with a generator for each image."""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch, Screened, as_levels
from generation.networks.placement import Placement
from generation.pretrained.components import free_memory
from generation.pretrained.diffusers_folder import (
    index_components,
    model_sha256,
    pipeline_class,
    weights,
)
from generation.prompts.prompt_cache import Encoder, PromptCache
from release.errors import UserError

TEXT = ("text_encoder", "tokenizer")
NULL_PROMPT = ""
INSTRUCTION = "complex_human_instruction"  # Sana's: put before a prompt, not the null prompt
MASKED = ("prompt_embeds", "prompt_attention_mask")
POOLED = ("prompt_embeds", None, "pooled_prompt_embeds")
# What a pipeline's encode_prompt returns of the prompts, by the argument that takes it; None is
# passed over. Other pipelines encode their prompts in every batch, text encoder in memory.
ENCODED: dict[str, tuple[str | None, ...]] = {
    "Flux2KleinPipeline": ("prompt_embeds",),
    "PixArtAlphaPipeline": MASKED,
    "PixArtSigmaPipeline": MASKED,
    "SanaPipeline": MASKED,
    "StableDiffusion3Pipeline": POOLED,
    "StableDiffusionPipeline": ("prompt_embeds",),
    "StableDiffusionXLPipeline": POOLED,
}


class PipelineGenerator:
    """One pipeline. Where prompts can be cached, text encoder and networks take turns in memory."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        import diffusers

        self._folder = folder
        self._placement = placement
        name = pipeline_class(folder)
        self._class: Any = getattr(diffusers, name, None)
        if (
            self._class is None
            or "prompt" not in inspect.signature(self._class.__call__).parameters
        ):
            raise UserError(f"{folder} is a {name}, no text-to-image pipeline of this diffusers")
        self._components = index_components(folder)
        self._encoded = ENCODED.get(name)
        self._pipeline: Any = None
        text = [c for c in self._components if c.startswith(TEXT)]
        encoder = f"{name} {model_sha256(folder, text)} {placement.device} {placement.dtype}"
        self._instruction = self._published_instruction()
        if self._instruction:
            encoder += f" {self._instruction}"
        self._prompts = PromptCache(hashlib.sha256(encoder.encode()).hexdigest())

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3]; UserError for parents or settings that do not fit."""
        if batch.parents is not None:
            raise UserError(f"{self._folder} makes images from text: it must be a first stage")
        if settings.method != "native":
            raise UserError(
                f"{self._folder} brings its own sampler: the recipe's needs "
                'method = "native", steps and guidance'
            )
        with torch.inference_mode():
            text = self._text(batch, settings)
            if self._pipeline is None:
                self._pipeline = self._load()
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

    def _text(self, batch: ImageBatch, settings: SamplerConfig) -> dict[str, Any]:
        """The arguments that carry the prompts, and with guidance the null prompt."""
        prompts = list(batch.prompts)
        if self._encoded is None:
            return {"prompt": prompts}
        guided = settings.guidance > 1
        missing = self._prompts.missing([*prompts, NULL_PROMPT] if guided else prompts)
        if missing:
            self._pipeline = None
            free_memory()
            self._prompts.fill(missing, self._text_encoder())
            free_memory()
        text: dict[str, Any] = {**self._on_device(prompts)}
        if guided:
            null = self._on_device([NULL_PROMPT] * len(prompts))
            text |= {f"negative_{name}": tensor for name, tensor in null.items()}
            if "negative_prompt" in inspect.signature(self._class.__call__).parameters:
                text["negative_prompt"] = None  # some default to the empty text, and take one only
        return text

    def _on_device(self, prompts: list[str]) -> dict[str, Tensor]:
        loaded = self._prompts.load(prompts)
        return {name: tensor.to(self._placement.device) for name, tensor in loaded.items()}

    def _text_encoder(self) -> Encoder:
        """The pipeline's text parts alone; SDXL's null prompt is zeros where its index says so."""
        others = [c for c in self._components if not c.startswith((*TEXT, "scheduler"))]
        pipeline = self._load_pipeline(others).to(self._placement.device)
        arguments = inspect.signature(pipeline.encode_prompt).parameters
        fixed = {"device": self._placement.device, "num_images_per_prompt": 1}
        fixed["do_classifier_free_guidance"] = False
        fixed = {name: value for name, value in fixed.items() if name in arguments}
        zeros = bool(pipeline.config.get("force_zeros_for_empty_prompt", False))
        names = self._encoded or ()

        def encoded(texts: list[str], extra: dict[str, Any]) -> dict[str, Tensor]:
            returned = pipeline.encode_prompt(texts, **fixed, **extra)
            return {n: t for n, t in zip(names, returned, strict=False) if n is not None}

        @torch.inference_mode()
        def encode(texts: list[str]) -> dict[str, Tensor]:
            found = encoded(texts, self._instruction)
            empty = [row for row, text in enumerate(texts) if text == NULL_PROMPT]
            if empty and (zeros or self._instruction):
                plain = {} if zeros else encoded(texts, {})
                for name, tensor in found.items():
                    tensor[empty] = 0 if zeros else plain[name][empty]
            return found

        return encode

    def _published_instruction(self) -> dict[str, Any]:
        """What the pipeline by itself puts before prompts, as encode_prompt takes it."""
        known = inspect.signature(self._class.__call__).parameters
        return {INSTRUCTION: known[INSTRUCTION].default} if INSTRUCTION in known else {}

    def _load(self) -> Any:
        """The pipeline on its device, without text parts where prompts are cached."""
        text = [c for c in self._components if c.startswith(TEXT)]
        pipeline = self._load_pipeline(text if self._encoded else [])
        pipeline.to(self._placement.device)
        for name in ("transformer", "unet"):
            if getattr(pipeline, name, None) is not None:
                self._placement.arrange(getattr(pipeline, name))
        if hasattr(pipeline.vae, "enable_slicing"):
            pipeline.vae.enable_slicing()  # decodes one image at a time: at 1024 px memory counts
        return pipeline

    def _load_pipeline(self, left_out: list[str]) -> Any:
        """With the components named left out, and what would screen or mark the images."""
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging

        logging.disable_progress_bar()  # a worker's bars run into the build's own
        diffusers_logging.disable_progress_bar()
        networks = [c for c in self._components if (self._folder / c / "config.json").is_file()]
        half = any((found := weights(self._folder / c)) and found[0] for c in networks)
        accepted = inspect.signature(self._class.__init__).parameters
        none = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
        settings = {"requires_safety_checker": False, "add_watermarker": False}
        given = {k: v for k, v in (none | settings).items() if k in accepted}
        pipeline = self._class.from_pretrained(
            self._folder,
            dtype=self._placement.dtype,
            variant="fp16" if half else None,
            **given,
            **dict.fromkeys(left_out),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _accepted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        known = inspect.signature(self._class.__call__).parameters
        return {k: v for k, v in arguments.items() if k in known and v is not None}
