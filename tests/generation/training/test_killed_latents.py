"""Trainings on latents, of a whole network and of a LoRA: killed by -9; with shards of weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builder.release.encode_command import encode
from tests.campaigns.train_latents_on_processes import SIDE, STEPS, TABLES
from tests.forked_commands import run
from tests.in_process import InProcess
from tests.models.tiny_models import save_sdxl
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    images = np.stack([paint(i % 4, i, 16, 10) for i in range(40)])[:, ::2, ::2]
    write_release(folder / "real", {"train": [images[:20], images[20:]]}, "real", "shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    save_sdxl(folder / "sdxl")
    with pytest.MonkeyPatch.context() as patch:
        InProcess(patch)
        encode(
            str(folder / "real"),
            str(folder / "sdxl"),
            **{"config": str(SIDE), "name": "sdxl", "mirrored": True, "as_json": True},
        )
    program = ["python", "-m", "tests.campaigns.train_latents_on_processes", folder]
    ended = run(program, CUDA_VISIBLE_DEVICES="", XDG_CACHE_HOME=str(folder / "cache"))
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)) == 5
    return folder


def state(runs: Path, kind: str, name: str) -> dict[str, Any]:
    return dict(torch.load(runs / kind / name / "state.pt", weights_only=True))


def leaves(content: Any) -> Iterator[Tensor]:
    if isinstance(content, dict):
        for key in content:
            yield from leaves(content[key])
    elif isinstance(content, Tensor):
        yield content


@pytest.mark.parametrize("kind", TABLES)
def test_killed_five_times_it_ends_as_undisturbed(runs: Path, kind: str) -> None:
    """To the bit on one process, to float rounding where their number changes each time."""
    whole, same, other = (state(runs, kind, name) for name in ("1", "same", "other"))
    assert whole["step"] == same["step"] == other["step"] == STEPS
    pairs = [*zip(leaves(whole), leaves(same), strict=True)]
    assert len(pairs) > 100
    assert all(torch.equal(one, found) for one, found in pairs)
    torch.testing.assert_close(other["losses"]["loss"], whole["losses"]["loss"], rtol=1e-4, atol=0)
    for part in ("modules", "averages"):
        for one, found in zip(leaves(other[part]), leaves(whole[part]), strict=True):
            torch.testing.assert_close(one, found, rtol=1e-3, atol=2e-5)
    moved = [
        float((one - average).abs().max())
        for one, average in zip(leaves(whole["modules"]), leaves(whole["averages"]), strict=True)
    ]
    assert max(moved) > 1e-3  # the tolerance is below what training changes


def test_two_processes_with_shards_save_what_two_without_do_to_the_bit(runs: Path) -> None:
    whole, shards = state(runs, "sit", "2"), state(runs, "sit", "full")
    for part in ("modules", "averages", "optimizers", "losses"):
        for one, other in zip(leaves(whole[part]), leaves(shards[part]), strict=True):
            assert torch.equal(one, other), part
