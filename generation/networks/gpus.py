"""GPUs that plans are made for, and their peaks."""

import math
from dataclasses import dataclass
from typing import Literal

from release.errors import UserError, unknown_name

Precision = Literal["half", "single", "fp8"]
GPU = "h100"  # that hours are told of, where nobody names one
UTILISATION = 0.4  # of the peak: what plans assume where nobody says otherwise


@dataclass(frozen=True)
class Gpu:
    """memory in GB; peak TFLOP/s of dense products in bfloat16 or float16, in float32, and in fp8
    added up in float32, None where it has none."""

    name: str
    memory: float
    half: float
    single: float
    fp8: float | None = None

    def seconds(self, flops: float, precision: Precision, utilisation: float) -> float:
        """Of so many floating-point operations, at that share of the peak; infinite in a precision
        that it has not."""
        peak = {"half": self.half, "single": self.single, "fp8": self.fp8}[precision]
        return math.inf if peak is None else flops / (peak * 1e12 * utilisation)


# By their makers' data sheets, without sparsity; float32 is plain float32, not TF32.
GPUS = {
    "a100-40": Gpu("NVIDIA A100 40 GB", 40, 312, 19.5),
    "a100-80": Gpu("NVIDIA A100 80 GB", 80, 312, 19.5),
    "h100": Gpu("NVIDIA H100 SXM 80 GB", 80, 989, 67, 1979),
    "h200": Gpu("NVIDIA H200 SXM 141 GB", 141, 989, 67, 1979),
    "rtx-4090": Gpu("NVIDIA RTX 4090 24 GB", 24, 165, 82.6, 330),
}


def known_gpu(name: str, utilisation: float) -> Gpu:
    """The GPU of that name; UserError for another, and for a share that is none."""
    if name not in GPUS:
        raise unknown_name("GPU", name, GPUS)
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation {utilisation}: give a share of the peak, above 0 to 1")
    return GPUS[name]
