"""Named resize rules. FID differs by tenths between them, so the rule is part of every protocol."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """float32[N,3,H,W] to [N,3,size,size] as TensorFlow 1's ResizeBilinear: source pixel i·H/size.

    No antialiasing, no half-pixel offset: the rule of the ADM evaluator, of the original FID code
    and of EDM2's Inception. It is linear in rows and in columns: W·x·Vᵀ with two small matrices.
    """
    rows = _tf1_matrix(images.shape[2], size).to(images)
    columns = _tf1_matrix(images.shape[3], size).to(images)
    return rows @ images @ columns.T


def _tf1_matrix(source: int, target: int) -> Tensor:
    """float32[target, source], two weights a row."""
    # float32 as TensorFlow computes it: in float64 some neighbours differ by one
    position = torch.arange(target, dtype=torch.float32) * torch.tensor(
        source / target, dtype=torch.float32
    )
    low = position.long()
    high = (low + 1).clamp_max(source - 1)
    share = position - low
    matrix = torch.zeros(target, source)
    index = torch.arange(target)
    matrix[index, low] += 1 - share
    matrix[index, high] += share
    return matrix


def float_bicubic(images: Tensor, size: int) -> Tensor:
    """float32[N,3,H,W] to [N,3,size,size], bicubic with antialiasing, neither rounded nor clipped.

    Equals PIL's bicubic on float images: the rule of published FD-DINOv2 (EDM2) at 224.
    """
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)


def clean_bicubic(images: Tensor, size: int) -> Tensor:
    """float_bicubic, clipped to 0 … 255: the rule of clean-fid (Parmar et al. 2022) at 299."""
    return float_bicubic(images, size).clamp(0, 255)


RESIZE_RULES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "adm": tf1_bilinear,
    "edm2": tf1_bilinear,  # its grid_sample with a shifted grid reads the same source positions
    "clean": clean_bicubic,
    "dinov2": float_bicubic,
}
