"""What decides a shard's pixels and bytes beside the recipe: package versions, kind of device."""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

DECIDING = ("diffusers", "numpy", "pillow", "pyarrow", "torch", "transformers")


@dataclass(frozen=True)
class Environment:
    """versions: (package, version) of each of DECIDING; device: the GPU's name or CPU's kind."""

    device: str
    versions: tuple[tuple[str, str], ...]

    def difference(self, other: "Environment") -> str | None:
        """The first thing `other` has otherwise, as "torch 2.11, not 2.15"; None if nothing."""
        for (name, mine), (_, theirs) in zip(self.versions, other.versions, strict=True):
            if mine != theirs:
                return f"{name} {theirs}, not {mine}"
        return f"device {other.device}, not {self.device}" if self.device != other.device else None


@lru_cache(maxsize=1)
def own_environment() -> Environment:
    """This process's; imports torch only where GPUs of several kinds are at hand."""
    return Environment(device_kind(), tuple((name, version(name)) for name in DECIDING))


def distinct(environments: Iterable[Environment]) -> list[Environment]:
    """Each once, in a fixed order."""
    return sorted(set(environments), key=lambda e: (e.device, e.versions))


def device_kind() -> str:
    """Name of the GPU torch would use, else the CPU by what decides which kernels torch takes."""
    if not visible_gpus():
        return f"cpu {platform.machine()} {_vector_units()}".rstrip()
    names = {_gpu_name(path) for path in Path("/proc/driver/nvidia/gpus").glob("*/information")}
    if len(names) == 1:
        return names.pop()
    import torch

    return torch.cuda.get_device_name()


def visible_gpus() -> list[str]:
    """Indices of the GPUs this process may use, without importing torch when there is no driver."""
    if not Path("/dev/nvidiactl").exists():
        return []
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name for name in names if name.strip() and not name.strip().startswith("-")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _gpu_name(information: Path) -> str:
    lines = information.read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:"))


def _vector_units() -> str:
    """The widest of what a CPU's float32 kernels are chosen by."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    return next((name for name in ("avx512f", "avx2", "asimd") if name in flags), "")
