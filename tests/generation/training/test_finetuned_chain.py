"""A chain of a base that finetune-generator made and an upscaler that nobody fine-tuned."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from builder.builds.build import plan_build, write_release
from builder.builds.run import Outcome
from builder.planning.recipe import load_recipe
from cards.card.body import card_body
from cards.drawing.sample_grid import read_groups
from cards.render_card import picture_names
from generation.families.pixel_unet.checkpoint import save_checkpoint
from release.classes.class_list import load_classes
from release.environment import own_environment
from release.layout.image_sets import decode
from release.layout.shard_commit import committed_records
from tests.generation.families.references.tiny_deepfloyd import save_super_resolution, save_upscaler
from tests.models.tiny_network import tiny_network

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute")

RECIPE = """
name = "fine-tuned"
description = "a fine-tuned base, upscalers as published"
classes = "{folder}/two.csv"
dataset = "test"
regime = "B"
license = "other"

[shard]
classes = 2
indices = 2

[[stage]]
resolution = 8
generator = "pixel-unet"
checkpoint = "{folder}/base"
batch = 3
sampler = {{ steps = 3, guidance = 1.5 }}
sampler_source = "a test's"
model = {{ name = "Tiny base", license = "other", images = "nothing", source = "a test" }}

[[stage]]
resolution = 32
regime = "A"
generator = "deepfloyd-if"
checkpoint = "{folder}/if-2"
batch = 3
sampler = {{ steps = 3, threshold = "dynamic" }}
sampler_source = "a test's"
model = {{ name = "Tiny second", license = "other", images = "nothing", source = "a test" }}

[[stage]]
resolution = 128
regime = "A"
generator = "deepfloyd-if"
checkpoint = "{folder}/x4"
batch = 2
sampler = {{ method = "ddim", steps = 2, threshold = "none" }}
sampler_source = "a test's"
model = {{ name = "Tiny third", license = "other", images = "nothing", source = "a test" }}
"""


def test_every_stage_follows_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 to 32 to 128 px, the factors of 64 to 256 to 1024; the base is of one channel, even."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_checkpoint(tiny_network(), tmp_path / "base", torch.float16)
    torch.manual_seed(0)
    save_super_resolution(tmp_path / "if-2")
    save_upscaler(tmp_path / "x4")
    (tmp_path / "two.csv").write_text("id,wnid,name,prompt\n0,b,Bag,bag\n1,c,Coat,coat\n")
    path = tmp_path / "chain.toml"
    path.write_text(RECIPE.format(folder=tmp_path))
    recipe = load_recipe(str(path))
    release = tmp_path / "release"
    plan = plan_build(recipe, recipe.stages, load_classes(recipe.classes), 2, release)
    for job in plan.jobs():
        job.run()
    before: dict[str, np.ndarray] = {}
    for side in (8, 32, 128):
        rows = pq.read_table(release / str(side)).to_pylist()
        assert len(rows) == 4
        images = {row["image_id"]: decode(row["image"]["bytes"]) for row in rows}
        assert {image.shape for image in images.values()} == {(side, side, 3)}
        assert len({image.tobytes() for image in images.values()}) == 4
        parents = {row["parent_image_id"] for row in rows}
        assert parents == (set(before) if before else {""})
        before = images
    records = committed_records(release, plan.shards)
    manifest = write_release(plan, Outcome(tuple(records.values()), (), (), (own_environment(),)))
    card = card_body(
        manifest, picture_names(read_groups(release)), None, "./release", date(2026, 1, 1)
    )
    base, second, third = card.split("\n### ")[1:]
    assert "regime" not in base
    assert all("never saw the real images of test (regime A)" in part for part in (second, third))
    assert "fine-tuned on real images of test (regime B)" in card
