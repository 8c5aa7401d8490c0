"""Console commands run one after another in forks of a process that has imported the libraries.

A command that needs torch starts in milliseconds instead of seconds, and so do the workers that it
starts, so that hundreds of them fit into a test or a campaign. Each runs in a session of its own,
and may be killed at a chosen write operation (tests/campaigns/kill_points.py) or at a time limit.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
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

from builder.cluster.cluster import SETTINGS
from cards.drawing.charts import vega_bundle
from tests.servers.fork_server import listening, serve_forks, start_fork_server

ROOT = Path(__file__).parent.parent
SITE = Path(__file__).parent / "campaigns/kill_points_site"
LIBRARIES = (
    *("torch", "torchvision", "timm.optim", "diffusers", "transformers", "safetensors.torch"),
    *("datasets", "pyarrow.parquet", "scipy.stats", "sklearn", "statsmodels.stats.proportion"),
    *("matplotlib.pyplot", "altair", "accelerate", "huggingface_hub", "distributed"),
)
PACKAGES = ("release", "generation", "builder", "classifiers", "metrics", "cards")
WITHOUT_WORKERS = {
    *("compare-scores", "finetune-generator", "leaderboard", "render-card", "train-classifier"),
    "python",
}


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
        self._asked = 0

    def __enter__(self) -> "CommandServer":
        path = os.pathsep.join([str(SITE), str(ROOT), os.environ.get("PYTHONPATH", "")])
        # Workers are forks of it: what the builder's find before their first import.
        workers = SETTINGS["distributed.nanny.pre-spawn-environ"]
        environment = os.environ | {name: str(value) for name, value in workers.items()}
        environment |= {"PYTHONPATH": path} | self._environment
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
        """Run a console command, or python -m or -c, in `folder`.

        gigabytes: of private memory that it may take.
        """
        request = {
            "command": [str(part) for part in command],
            "folder": str(folder),
            "timeout": timeout,
            "environment": dict(environment or {}),
            "bytes": gigabytes and int(gigabytes * 2**30),
        }
        return Ended(**self._answer(request))

    def start_fork_server(self, environment: Mapping[str, str]) -> str:
        """Start one (tests/servers/fork_server.py); its name."""
        name: str = self._answer({"fork_server": dict(environment)})
        return name

    def _answer(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._asked += 1
        self._process.stdin.write(json.dumps([self._asked, request]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            number, answer = json.loads(line)
            if number == self._asked:  # not one that nobody waited for, as its test had timed out
                return answer
        raise AssertionError("the server of commands has ended")


def preload() -> None:
    """All that a command may need: the libraries, every module of the project, a page's script."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / name)], f"{name}."):
            importlib.import_module(module.name)
    vega_bundle()


def serve() -> None:
    preload()
    gc.freeze()  # else each child copies what it collects
    for line in sys.stdin:
        number, request = json.loads(line)
        if "fork_server" in request:
            answer: Any = _serve_forks(
                f"command-server-{os.getpid()}-{number}", request["fork_server"]
            )
        else:
            answer = vars(_run(request))
        print(json.dumps([number, answer]), flush=True)
    os._exit(0)  # as above


def _run(request: dict[str, Any]) -> Ended:
    outputs = [Path(f"/tmp/command-{os.getpid()}.{name}") for name in ("out", "err")]
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_command(request, outputs)
    code, timed_out = _wait(child, request["timeout"])
    said = [path.read_bytes().decode(errors="replace") for path in outputs]
    for path in outputs:
        path.unlink()
    return Ended(code, *said, time.monotonic() - started, timed_out)


def _serve_forks(name: str, environment: Mapping[str, str]) -> str:
    with listening(name) as listener:
        if os.fork() == 0:
            os.dup2(2, 1)  # what workers print is no answer
            os.environ.update(environment)
            serve_forks(listener)
    return name


def _be_the_command(request: dict[str, Any], outputs: Sequence[Path]) -> NoReturn:
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
    if request["command"][0] not in WITHOUT_WORKERS:
        _fork_workers()
    ending._leave = lambda _: None  # it would skip what those imported above have registered
    code = 0
    try:
        call(*request["command"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # tearing down all that was imported takes seconds


def call(name: str, *arguments: str) -> None:
    """Do in this process what the command does."""
    if name != "python":
        sys.argv = [name, *arguments]
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        module, function = scripts[name].split(":")
        getattr(importlib.import_module(module), function)()
        return
    kind, code, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    else:
        exec(code, {"__name__": "__main__"})


def _fork_workers() -> None:
    import dask

    start_fork_server()
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})


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
