"""How a command's process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The reader of a CSV reads ahead in a thread of Arrow, which asks for Python's lock again when the
# slow file answers: after the command's end.
READS_AHEAD = """
import builtins, io, time
import pyarrow as pa, pyarrow.csv as csv

class Slow(io.RawIOBase):
    reads = 0
    def readable(self):
        return True
    def read(self, size=-1):
        self.reads += 1
        time.sleep(0.3 if self.reads > 3 else 0)
        return b"1,2\\n" * 300_000 if self.reads < 50 else b""

def reading():
    '''Read.'''
    builtins.kept = csv.open_csv(
        pa.PythonFile(Slow(), mode="r"), csv.ReadOptions(block_size=2**20)
    )
    builtins.kept.read_next_batch()
    print("read")

"""
AS_A_COMMAND = "from release.commands.command import run_command; run_command({})"


def run_code(code: str, output: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )


def test_a_thread_of_arrow_does_not_abort_a_command_that_is_done() -> None:
    assert run_code(f"{READS_AHEAD}reading()").returncode < 0  # else this tests nothing
    ended = run_code(READS_AHEAD + AS_A_COMMAND.format("reading"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "read\n", "")


@pytest.mark.parametrize(
    ("body", "code", "err"),
    [
        ("pass", 0, ""),
        ("raise UserError('no such thing')", 2, "error: no such thing\n"),
        ("raise SystemExit(1)", 1, ""),
        ("raise KeyboardInterrupt", 130, "interrupted: rerun the same command to go on\n"),
        ("raise RuntimeError('a fault of ours')", 1, "RuntimeError: a fault of ours\n"),
    ],
)
def test_exit_code_output_and_what_is_registered_stay(body: str, code: int, err: str) -> None:
    ended = run_code(
        "import atexit, threading, time\nfrom release.errors import UserError\n"
        "def example():\n"
        "    '''Example.'''\n"
        "    atexit.register(print, 'registered')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('waited for'))).start()\n"
        "    print('printed')\n"
        f"    {body}\n" + AS_A_COMMAND.format("example")
    )
    assert (ended.returncode, ended.stdout) == (code, "printed\nwaited for\nregistered\n")
    assert ended.stderr.endswith(err)
    assert bool(ended.stderr) == bool(err)


def test_an_output_that_takes_no_more_is_told() -> None:
    example = "def example():\n    '''Example.'''\n    print('printed')\n"
    with Path("/dev/full").open("w") as full:
        ended = run_code(example + AS_A_COMMAND.format("example"), full.fileno())
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: No space left on device")
