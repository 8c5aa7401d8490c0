"""Sampling one stage of DeepFloyd IF or of the x4 upscaler; see generators/deepfloyd_if.py."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.guidance import always
from generation.diffusion.noise import ahead_of_need, image_noise, parent_noise
from generation.diffusion.sampler import Denoiser, sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import acting
from generation.families.deepfloyd_if.generator import TEXT, UPSCALING, text_folder
from generation.families.deepfloyd_if.network import NULL_PROMPT
from generation.generator import ImageBatch, Screened
from generation.networks.pixels import start_of
from generation.networks.placement import Placement
from generation.pretrained.components import (
    decode_latents,
    free_memory,
    load_component,
    require_of_latents,
    to_uint8,
)
from generation.pretrained.diffusers_folder import (
    INDEX,
    model_sha256,
    noise_schedule,
    pipeline_class,
)
from generation.prompts.prompt_cache import Encoder, PromptCache
from release.errors import UserError

IF_TOKENS = 77  # IF's networks were trained on so many, though T5 reads more


@dataclass(frozen=True)
class Family:
    """What sets one kind of checkpoint apart.

    parent_schedule: the component whose schedule noises the parent image, None for a first stage.
    latent: the U-Net works on latents of the parent's own size, which a VAE decodes.
    """

    text: Literal["t5", "clip"]
    parent_schedule: str | None
    latent: bool


FAMILIES = {
    "IFPipeline": Family("t5", None, latent=False),
    "IFSuperResolutionPipeline": Family("t5", "image_noising_scheduler", latent=False),
    "StableDiffusionUpscalePipeline": Family("clip", "low_res_scheduler", latent=True),
}


class DeepFloydIF:
    """Samples one stage of the cascade. The text encoder and the networks take turns in memory."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        self._folder = folder
        self._placement = placement
        self._device = device = placement.device
        self._dtype = dtype = placement.dtype
        self._family = FAMILIES[pipeline_class(folder)]
        self._unet: Any = None
        self._vae: Any = None
        self._text_encoder = TextEncoder(text_folder(folder), self._family.text, device, dtype)

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3]; UserError for parents or settings that do not fit the stage."""
        self._check(batch, settings)
        text = self._text(batch, settings)
        self._load()
        schedule, kind = noise_schedule(self._folder / "scheduler")
        with torch.inference_mode():
            parent, level = self._noised_parent(batch, settings)
            acts = acting(schedule, settings)
            denoise = guided_denoiser(self._unet, text, settings.guidance, parent, level, acts)
            shape = self._sampled_shape(parent)
            with ahead_of_need(image_noise(batch.seeds, shape)) as noise:
                start = start_of(batch, 3, torch.device(self._device))
                x0 = sample(
                    denoise, schedule, kind, settings, lambda: self._tensor(noise()), start=start
                )
            images = decode_latents(self._vae, x0) if self._family.latent else x0
        return to_uint8(images)

    def _check(self, batch: ImageBatch, settings: SamplerConfig) -> None:
        if self._family.parent_schedule is None:
            if batch.parents is not None:
                raise UserError(f"{self._folder} makes images from text: it must be a first stage")
        elif batch.parents is None:
            raise UserError(f"{self._folder} enlarges images: it cannot be a first stage")
        if self._family.latent:
            require_of_latents(settings, self._folder)

    def _text(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """[N,L,D], or with guidance [2N,L,D]: the prompts, then the null prompt N times."""
        prompts = list(batch.prompts)
        if settings.guidance != 1:
            prompts += [NULL_PROMPT] * len(prompts)
        return self._text_encoder.embed(prompts, self._unload).to(self._device, self._dtype)

    def _load(self) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        if self._unet is None:
            unet = load_component(UNet2DConditionModel, self._folder / "unet", self._dtype)
            self._unet = self._placement.place(unet)
        if self._family.latent and self._vae is None:
            # bfloat16's steps are wider than a pixel's: decode in float32
            vae = load_component(AutoencoderKL, self._folder / "vae", torch.float32)
            self._vae = vae.to(self._device)

    def _unload(self) -> None:
        self._unet = self._vae = None
        free_memory()

    def _sampled_shape(self, parent: Tensor | None) -> tuple[int, int, int]:
        config = self._unet.config
        if parent is None:
            return config.in_channels, config.sample_size, config.sample_size
        return config.in_channels - parent.shape[1], parent.shape[2], parent.shape[3]

    def _noised_parent(
        self, batch: ImageBatch, settings: SamplerConfig
    ) -> tuple[Tensor | None, int]:
        """The parents as the U-Net sees them, float32[N,3,h,w], and the step they are noised to."""
        if batch.parents is None or self._family.parent_schedule is None:
            return None, 0
        image = self._tensor(batch.parents.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        if not self._family.latent:
            size = self._unet.config.sample_size
            if image.shape[-1] * UPSCALING != size:
                raise UserError(
                    f"{self._folder} makes {size} px images from {size // UPSCALING} px ones, "
                    f"got {image.shape[-1]} px"
                )
            image = enlarge(image, size)
        schedule, _ = noise_schedule(self._folder / self._family.parent_schedule)
        if settings.truncated:
            raise UserError("the pipeline adds noise to whole parents: leave truncated out")
        level = min(round(settings.noise_augmentation * schedule.num_steps), schedule.num_steps - 1)
        most = json.loads((self._folder / INDEX).read_text()).get("max_noise_level")
        if most is not None and level > most:
            raise UserError(
                f"noise_augmentation = {settings.noise_augmentation} is more than "
                f"{self._folder} knows; at most {most / schedule.num_steps}"
            )
        noise = parent_noise(batch.seeds, tuple(image.shape[1:]))
        return add_noise(image, self._tensor(noise), schedule, level), level

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


class TextEncoder:
    """A model's frozen text encoder, which is in memory only while it encodes what is new.

    folder: where it and its tokenizer stand.
    """

    def __init__(
        self, folder: Path, kind: Literal["t5", "clip"], device: str, dtype: torch.dtype
    ) -> None:
        self._load = partial(load_text_encoder, folder, kind, device, dtype)
        # a GPU and a CPU encode a prompt a little differently: each has its own cache
        encoder = f"{model_sha256(folder, TEXT)} {device} {dtype}"
        self._cache = PromptCache(hashlib.sha256(encoder.encode()).hexdigest())

    def embed(self, texts: Sequence[str], make_room: Callable[[], None] = lambda: None) -> Tensor:
        """[N,L,D] on the CPU; `make_room` is called before the encoder is loaded, if it is."""
        missing = self._cache.missing(texts)
        if missing:
            make_room()
            self._cache.fill(missing, self._load())
            free_memory()
        return self._cache.load(texts)["tokens"]


def enlarge(image: Tensor, size: int) -> Tensor:
    """[N,3,h,w] to [N,3,size,size], bilinear with aligned corners as IF-II was trained."""
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=True)


def add_noise(image: Tensor, noise: Tensor, schedule: NoiseSchedule, level: int) -> Tensor:
    """`image` at step `level` of `schedule` (Ho et al. 2020, eq. 4)."""
    abar = float(schedule.alphas_cumprod[level])
    return sqrt(abar) * image + sqrt(1 - abar) * noise


def guided_denoiser(
    unet: Any,
    text: Tensor,
    guidance: float,
    parent: Tensor | None,
    level: int,
    acts: Callable[[int], bool] = always,
) -> Denoiser:
    """Bind conditioning and classifier-free guidance, Imagen's w: uncond + w*(cond - uncond).

    text [N,L,D] at w = 1, else [2N,L,D], both halves as one batch; the first half alone at a step
    at which guidance does not act. parent float32[N,3,H,W] joins the channels; level is the step it
    was noised to. A variance the network predicts beside the mean, in channels of its own, is
    dropped.
    """
    levels = None if parent is None else torch.full((len(text),), level, device=text.device)

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        copies = 2 if guidance != 1 and acts(t) else 1
        n = copies * len(x)
        inputs = x if parent is None else torch.cat([x, parent], dim=1)
        inputs = torch.cat([inputs] * copies).to(text.dtype, memory_format=torch.channels_last)
        times = torch.full((n,), t, device=x.device)
        noised = None if levels is None else levels[:n]
        out = unet(inputs, times, text[:n], class_labels=noised, return_dict=False)[0]
        out = out[:, : x.shape[1]].float()
        if copies == 1:
            return out, None
        conditional, unconditional = out.chunk(2)
        return unconditional + guidance * (conditional - unconditional), None

    return denoise


def load_text_encoder(
    folder: Path, kind: Literal["t5", "clip"], device: str, dtype: torch.dtype
) -> Encoder:
    """The function from texts to the encoder's last hidden state, padding included.

    Text, length and mask as in IF's and Stable Diffusion's pipelines. The function holds the
    encoder: drop it to free the memory.
    """
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a worker's bar for loading weights runs into the build's own
    classes: dict[str, tuple[Any, Any]] = {
        "t5": (T5EncoderModel, T5Tokenizer),
        "clip": (CLIPTextModel, CLIPTokenizer),
    }
    model_class, tokenizer_class = classes[kind]
    tokenizer = tokenizer_class.from_pretrained(folder / "tokenizer")
    model = load_component(model_class, folder / "text_encoder", dtype).to(device)
    length = IF_TOKENS if kind == "t5" else tokenizer.model_max_length
    masked = kind == "t5" or getattr(model.config, "use_attention_mask", False)

    @torch.inference_mode()
    def encode(texts: list[str]) -> dict[str, Tensor]:
        plain = [text.lower().strip() for text in texts] if kind == "t5" else texts
        tokens = tokenizer(plain, padding="max_length", max_length=length)
        for text, ids in zip(texts, tokens.input_ids, strict=True):
            if len(ids) > length:
                raise UserError(f"prompt {text[:40]!r}… is over {length} tokens long")
        ids = torch.tensor(tokens.input_ids, device=device)
        mask = torch.tensor(tokens.attention_mask, device=device) if masked else None
        return {"tokens": model(ids, attention_mask=mask)[0]}

    return encode
