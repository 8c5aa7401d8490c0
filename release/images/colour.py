"""Whether images are in colour."""

import numpy as np

BLOCK = 4096  # images compared at once: a mask of all would take a third of their memory again


def images_in_colour(images: np.ndarray) -> int:
    """How many of uint8[N,H,W,3] have a pixel whose red, green and blue are not equal."""
    blocks = (images[i : i + BLOCK] for i in range(0, len(images), BLOCK))
    return sum(int((block != block[..., :1]).any(axis=(1, 2, 3)).sum()) for block in blocks)
