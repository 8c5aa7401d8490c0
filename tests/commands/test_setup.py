"""setup.sh: what it says before the long wait and after it. Its installers are stand-ins here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_setup_says_what_it_takes_and_what_comes_next(tmp_path: Path) -> None:
    shutil.copy(ROOT / "setup.sh", tmp_path)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, ending in (("pip", "exit 0"), ("uv", 'exit "${BROKEN:-0}"')):
        (programs / name).write_text(f"#!/bin/sh\n{ending}\n")
        (programs / name).chmod(0o755)
    told = subprocess.run([tmp_path / "setup.sh"], capture_output=True, text=True, check=True)
    first, last = told.stdout.splitlines()
    assert "about 6.6 GB on disk" in first
    assert last.startswith("setup: done. Next: source .venv/bin/activate && build-dataset --recipe")
    assert last.rpartition("&& ")[2] in (ROOT / "README.md").read_text()
    with pytest.raises(subprocess.CalledProcessError) as broken:
        subprocess.run(
            [tmp_path / "setup.sh"],
            env={"BROKEN": "1", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert "done" not in broken.value.stdout
