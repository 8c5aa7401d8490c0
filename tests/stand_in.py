"""A generator that needs no torch: each image is a flat colour that follows from its seed.

STAND_IN_FAULTS names a folder. In it, `log` gets a line for each image made, and `fault.json`, read
anew for each batch, says how to misbehave: kind, times, seconds to take, and where: at a resolution
(only shards of one class), or `after` so many images.
"""

import errno
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch


def locate(checkpoint: str) -> Path:
    return Path(checkpoint)


def sha256(folder: Path) -> str:
    return f"{folder.name:0<64}"


def load(folder: Path, compiled: bool) -> "StandIn":  # noqa: ARG001
    """`folder`'s name is the resolution; STAND_IN_LOAD_SECONDS how long that takes."""
    time.sleep(float(os.environ.get("STAND_IN_LOAD_SECONDS", "0")))
    return StandIn(int(folder.name))


class StandIn:
    def __init__(self, resolution: int) -> None:
        self._resolution = resolution

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray:  # noqa: ARG002
        side = self._resolution
        time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
        if os.environ.get("STAND_IN_DISK_FULL") == str(side):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "STAND_IN_FAULTS" in os.environ:
            misbehave(Path(os.environ["STAND_IN_FAULTS"]), side, batch)
        colours = [
            np.random.Generator(np.random.Philox(seed)).integers(256, size=3)
            for seed in batch.seeds
        ]
        images = np.array(colours, dtype=np.uint8)[:, None, None, :].repeat(side, 1).repeat(side, 2)
        if batch.parents is not None:
            images = (
                images // 2 + batch.parents.mean(axis=(1, 2), keepdims=True).astype(np.uint8) // 2
            )
        return images


VICTIM = 2  # the class whose shards misbehave


def misbehave(folder: Path, resolution: int, batch: ImageBatch) -> None:
    """Do what `folder`/fault.json says, at most `times` times over all processes."""
    fault = json.loads((folder / "fault.json").read_text())
    time.sleep(fault.get("seconds", 0))
    log = folder / "log"
    with log.open("a") as lines:
        lines.write("".join(f"{resolution} {seed}\n" for seed in sorted(set(batch.seeds))))
    if "after" in fault:
        struck = len(log.read_text().splitlines()) > fault["after"]
    else:
        struck = fault.get("resolution") == resolution and VICTIM in batch.labels
    if not struck:
        return
    for strike in range(fault["times"]):
        with suppress(FileExistsError):
            (folder / f"strike-{strike}").touch(exist_ok=False)
            _strike(fault["kind"])


def _strike(kind: str) -> None:
    if kind == "kill":  # as the kernel does to a process that takes too much memory
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        np.empty(1 << 60, np.uint8)
    if kind == "disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise RuntimeError("the network gave NaN")
