"""Hashes of many image ids at once, by which they are mixed and chosen."""

import hashlib
from collections.abc import Sequence

import numpy as np


def hash_words(texts: Sequence[str]) -> np.ndarray:
    """uint64[4, N]: the SHA-256 of each text, its first word first."""
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(digests, ">u8").reshape(-1, 4).T.astype(np.uint64)
