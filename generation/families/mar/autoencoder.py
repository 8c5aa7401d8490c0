"""MAR's autoencoder, KL-16 in Rombach et al.'s layout: one file, beside the checkpoint or in the
model cache. To import this is to import no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file, read_tensors

SOURCE = "where util/download.py of github.com/LTH14/mar says"
NAME = "kl16.ckpt"
SCALE = 0.2325  # tokens are latents times this
KEPT = "model"  # as which the file keeps its tensors


@dataclass(frozen=True)
class KLFile:
    """Where it is."""

    file: Path

    @property
    def sha256(self) -> str:
        """Of the file, as downloaded."""
        return file_sha256(self.file)


def kl_16_of(checkpoint: Path) -> KLFile:
    """That of a checkpoint; UserError says where to get it."""
    beside = checkpoint.parent / NAME
    return KLFile(beside if beside.is_file() else locate_file(NAME, SOURCE))


def load_kl_16(found: KLFile) -> Any:
    """AutoencoderKL in float32."""
    from generation.pretrained.compvis_autoencoder import convert_kl

    return convert_kl(read_tensors(found.file, KEPT), str(found.file))
