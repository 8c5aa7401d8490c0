"""Rotary positions (Su et al. 2021): neighbouring channels turn by an angle that grows with the
place, so that the product of a query and a key depends on how far apart they stand."""

import torch
from torch import Tensor

THETA = 10000.0


def rotations(count: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """complex64[count, width / 2]: by how much each pair of channels turns at each place."""
    pairs = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    places = torch.arange(count, dtype=torch.float32, device=device)
    angles = torch.outer(places, 1.0 / THETA ** (pairs / width))
    return torch.polar(torch.ones_like(angles), angles)


def grid_rotations(grid: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """complex64[grid * grid, width / 2]: half of the channels by the row, half by the column."""
    one = rotations(grid, width // 2, device)
    rows = one[:, None].expand(grid, grid, -1)
    columns = one[None, :].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """x float[...,T,W], neighbouring channels as one complex number, times `turns`."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)
