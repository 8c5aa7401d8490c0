"""The environment in which a command finds a test's Hub."""

import os
from pathlib import Path

from tests.conftest import ROOT


def environment(address: str, home: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_test",
        "HF_HOME": str(home),
    }
