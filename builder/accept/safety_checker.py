"""Rejects what a published pipeline's own safety checker would have returned as a black image.

The checkers are diffusers': DeepFloyd IF's (unsafe content, and watermarks that the model has
learnt to draw) and Stable Diffusion's (unsafe content).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from builder.accept import StageFacts, Verdict
from generation.pretrained.diffusers_folder import (
    locate_model,
    model_sha256,
    pipeline_class,
    weight_files,
)

PARTS = ("safety_checker", "feature_extractor")
LAYOUTS = dict.fromkeys(
    ("IFPipeline", "IFSuperResolutionPipeline", "StableDiffusionPipeline"), PARTS
)
UNSAFE, WATERMARK = "safety checker: unsafe content", "safety checker: watermark"


class Settings(BaseModel):
    """checkpoint: the model whose checker judges, by default the stage's own.

    unsafe, watermark: IF's scores above which an image is rejected, 0.5 in its pipelines. Stable
    Diffusion's checker has its thresholds within.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Annotated[str | None, Field(exclude=True)] = None
    unsafe: float = 0.5
    watermark: float = 0.5


def locate(settings: Settings, stage: StageFacts) -> Path:
    """The folder of the model that has the checker."""
    return locate_model(settings.checkpoint or str(stage.checkpoint), LAYOUTS)


def sha256(place: Path, settings: Settings) -> str:  # noqa: ARG001
    """One hash over the checker and the preprocessing of its images."""
    return model_sha256(place, PARTS)


def load(place: Path, settings: Settings) -> "SafetyChecker":
    """The checker, on the GPU if there is one."""
    import torch
    from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor
    from transformers.utils import logging

    class Complete(IFSafetyChecker):
        """With what transformers 5 wants done before weights are loaded."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.post_init()

    logging.disable_progress_bar()  # a worker's bar runs into the build's own
    is_if = pipeline_class(place).startswith("IF")
    folder = place / PARTS[0]
    model_class: Any = Complete if is_if else StableDiffusionSafetyChecker
    checker = model_class.from_pretrained(
        folder, variant=weight_files(folder)[0], use_safetensors=True
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return SafetyChecker(
        checker.float().eval().requires_grad_(False).to(device),
        CLIPImageProcessor.from_pretrained(place / PARTS[1]),
        settings if is_if else None,
    )


class SafetyChecker:
    """The rule, loaded. thresholds: of IF's checker, None for Stable Diffusion's."""

    def __init__(self, checker: Any, processor: Any, thresholds: Settings | None) -> None:
        self._checker = checker
        self._processor = processor
        self._thresholds = thresholds

    def judge(self, images: np.ndarray, labels: Sequence[int]) -> list[Verdict]:  # noqa: ARG002
        """Score: IF's, of what the image is rejected for, else of unsafe content."""
        import torch

        inputs = self._processor(list(images), return_tensors="pt").pixel_values
        inputs = inputs.to(next(self._checker.parameters()).device)
        with torch.inference_mode():
            if self._thresholds is None:
                black = np.zeros((len(images), 1, 1, 3))  # it blackens what it is given
                flags = self._checker(inputs, black)[1]
                return [Verdict(UNSAFE if flag else None) for flag in flags]
            embedding = self._checker.vision_model(inputs)[0]
            unsafe = self._checker.p_head(embedding).flatten().tolist()
            watermark = self._checker.w_head(embedding).flatten().tolist()
        return [_verdict(p, w, self._thresholds) for p, w in zip(unsafe, watermark, strict=True)]


def _verdict(unsafe: float, watermark: float, thresholds: Settings) -> Verdict:
    if unsafe > thresholds.unsafe:
        return Verdict(UNSAFE, unsafe)
    if watermark > thresholds.watermark:
        return Verdict(WATERMARK, watermark)
    return Verdict(None, unsafe)
