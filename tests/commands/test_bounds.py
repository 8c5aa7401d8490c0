"""Counts and sizes that no machine holds are one line at once, before anything is allocated."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from builder.builds.planned import planned_release
from builder.dry_run import print_plan
from builder.making import Wanted
from builder.planning.plan import MOST_SHARDS, BuildRequest, plan_blocks
from builder.planning.recipe import ShardRecipe, load_recipe
from cards.drawing.sample_grid import read_groups
from cards.render_card import render_card
from release.classes.class_list import load_classes
from release.commands.toml_recipes import recipe_names_in
from release.errors import UserError
from release.layout.image_sets import decode_rgb, load_images
from release.streaming.encoded import index_images
from tests.sets.shapes import make_images, png, write_release

TOO_MANY = "take more than 200,000 shards of 10 classes x 25 images a stage"


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes whose header says that it is side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """A release whose second image claims 50,000 x 50,000 pixels."""
    data = make_images(2, 0)
    encoded = [png(image) for image in data.images]
    encoded[1] = huge_png(50_000)
    splits = {"train": data}
    return write_release(tmp_path / "bomb", splits, kind="synthetic", encoded={"train": encoded})


@pytest.mark.parametrize("per_class", [10**8, 10**9, 2**62])
def test_a_plan_of_too_many_images_is_refused_at_once(per_class: int):
    recipe, classes = load_recipe("fashion-mnist"), load_classes("fashion-mnist")
    with pytest.raises(UserError, match=TOO_MANY):
        plan_blocks(recipe, classes, [BuildRequest(tuple(c.wnid for c in classes), per_class)])


def test_a_dry_run_of_too_many_images_calibrates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("builder.dry_run.calibrate", lambda *_: pytest.fail("calibrates"))
    recipe, classes = load_recipe("fashion-mnist"), load_classes("fashion-mnist")
    wanted = Wanted(recipe, recipe.chain(None), classes, classes, 10**9)
    with pytest.raises(UserError, match=TOO_MANY):
        print_plan(wanted, tmp_path, True)


@pytest.mark.parametrize("earlier", [0, 1, 24, 25, 26, 50])
def test_blocks_are_counted_before_they_are_made(earlier: int, monkeypatch: pytest.MonkeyPatch):
    recipe, classes = load_recipe("fashion-mnist"), load_classes("fashion-mnist")
    wnids = tuple(c.wnid for c in classes)
    requests = [BuildRequest(wnids[:7], earlier), BuildRequest(wnids, 77)]
    blocks = len(plan_blocks(recipe, classes, requests))
    monkeypatch.setattr("builder.planning.plan.MOST_SHARDS", blocks)
    assert len(plan_blocks(recipe, classes, requests)) == blocks
    monkeypatch.setattr("builder.planning.plan.MOST_SHARDS", blocks - 1)
    with pytest.raises(UserError, match=f"more than {blocks - 1} shards"):
        plan_blocks(recipe, classes, requests)


def test_a_plan_of_twice_imagenet_is_made():
    recipe, classes = load_recipe("imagenet-if"), load_classes("imagenet-1k")
    blocks = plan_blocks(recipe, classes, [BuildRequest(tuple(c.wnid for c in classes), 2600)])
    assert sum(block.rows for block in blocks) == 2_600_000
    assert len(blocks) < MOST_SHARDS / 10


def test_a_manifest_with_such_a_count_is_refused(tmp_path: Path):
    from dataclasses import replace

    from release.layout.manifest import read_manifest

    recipe = load_recipe("fashion-mnist")
    wnids = [c.wnid for c in load_classes("fashion-mnist")]
    folder = write_release(tmp_path / "many", {"train": make_images(1, 0)}, kind="synthetic")
    origin = {
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "stages": [
            {"resolution": r, "checkpoint_sha256": "c", "fingerprint": "f"} for r in (16, 32)
        ],
        "requests": [{"classes": wnids, "per_class": 10**9}],
    }
    manifest = replace(read_manifest(folder), origin=origin, classes=load_classes("fashion-mnist"))
    manifest.write(folder)
    with pytest.raises(UserError, match=f"the manifest of many: .*{TOO_MANY}"):
        planned_release(read_manifest(folder))


def test_a_shard_of_too_many_rows_is_refused():
    with pytest.raises(ValueError, match="at most 1,000,000 images"):
        ShardRecipe(classes=10**5, indices=10**5)


def test_every_recipe_of_ours_fits():
    from builder.planning.recipe import BUILTIN

    for name in recipe_names_in(BUILTIN):
        assert load_recipe(name).shard.classes


def test_a_card_of_a_million_images_a_class_is_refused(bomb: Path):
    with pytest.raises(UserError, match="--per-class 1000000: a picture holds 1 to 100"):
        render_card(str(bomb), per_class=1_000_000)


def test_an_image_too_large_to_decode_is_named(bomb: Path):
    wanted = r"image i00001: cannot be decoded: Image size .2500000000 pixels. exceeds limit"
    with pytest.raises(UserError, match=wanted):
        load_images(bomb, "16", "train")
    with pytest.raises(UserError, match=wanted):
        read_groups(bomb)
    images = index_images(bomb, "16", "train")
    with pytest.raises(UserError, match=wanted):
        images.image(1)


def test_an_image_larger_than_its_configuration_is_named_before_there_is_room_for_all(
    tmp_path: Path,
):
    data = make_images(2, 0)
    encoded = [png(np.zeros((64, 64, 3), np.uint8)), *(png(image) for image in data.images[1:])]
    release = write_release(tmp_path / "large", {"train": data}, encoded={"train": encoded})
    with pytest.raises(UserError, match="image i00000: is 64 x 64, larger than its configuration"):
        load_images(release, "16", "train")


def test_images_as_they_come_are_decoded():
    assert decode_rgb(png(np.zeros((300, 200, 3), np.uint8))).size == (200, 300)
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_rgb(io.BytesIO(huge_png(2)).getvalue())
