"""Console commands run one after another in forks of a process that has imported the libraries.

A command that needs torch starts in milliseconds instead of seconds, so that hundreds of them fit
into a test or a campaign. Each runs in a session of its own, and may be killed at a chosen write
operation (tests/campaigns/kill_points.py) or at a time limit.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent
SITE = Path(__file__).parent / "campaigns/kill_points_site"
PRELOADED = (
    *("torch", "torchvision", "timm", "diffusers", "transformers", "safetensors.torch"),
    *("datasets", "pyarrow.parquet", "scipy.stats", "sklearn", "statsmodels.stats.proportion"),
    *("matplotlib.pyplot", "altair", "accelerate", "huggingface_hub"),
    *(
        "builder.builds.build",
        "generation.families.pixel_unet.course",
        "generation.training.run",
        "classifiers.training.loop",
        "metrics.scoring.scoring",
    ),
    *("cards.pages.page",),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: as subprocess gives it, negative for a signal."""

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool


class CommandServer:
    """Starts on entering, ends on leaving. environment: what libraries read when imported."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})

    def __enter__(self) -> "CommandServer":
        path = os.pathsep.join([str(SITE), str(ROOT), os.environ.get("PYTHONPATH", "")])
        # Workers import what the command imports: without threads of their own, as the builder's.
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        environment |= self._environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command_server"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def run(
        self,
        command: Sequence[str | Path],
        folder: Path,
        timeout: float = 120,
        environment: Mapping[str, str] | None = None,
        gigabytes: float | None = None,
    ) -> Ended:
        """Run a console command in `folder`. gigabytes: of private memory that it may take."""
        assert self._process.stdin
        assert self._process.stdout
        request = {
            "command": [str(part) for part in command],
            "folder": str(folder),
            "timeout": timeout,
            "environment": dict(environment or {}),
            "bytes": gigabytes and int(gigabytes * 2**30),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def serve() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # else each child copies what it collects
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for line in sys.stdin:
        request = json.loads(line)
        outputs = [Path(f"/tmp/command-{os.getpid()}.{name}") for name in ("out", "err")]
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_the_command(request, outputs, scripts)
        code, timed_out = _wait(child, request["timeout"])
        said = [path.read_bytes().decode(errors="replace") for path in outputs]
        for path in outputs:
            path.unlink()
        print(json.dumps(vars(Ended(code, *said, time.monotonic() - started, timed_out))))
        sys.stdout.flush()
    os._exit(0)  # as above


def _be_the_command(request: dict[str, Any], outputs: Sequence[Path], scripts: dict) -> NoReturn:
    os.setsid()
    for descriptor, path in zip((1, 2), outputs, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["bytes"]:
        resource.setrlimit(resource.RLIMIT_DATA, (request["bytes"], request["bytes"]))
    from release.commands import ending
    from tests.campaigns.kill_points import install

    install()
    ending._leave = lambda _: None  # it would skip what those imported above have registered
    name, *arguments = request["command"]
    sys.argv = [name, *arguments]
    module, function = scripts[name].split(":")
    code = 0
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # tearing down all that was imported takes seconds


def _wait(child: int, timeout: float) -> tuple[int, bool]:
    """Its exit code, and whether it was killed at the time limit; its workers end with it."""
    end = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found or time.monotonic() > end:
            break
        time.sleep(0.005)
    if not found:
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), not found


if __name__ == "__main__":
    serve()
