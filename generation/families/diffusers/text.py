"""What a text-to-image pipeline is told of prompts: each encoded once, by its own text encoders."""

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation.families.diffusers.loading import load_parts, text_to_image
from generation.networks.placement import Placement
from generation.pretrained.components import free_memory
from generation.pretrained.diffusers_folder import index_components, model_sha256, pipeline_class
from generation.prompts.prompt_cache import Encoder, PromptCache

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


def text_components(folder: Path) -> list[str]:
    """The pipeline's text encoders and tokenizers."""
    return [c for c in index_components(folder) if c.startswith(TEXT)]


class PipelineText:
    """The prompts of one pipeline. `cached`: whether they can be; else they go to it as they are.

    Embeddings are of the kind of device and of the precision of `placement`.
    """

    def __init__(self, folder: Path, placement: Placement) -> None:
        name = pipeline_class(folder)
        self._folder, self._placement = folder, placement
        self._class = text_to_image(folder)
        self._encoded = ENCODED.get(name)
        text = text_components(folder)
        encoder = f"{name} {model_sha256(folder, text)} {placement.device} {placement.dtype}"
        self._instruction = self._published_instruction()
        if self._instruction:
            encoder += f" {self._instruction}"
        self._prompts = PromptCache(hashlib.sha256(encoder.encode()).hexdigest())

    @property
    def cached(self) -> bool:
        return self._encoded is not None

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those that are not encoded yet."""
        return self._prompts.missing(prompts)

    def encode(self, prompts: Sequence[str]) -> None:
        """Keep the embeddings of `prompts`; the text encoders are in memory meanwhile alone."""
        self._prompts.fill(prompts, self._encoder())
        free_memory()

    def load(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """By the pipeline's argument that takes it, [N,…] on the CPU."""
        return self._prompts.load(prompts)

    def _encoder(self) -> Encoder:
        """The pipeline's text parts alone; SDXL's null prompt is zeros where its index says so."""
        components = index_components(self._folder)
        others = [c for c in components if not c.startswith((*TEXT, "scheduler"))]
        left_out: dict[str, Any] = dict.fromkeys(others)
        pipeline = load_parts(self._folder, self._placement.dtype, left_out)
        pipeline.to(self._placement.device)
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
