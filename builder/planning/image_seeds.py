"""An image's identity and the seed drawn from it. Nothing else decides its random numbers."""

import hashlib

from generation.diffusion.noise import SEED_BITS


def image_seed(release_seed: int, resolution: int, wnid: str, index: int, attempt: int) -> int:
    """The image's own seed, 53 bits, from its identity alone."""
    identity = f"{release_seed}/{resolution}/{wnid}/{index}/{attempt}"
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def image_id(release_seed: int, resolution: int, wnid: str, index: int, attempt: int) -> str:
    """The image's name: its identity, readable."""
    return f"s{release_seed}-r{resolution}-{wnid}-{index:06d}-{attempt}"
