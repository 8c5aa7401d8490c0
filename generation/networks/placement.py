"""Where a stage's networks run and in what precision: one answer for every generator."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from generation.networks.finite import require_finite
from generation.networks.fp8.running import run_in_fp8
from release.errors import UserError, shortened

Network = TypeVar("Network", bound=nn.Module)
REPLAYED = 50_000_000  # parameters; smaller networks run as CUDA graphs where they are compiled


def emulates_bfloat16(device_type: str) -> bool:
    """Whether products in bfloat16 are emulated: on a CPU with AVX2 and nothing newer.

    They took 60 times as long as in float32 there (512 x 512, one core of an EPYC, torch 2.15).
    """
    return device_type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


@dataclass(frozen=True)
class Placement:
    """device, the networks' dtype, and whether they run compiled for their one fixed shape.

    fp8: linear layers of their blocks multiply in it, the rest stays in bfloat16.
    """

    device: str
    dtype: torch.dtype
    compile: bool = False
    fp8: bool = False

    def on_gpu(self, precision: str) -> "Placement":
        """In the dtype of that name where this is a GPU; a CPU keeps its own."""
        if self.device == "cpu":
            return self
        return replace(self, dtype=getattr(torch, precision))

    def place(
        self, network: Network, dtype: torch.dtype | None = None, *, replayed: bool = True
    ) -> Network:
        """`network` ready to run, in `dtype` if it needs another one: frozen, channels_last.

        replayed: as `arrange`.
        """
        network.eval().requires_grad_(False)
        network.to(self.device)
        wanted = dtype or self.dtype
        if next(network.parameters()).dtype != wanted:  # diffusers warns of any cast, needed or not
            network.to(wanted)
        return self.arrange(network, replayed=replayed)

    def arrange(self, network: Network, *, replayed: bool = True) -> Network:
        """`network`, which is on its device in its dtype, in channels_last; compiled if wanted.

        replayed: it may run as a CUDA graph, which one that runs beside others must not: graphs
        share memory. UserError for weights that are not finite.
        """
        require_finite(network.state_dict().items(), type(network).__name__)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.fp8:
            run_in_fp8(network)
        if self.compile:
            if self.device == "cpu":
                _freeze_weights()
                network.apply(_by_convolution)
            if replayed and self.device != "cpu" and _is_small(network):
                _compile_replayed(network)
            else:
                network.compile(dynamic=False)
        return network


def chosen_device(name: str) -> str:
    """The torch device of that name; "auto": a GPU if there is one, else the CPU.

    UserError for a device that this machine has not.
    """
    gpus = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    known = ["cpu", *(gpus if torch.cuda.is_available() else [])]
    if torch.backends.mps.is_available():
        known.append("mps")
    if name == "auto":
        return "cuda" if "cuda" in known else "cpu"
    if name not in known:
        raise UserError(
            f"--device {shortened(name)!r}: torch has no such device here; known: auto, "
            f"{', '.join(known)}"
        )
    return name


def best_placement(compiled: bool) -> Placement:
    """bfloat16 on the GPU if there is one, else float32 on the CPU."""
    if torch.cuda.is_available():
        return Placement("cuda", torch.bfloat16, compiled)
    return Placement("cpu", torch.float32, compiled)


def _is_small(network: nn.Module) -> bool:
    """Whether a GPU is done with its kernels sooner than a CPU can start them one by one."""
    return sum(parameter.numel() for parameter in network.parameters()) < REPLAYED


def _compile_replayed(network: nn.Module) -> None:
    """Compiled, and a call's kernels started at once as a CUDA graph.

    A graph writes each call's output to the same memory, so callers get a copy. It belongs to the
    thread that recorded it, and shards are sampled in changing ones: all calls are made in one.
    """
    network.compile(dynamic=False, mode="reduce-overhead")
    replay = network._compiled_call_impl
    if replay is None:
        raise RuntimeError("torch keeps what it compiles elsewhere than it did")

    def call(inference: bool, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with torch.inference_mode(inference), torch.no_grad():
            torch.compiler.cudagraph_mark_step_begin()
            return tree_map_only(Tensor, torch.clone, replay(*inputs, **named))

    network._compiled_call_impl = lambda *inputs, **named: (
        _replaying().submit(call, torch.is_inference_mode_enabled(), inputs, named).result()
    )


@lru_cache(maxsize=1)
def _replaying() -> ThreadPoolExecutor:
    """The thread of this process that CUDA graphs belong to."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="replay")


class _PointwiseLinear(nn.Linear):
    """A linear layer whose products a convolution of kernel 1 computes."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        out = F.conv2d(rows, self.weight[:, :, None, None], self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


def _by_convolution(module: nn.Module) -> None:
    """Linear layers in float32 are MKL's, which leaves half of an AMD processor's vector units
    idle; convolutions are oneDNN's, which does not, and takes what follows them along."""
    if type(module) is nn.Linear:
        module.__class__ = _PointwiseLinear


def _freeze_weights() -> None:
    """Have weights laid out for the CPU's convolutions once, not in every call.

    For the whole process: as an option of `compile` it comes too late. The tracer must know of it,
    or it hands weights in as arguments, which cannot be frozen.
    """
    from torch._inductor import config

    config.freezing = True
