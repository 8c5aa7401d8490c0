"""Processes that decode images ahead of need, and batches on their way to the device."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from generation.training.processes import processes_here
from release.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

AHEAD = 2  # batches that each process has ready
FROZEN = "generation.training.data.frozen"
Key = TypeVar("Key")
Step = TypeVar("Step")
Tensors = tuple[Tensor, ...]


class _Batches(Dataset[Any]):
    """A decoder's batches, or what is wrong with an image: the text of a UserError."""

    def __init__(self, decoder: Callable[[Sequence[Any]], Tensors]) -> None:
        self._decoder = decoder

    def __getitems__(self, keys: Sequence[Any]) -> Tensors | str:
        try:
            return self._decoder(keys)
        except UserError as error:
            return str(error)


def decoded_ahead(
    decoder: Callable[[Sequence[Key]], Tensors],
    batches: Iterable[Sequence[Key]],
    device: torch.device,
    processes: int,
    preload: Sequence[str] = (),
) -> Iterator[Tensors]:
    """The tensors of each batch, in order, pinned where they go to a GPU.

    decoder: makes them of the batch's keys; it is sent to the processes. processes: that decode,
    each with AHEAD batches ready; with 0 this one does. preload: modules that they would each
    import. They end when the iterator is let go of. UserError for an image that cannot be decoded,
    wherever that was found.
    """
    if processes and multiprocessing.current_process().daemon:
        raise UserError(
            "this Dask worker may not start processes that decode images: start workers with "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment"
        )
    loader: DataLoader[Any] = DataLoader(
        _Batches(decoder),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=processes,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # of its own, so that none is drawn from torch's
        prefetch_factor=AHEAD if processes else None,
        multiprocessing_context=forkserver((__name__, *preload)) if processes else None,
        worker_init_fn=_end_with_training,
    )
    return map(_checked, iter(loader))


def arriving(
    steps: Iterable[Step], make: Callable[[Step], Tensors], device: torch.device
) -> Iterator[Tensors]:
    """What `make` gives for each step, on the device.

    On a GPU it is copied and made, on a stream of its own, while that before it is computed on: by
    the time it is asked for it has arrived.
    """
    if device.type != "cuda":
        yield from map(make, steps)
        return
    stream, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    arrived: Tensors | None = None
    for step in steps:
        with torch.cuda.stream(stream):
            following = make(step)
        if arrived is not None:
            yield arrived
        computing.wait_stream(stream)
        for tensor in following:
            tensor.record_stream(computing)
        arrived = following
    if arrived is not None:
        yield arrived


def cores() -> int:
    """That this process may take: an equal share if it was launched beside others."""
    beside = processes_here()
    return max(1, len(os.sched_getaffinity(0)) // beside)


def decoding_processes(wanted: int | None) -> int:
    """`wanted`; by default one a core of those that this process may take, less one, which keeps
    the device busy."""
    return max(1, cores() - 1) if wanted is None else wanted


def forkserver(modules: Sequence[str]) -> "ForkServerContext":
    """Starts processes that have imported what they need: once for all, not each for itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules, FROZEN])
    return context


def _end_with_training(worker: int) -> None:  # noqa: ARG001
    """Have this process end when the training's does, however that ends.

    Torch watches for it by the parent's id, which here is the fork server's; that waits for its
    children in turn, so both would outlive a training that was killed.
    """
    training = multiprocessing.parent_process()

    def wait() -> None:
        if training is not None:
            training.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def _as_it_is(batch: Any) -> Any:
    return batch


def _checked(found: Tensors | str) -> Tensors:
    if isinstance(found, str):
        raise UserError(found)
    return found
