"""Generators that sample latents, then decode them; on a GPU a batch while the next is sampled.

There latents are sampled on the caller's stream of the GPU, in the caller's thread. A thread of the
process's own waits on a second stream until they are there, decodes them and copies the pixels to
the host. It decodes a batch at a time, in the order in which they were begun. A CPU has one thread
for both, and gains nothing.
"""

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch, Screened
from generation.pretrained.components import to_uint8


class DecodingGenerator(ABC):
    """A generator by its two parts. `decoded` may run in another thread than `latents`, while that
    samples others: it changes nothing that both use."""

    @abstractmethod
    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float[N,C,h,w] on the networks' device; UserError for a batch or settings that do not
        fit."""

    @abstractmethod
    def decoded(self, latents: Tensor) -> Tensor:
        """float[N,3,H,W], or [N,1,H,W] in grey, about in [-1, 1]."""

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3], or Screened if any is not finite; UserError as `latents`."""
        return self._images(self.latents(batch, settings))

    @property
    def decodes_beside(self) -> bool:
        """Whether a batch is to be decoded while the next is sampled."""
        return torch.cuda.is_available()

    def begin(self, batch: ImageBatch, settings: SamplerConfig) -> "Future[np.ndarray | Screened]":
        """What `sample` gives, once it is decoded; UserError as `latents`."""
        latents = self.latents(batch, settings)
        if not latents.is_cuda:
            return _decoder().submit(self._images, latents)
        ready = torch.cuda.current_stream(latents.device).record_event()
        return _decoder().submit(self._images_on_own_stream, latents, ready)

    def _images_on_own_stream(
        self, latents: Tensor, ready: torch.cuda.Event
    ) -> np.ndarray | Screened:
        stream = _decoding_stream(latents.device)
        with torch.cuda.stream(stream):
            stream.wait_event(ready)
            latents.record_stream(stream)  # its memory is not given to others before it is decoded
            return self._images(latents)

    @torch.inference_mode()
    def _images(self, latents: Tensor) -> np.ndarray | Screened:
        return to_uint8(self.decoded(latents))


@lru_cache(maxsize=1)
def _decoder() -> ThreadPoolExecutor:
    """The thread of this process that decodes."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")


@lru_cache
def _decoding_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
