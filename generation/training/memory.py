"""What a training needs of memory, before any of it is taken, and what there is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from generation.networks.peak_memory import FusedAttention
from generation.training.config import TrainingConfig
from generation.training.loop.activations import keep_block_inputs_alone
from generation.training.processes import processes_here
from release.errors import UserError

GB = 1e9
FLOAT = 4  # bytes: weights, gradients, averages and moments are float32 in every precision
HALF = 2  # bytes: activations, and the weights as they are multiplied by them, in a lower one
MOMENTS = {  # adafactor's rows and columns are next to nothing
    "adafactor": 0,
    "adam": 2,
    "adamw": 2,
    "lamb": 2,
    "momentum": 1,
    "sgd": 1,
}
CGROUPS = Path("/sys/fs/cgroup")
LIMITS = (  # of versions 2 and 1: folder, limit, what is taken, and what of that is file cache
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
UNLIMITED = 1 << 60  # cgroups of version 1 say "none" as a number about as large as fits


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device. parameters: that are trained; frozen: that are not. fixed: weights,
    their rounded copies, gradients, averages, moments, and `held`, what is not trained.
    activations: what the backward pass needs of the images that are seen at once; with gradient
    checkpointing `at_least` that, as what one block needs comes on top. saving: bytes of the host,
    in one process, while a state is written. flops: floating-point operations of their forward
    pass."""

    parameters: int
    fixed: int
    activations: int
    images: int
    at_least: bool = False
    saving: int = 0
    flops: int = 0
    frozen: int = 0
    held: int = 0

    @property
    def total(self) -> int:
        return self.fixed + self.activations

    def __str__(self) -> str:
        return (
            f"{millions(self.parameters, self.frozen)}; training takes "
            f"{'at least' if self.at_least else 'about'} {self.total / GB:,.2f} GB: "
            f"{self.fixed / GB:,.2f} for weights, gradients, average and optimiser, "
            f"{self.activations / GB:,.2f} for {self.images} images at once"
        )


def millions(parameters: int, frozen: int) -> str:
    """How many parameters are trained, for people, and of how many where some are frozen."""
    if not frozen:
        return f"{parameters / 1e6:,.1f} M parameters"
    return f"{parameters / 1e6:,.1f} of {(parameters + frozen) / 1e6:,.1f} M parameters"


def training_memory(
    module: nn.Module,
    run: Callable[[int], object],
    config: TrainingConfig,
    processes: int,
    held: int = 0,
) -> TrainingMemory:
    """Of `module` in each of `processes`; all its tensors are on the meta device.

    run: a forward pass of so many images. What it raises is raised. held: bytes of what is not
    trained, beside the weights of the module that are not.
    """
    images = config.batch // (processes * config.accumulation)
    if config.gradient_checkpointing:
        keep_block_inputs_alone(module)
    with FlopCounterMode(display=False) as counter, FusedAttention():
        activations = _saved_for_backward(module, lambda: run(images))
    if config.precision != "no":
        activations //= 2
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters()) - parameters
    held += frozen * (FLOAT if config.precision == "no" else HALF)
    return TrainingMemory(
        parameters,
        fixed=sum(fixed_parts(parameters, config, processes, held).values()),
        activations=activations,
        images=images,
        at_least=config.gradient_checkpointing,
        # the state, and the network that makes samples
        saving=(3 + MOMENTS[config.optimizer]) * parameters * FLOAT,
        flops=counter.get_total_flops(),
        frozen=frozen,
        held=held,
    )


def fixed_parts(
    parameters: int, config: TrainingConfig, processes: int, held: int = 0
) -> dict[str, int]:
    """Bytes that do not follow from the images. frozen: `held`, where there is any. rounded: the
    weights in a lower precision, which the backward pass keeps, whole also where the others are
    shared out over `processes`."""
    whole = FLOAT * parameters // (processes if config.sharding == "full" else 1)
    return {
        "weights": whole,
        "rounded": 0 if config.precision == "no" else HALF * parameters,
        "gradients": whole,
        "average": whole,
        "optimizer": MOMENTS[config.optimizer] * whole,
        **({"frozen": held} if held else {}),
    }


def require_memory(needed: TrainingMemory, device: torch.device) -> None:
    """UserError if it does not fit in what is free on the GPU, or on this host for all of them."""
    if device.type == "cuda":
        free, sharing, saving = torch.cuda.mem_get_info(device)[0], 1, 0
    else:
        free, sharing = memory_at_hand(), processes_here()
        saving = needed.saving
    if needed.total * sharing + saving > free:
        of_each = f" in each of {sharing} processes" if sharing > 1 else ""
        to_save = f", {saving / GB:,.2f} GB to save it" if saving else ""
        raise UserError(
            f"{needed}{of_each}{to_save}, and {free / GB:,.2f} GB are free: make the recipe's "
            "[network] narrower, its batch smaller, or its accumulation larger"
        )


def memory_at_hand(root: Path = CGROUPS) -> int:
    """Bytes this process may still take: free memory, or less where a control group says so."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cache in LIMITS:
        allowed = _number(root / folder / limit)
        if allowed is not None and allowed < UNLIMITED:
            reclaimable = _statistic(root / folder / "memory.stat", cache)
            taken = _number(root / folder / used) or 0
            free = min(free, max(0, allowed - taken + reclaimable))
    return free


def _number(path: Path) -> int | None:
    """What the file says; None if there is none, or "max"."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None


def _statistic(path: Path, name: str) -> int:
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


def _saved_for_backward(module: nn.Module, run: Callable[[], object]) -> int:
    """Bytes of all tensors that the backward pass of `run` keeps, the module's weights aside."""
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address is its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())
