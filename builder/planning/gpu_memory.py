"""Whether the GPUs can hold what a recipe says its stages need: asked before a model is fetched."""

from collections.abc import Sequence

from builder.planning.batch_and_compile import GpuMemory
from builder.planning.device_memory import GIB
from builder.planning.recipe import StageRecipe
from release.environment import visible_gpus
from release.errors import UserError


def require_memory(stages: Sequence[StageRecipe]) -> None:
    """UserError if a GPU this process may use is smaller than a stage needs; a CPU is not asked."""
    needed = [stage for stage in stages if stage.cost is not None]
    if not needed:
        return
    smallest = min(gpu_memory_gib(), default=None)
    for stage in needed:
        assert stage.cost is not None
        if smallest is not None and smallest < stage.cost.memory_gib:
            raise UserError(
                f"the stage at {stage.resolution} px needs {stage.cost.memory_gib:g} GiB of GPU "
                f"memory with batch = {stage.batch}, the smallest GPU here has {smallest:.1f}: "
                "hide it with CUDA_VISIBLE_DEVICES, end at a lower --res, ask for fewer images at "
                "once by --batch, or use a recipe of your own with its memory_gib"
            )


def gpu_memory_gib() -> list[float]:
    """Of each GPU this process may use; none without a driver, and then torch is not imported."""
    gpus = visible_gpus()
    if not gpus:
        return []
    import torch

    return [torch.cuda.get_device_properties(i).total_memory / GIB for i in range(len(gpus))]


def gpus_here() -> tuple[GpuMemory, ...]:
    """Each GPU this process may use, and what is free on it; none as above."""
    gpus = visible_gpus()
    if not gpus:
        return ()
    import torch

    found = (torch.cuda.mem_get_info(i) for i in range(len(gpus)))
    return tuple(GpuMemory(total, free) for free, total in found)
