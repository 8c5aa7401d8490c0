"""Files are there whole or not at all, and what a killed writer left is taken up by the next."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from release.files.commit import write_atomically, write_stream_atomically
from tests.conftest import ROOT

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from release.files.commit import write_stream_atomically
def write(stream):
    stream.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
write_stream_atomically(Path(sys.argv[1]), write)
"""


def test_what_a_killed_writer_left_is_taken_up(tmp_path: Path):
    path = tmp_path / "file"
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(path)]
    subprocess.run(command, cwd=ROOT, check=False)
    assert len(list(tmp_path.iterdir())) == 1  # half a file, hidden
    write_atomically(path, b"whole")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"whole")]


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for target in (outside, tmp_path / "absent"):
        (tmp_path / "release").mkdir(exist_ok=True)
        (tmp_path / "release/.build.json.tmp").symlink_to(target)
        write_atomically(tmp_path / "release/build.json", b"new")
        assert (tmp_path / "release/build.json").read_bytes() == b"new"
        assert not (tmp_path / "release/build.json").is_symlink()
        (tmp_path / "release/.build.json.tmp").unlink()
    assert outside.read_text() == "mine"
    assert not (tmp_path / "absent").exists()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path):
    path = tmp_path / "file"
    inside, go_on = threading.Event(), threading.Event()

    def slowly(stream) -> None:
        stream.write(b"slow")
        inside.set()
        assert go_on.wait(30)

    slow = threading.Thread(target=write_stream_atomically, args=(path, slowly))
    slow.start()
    assert inside.wait(30)
    write_atomically(path, b"quick")
    assert path.read_bytes() == b"quick"
    go_on.set()
    slow.join()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"slow")]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail(stream) -> None:
        stream.write(b"half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_stream_atomically(path, fail)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"before")]


def test_a_file_respects_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"whole")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
