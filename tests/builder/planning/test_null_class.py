"""Guidance needs a null class that a training has shown, or a weaker network."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from builder.planning.checkpoints import locate_guides
from builder.planning.recipe import StageRecipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.pretrained.training_data import knows_no_null
from release.errors import UserError
from tests.conftest import ROOT


def record(folder: Path, start: str | None = None, **training: Any) -> Path:
    """A checkpoint's folder that says so of its training."""
    content = {"recipe": {"training": training}, "start_sha256": start}
    (folder / "training.json").write_text(json.dumps(content))
    return folder


def test_guidance_without_a_class_that_was_ever_left_out_is_refused(tmp_path: Path) -> None:
    def stage(guidance: float) -> StageRecipe:
        sampler = SamplerConfig(guidance=guidance)
        found = SimpleNamespace(guide=None, sampler=sampler, checkpoint="runs/adm/checkpoint")
        return cast(StageRecipe, found)

    folder = record(tmp_path, class_dropout=0.0)
    with pytest.raises(UserError, match=r"runs/adm/checkpoint was .* guidance = 3 has nothing"):
        locate_guides([stage(3)], [folder])
    assert locate_guides([stage(1)], [folder]) == [None]
    assert locate_guides([stage(3)], [record(tmp_path, class_dropout=0.1)]) == [None]


def test_what_a_start_has_seen_is_not_known(tmp_path: Path) -> None:
    assert not knows_no_null(tmp_path)
    assert not knows_no_null(record(tmp_path, "0" * 64, caption_dropout=0.0))
    assert knows_no_null(record(tmp_path, caption_dropout=0.0))
    assert not knows_no_null(ROOT / "generation/checkpoints/fashion-mnist-16")
