"""Prompt embeddings on disk: each prompt is encoded once for each text encoder.

CACHE/synthetic-imagenet/prompts/ENCODER/PROMPT.safetensors, both names hashes; CACHE is
$XDG_CACHE_HOME or ~/.cache. A file appears by rename: workers may encode one prompt at once.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from safetensors.torch import load_file, save
from torch import Tensor

ENCODER_BATCH = 8  # fixed: an embedding must not depend on what else was left to encode

Encoder = Callable[[list[str]], Tensor]  # ENCODER_BATCH texts => [ENCODER_BATCH, L, D]


class PromptCache:
    """Embeddings of one text encoder; `encoder` is a hash of all that decides its output."""

    def __init__(self, encoder: str) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._folder = Path(cache) / "synthetic-imagenet" / "prompts" / encoder[:32]

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those of `prompts` that are not encoded yet, each once."""
        return [p for p in dict.fromkeys(prompts) if not self._file(p).is_file()]

    def fill(self, prompts: Sequence[str], encode: Encoder) -> None:
        """Encode and store `prompts`, in batches of one fixed shape."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for first in range(0, len(prompts), ENCODER_BATCH):
            texts = list(prompts[first : first + ENCODER_BATCH])
            padded = texts + [""] * (ENCODER_BATCH - len(texts))
            for text, tokens in zip(texts, encode(padded), strict=False):
                self._store(text, tokens)

    def load(self, prompts: Sequence[str]) -> Tensor:
        """[N, L, D] on the CPU, in the precision it was encoded in."""
        return torch.stack([load_file(self._file(p))["tokens"] for p in prompts])

    def _file(self, prompt: str) -> Path:
        name = hashlib.sha256(prompt.encode()).hexdigest()[:32]
        return self._folder / f"{name}.safetensors"

    def _store(self, prompt: str, tokens: Tensor) -> None:
        content = save({"tokens": tokens.cpu().contiguous()}, metadata={"prompt": prompt})
        with NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(self._file(prompt))
