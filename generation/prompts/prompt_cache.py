"""Prompt embeddings on disk: each prompt is encoded once for each text encoder.

CACHE/synthetic-imagenet/prompts/ENCODER/PROMPT.safetensors, both names hashes; CACHE is
$XDG_CACHE_HOME or ~/.cache. A file appears by rename: workers may encode one prompt at once.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from generation.pretrained.downloads import cache_folder
from release.errors import UserError
from release.files.commit import write_atomically

ENCODER_BATCH = 8  # fixed: an embedding must not depend on what else was left to encode

# ENCODER_BATCH texts => named tensors [ENCODER_BATCH, …], such as tokens [ENCODER_BATCH, L, D]
Encoder = Callable[[list[str]], dict[str, Tensor]]


class PromptCache:
    """Embeddings of one text encoder; `encoder` is a hash of all that decides its output."""

    def __init__(self, encoder: str) -> None:
        self._folder = cache_folder("prompts") / encoder[:32]

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those of `prompts` that are not encoded yet, each once; a damaged file is none."""
        return [p for p in dict.fromkeys(prompts) if self._read(p) is None]

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
        rows = [self._read(prompt) for prompt in prompts]
        found = [row for row in rows if row is not None]
        if len(found) < len(prompts):
            raise UserError(f"{self._folder} was emptied or damaged meanwhile: run it again")
        return {name: torch.stack([row[name] for row in found]) for name in found[0]}

    def _read(self, prompt: str) -> dict[str, Tensor] | None:
        """None if the file is missing or its bytes are not those that were written."""
        try:
            with safe_open(self._file(prompt), "pt") as file:
                stated = (file.metadata() or {}).get("sha256")
                tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except (OSError, SafetensorError):
            return None
        return tensors if stated in (None, _sha256(tensors)) else None

    def _file(self, prompt: str) -> Path:
        name = hashlib.sha256(prompt.encode()).hexdigest()[:32]
        return self._folder / f"{name}.safetensors"

    def _store(self, prompt: str, tensors: dict[str, Tensor]) -> None:
        own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        content = save(own, metadata={"prompt": prompt, "sha256": _sha256(own)})
        write_atomically(self._file(prompt), content)


def _sha256(tensors: dict[str, Tensor]) -> str:
    """Of the tensors' bytes in the order of their names."""
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
