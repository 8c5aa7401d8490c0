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

# ENCODER_BATCH texts => named tensors [ENCODER_BATCH, …], such as tokens [ENCODER_BATCH, L, D]
Encoder = Callable[[list[str]], dict[str, Tensor]]


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
            encoded = encode(padded)
            for row, text in enumerate(texts):
                self._store(text, {name: tensor[row] for name, tensor in encoded.items()})

    def load(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Each tensor as [N, …] on the CPU, in the precision it was encoded in."""
        rows = [load_file(self._file(prompt)) for prompt in prompts]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _file(self, prompt: str) -> Path:
        name = hashlib.sha256(prompt.encode()).hexdigest()[:32]
        return self._folder / f"{name}.safetensors"

    def _store(self, prompt: str, tensors: dict[str, Tensor]) -> None:
        own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        content = save(own, metadata={"prompt": prompt})
        with NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(self._file(prompt))
