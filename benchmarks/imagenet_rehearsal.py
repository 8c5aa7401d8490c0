"""Walk ImageNet in miniature end to end, by the real commands, and measure each.

    python benchmarks/imagenet_rehearsal.py --out results/imagenet-rehearsal

Makes 1000 classes of small images (odd files among them) in every layout that ImageNet comes in,
imports each, trains a chain of three tiny stages and builds 4 images a class with it; scores,
selects, trains the twelve classifiers at a tiny size, runs the built-in study likewise; card,
leaderboard, verification; publishes to a Hub on this machine and loads it back. The commands are in
tests/rehearsal/rehearsal.py. Each is printed as it can be copied; the first that fails ends the
walk with what it said. With --folder, a walk that was ended goes on: steps that are done are not
done again.

    python benchmarks/imagenet_rehearsal.py --data-only --folder miniature

makes the images and recipes alone, to walk docs/imagenet.md with, and prints the first commands.

OUT/rehearsal.json, rehearsal.md: seconds, and the peak of memory of the command and all processes
it started (their proportional set size, looked at five times a second).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from datasets import disable_progress_bars

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from release.files.commit import write_atomically  # noqa: E402
from release.results.result import environment  # noqa: E402 - run as a script, its tests are beside it
from tests.campaigns.kill_trials import hub_environment  # noqa: E402
from tests.rehearsal.rehearsal import WHOLE, Step, steps, write_data, write_inputs  # noqa: E402
from tests.servers.hub_server import Hub  # noqa: E402

INTERVAL = 0.2  # seconds between looks at the memory


@dataclass(frozen=True)
class Row:
    """One step as it went. gigabytes: 2^30 bytes at the peak. load: machine's when it began.

    cpu: seconds of all its processes, which other work on the machine hardly changes.
    """

    step: str
    command: str
    seconds: float
    gigabytes: float
    load: float
    cpu: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the table")
    parser.add_argument("--folder", type=Path, help="where to walk; by default a temporary one")
    parser.add_argument(
        "--data-only", action="store_true", help="make images and recipes, and stop"
    )
    arguments = parser.parse_args()
    disable_progress_bars()
    if arguments.data_only:
        if arguments.folder is None:
            parser.error("--data-only needs --folder, where the images are to stand")
        place = f'cd {arguments.folder}; export PATH="{Path(sys.executable).parent}:$PATH"'
        print(place, *write_data(arguments.folder, WHOLE), sep="\n")
        return
    if arguments.out is None:
        parser.error("give --out, the folder of the table, or --data-only")
    with tempfile.TemporaryDirectory() as temporary:
        walk(arguments.folder or Path(temporary), arguments.out)


def walk(folder: Path, out: Path) -> None:
    """Every step that is not yet in the table of `folder`."""
    hub = Hub()
    listener, address = hub.serve()
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "rows.json"
    earlier = json.loads(done.read_text()) if done.exists() else []
    rows = {row["step"]: Row(**row) for row in earlier}
    rows.pop("publish", None)  # to a Hub that ended with the last walk
    images = write_inputs(folder, WHOLE, hub)
    variables = {**os.environ, **hub_environment(address, folder / "home")}
    variables |= {"XDG_CACHE_HOME": str(folder / "cache")}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    planned = list(steps(WHOLE, images))
    for step in planned:
        if step.name in rows:
            continue
        print(f"$ {step.shown}", flush=True)
        row = rows[step.name] = measured(step, folder, variables)
        print(f"  {row.seconds:.1f} s, {row.gigabytes:.2f} GiB", flush=True)
        done.write_text(json.dumps(list(map(asdict, rows.values()))))
    listener.shutdown()
    write(out, [rows[step.name] for step in planned])


def measured(step: Step, folder: Path, variables: dict[str, str]) -> Row:
    """Run the step; SystemExit with what it said if it fails or left something else."""
    load, started, used = os.getloadavg()[0], time.monotonic(), cpu_of_children()
    log = folder / "said.txt"
    with log.open("w") as said:
        process = subprocess.Popen(
            step.words, cwd=folder, env=variables, stdout=said, stderr=subprocess.STDOUT
        )
        watch = Watch(process.pid)
        watch.start()
        code = process.wait()
    seconds = time.monotonic() - started
    watch.join()
    text = log.read_text()
    if code:
        raise SystemExit(f"{text}\n{step.shown}\nended with exit code {code}, in {folder}")
    step.check(folder, text)
    gigabytes, cpu = round(watch.peak / 2**30, 2), round(cpu_of_children() - used, 1)
    return Row(step.name, step.shown, round(seconds, 1), gigabytes, load, cpu)


def cpu_of_children() -> float:
    """Seconds of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Watch(threading.Thread):
    """The peak of memory of a process and its descendants, in bytes, while it lives."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.peak = 0
        self._root = psutil.Process(pid)

    def run(self) -> None:
        while self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE:
            self.peak = max(self.peak, self._now())
            time.sleep(INTERVAL)

    def _now(self) -> int:
        total = 0
        for process in (self._root, *self._descendants()):
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has ended since
                continue
        return total

    def _descendants(self) -> list[psutil.Process]:
        try:
            return list(self._root.children(recursive=True))
        except psutil.Error:
            return []


def table_row(row: Row) -> str:
    cpu = "" if row.cpu is None else f"{row.cpu:.1f}"
    measured = f"{row.seconds:.1f} | {cpu} | {row.gigabytes:.2f} | {row.load:.1f}"
    return f"| {row.step} | {measured} | `{row.command}` |"


def write(out: Path, rows: list[Row]) -> None:
    place = environment()
    instructions = place["cpu_capability"]
    content = {"environment": place, "rows": list(map(asdict, rows))}
    write_atomically(out / "rehearsal.json", (json.dumps(content, indent=1) + "\n").encode())
    lines = [
        "# ImageNet in miniature, walked end to end",
        "",
        f"1000 classes, {WHOLE.per_class} training and {WHOLE.val_per_class} validation images of "
        f"each (other layouts: {WHOLE.few} training images of each), {WHOLE.generated} generated. "
        f"Made by `benchmarks/imagenet_rehearsal.py` on {os.cpu_count()} CPU cores with "
        f"{instructions}, once; load is the machine's average of a minute when the step began, CPU "
        "seconds are of all its processes. Memory is the peak of the command and all processes it "
        "started. The classifiers of ImageNet train in bfloat16, which a CPU without AVX-512 "
        "computes slowly.",
        "",
        "| step | s | CPU s | GiB | load | command |",
        "|---|--:|--:|--:|--:|---|",
        *map(table_row, rows),
    ]
    write_atomically(out / "rehearsal.md", ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
