"""A linear layer that multiplies in fp8."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KIND = torch.float8_e4m3fn
LEAST = 1e-12  # of a scale: rows of zeros have one, too
ROWS = F.ScalingType.RowWise  # type: ignore[attr-defined]


class Fp8Linear(nn.Module):
    """`layer`, whose weights are in bfloat16 and frozen; features are multiples of 16."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = scaled_rows(layer.weight)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.t(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """bfloat16[...,out], of bfloat16[...,in], each row by its own scale."""
        rows, scale = scaled_rows(x.flatten(0, -2))
        out: Tensor = F.scaled_mm(  # type: ignore[attr-defined]
            *(rows, self.weight.t(), scale, ROWS, self.scale, ROWS),
            bias=self.bias,
            output_dtype=x.dtype,
            use_fast_accum=True,
        )
        return out.view(*x.shape[:-1], -1)


def scaled_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """float8[M,K] and float32[M,1], whose product is about x, float[M,K]: a row's greatest number
    becomes fp8's greatest."""
    greatest = x.abs().amax(dim=1, keepdim=True).float()
    scale = greatest.clamp(min=LEAST) / torch.finfo(KIND).max
    return (x / scale).to(KIND), scale
