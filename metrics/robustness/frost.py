"""Frost of ImageNet-C: a piece of a photograph of frost laid over the image.

The photographs come with the authors' code alone (github.com/hendrycks/robustness, frost1.png to
frost6.jpg), so a folder names them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metrics.robustness.corruption import Corruption
from release.errors import UserError
from release.files.commit import sha256_bytes
from release.images.decoding import decode_rgb

LEVELS = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
DRAWN = 5  # their code draws from the first five of its six photographs
SUFFIXES = (".png", ".jpg", ".jpeg")
LEFT_OUT = (
    "frost is left out: it lays photographs over the image that come with the authors' code; name "
    "their folder with --frost-textures"
)


@dataclass(frozen=True)
class Textures:
    """Photographs, each uint8[H,W,3]; hashes: SHA-256 of each file by its name."""

    photographs: tuple[np.ndarray, ...]
    hashes: dict[str, str]

    @property
    def corruption(self) -> Corruption:
        """Frost by these."""
        return Corruption(self.frost, LEVELS, {"textures": self.hashes})

    def frost(
        self, image: np.ndarray, constant: tuple[float, float], rng: np.random.Generator
    ) -> np.ndarray:
        """Share of the image plus share of a piece of a photograph; constant: both shares."""
        height, width = image.shape[:2]
        self.require_larger(max(height, width))
        photograph = self.photographs[rng.integers(len(self.photographs))]
        top = rng.integers(photograph.shape[0] - height)
        left = rng.integers(photograph.shape[1] - width)
        piece = photograph[top : top + height, left : left + width] / 255
        return np.asarray(constant[0] * image + constant[1] * piece)

    def require_larger(self, side: int) -> None:
        """UserError for a photograph that is not larger than images of `side` px."""
        for name, photograph in zip(self.hashes, self.photographs, strict=True):
            height, width = photograph.shape[:2]
            if min(height, width) <= side:
                raise UserError(
                    f"--frost-textures: {name} has {width} x {height} px; frost takes pieces of "
                    f"{side} px, so give larger photographs"
                )


def read_textures(folder: Path) -> Textures:
    """The first five images by name; UserError if there is none or one cannot be decoded."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        contents = {path.name: path.read_bytes() for path in found[:DRAWN]}
    except OSError as error:
        raise UserError(f"--frost-textures {folder} cannot be read: {error.strerror}") from None
    if not contents:
        raise UserError(
            f"--frost-textures {folder} holds no images ({', '.join(SUFFIXES)}); give a folder of "
            "the photographs of ImageNet-C's code, frost1.png and on"
        )
    return Textures(
        tuple(_photograph(folder / name, content) for name, content in contents.items()),
        {name: sha256_bytes(content) for name, content in contents.items()},
    )


def _photograph(path: Path, content: bytes) -> np.ndarray:
    try:
        return np.asarray(decode_rgb(content))
    except UserError as error:
        raise UserError(f"--frost-textures {path} {error}") from None
