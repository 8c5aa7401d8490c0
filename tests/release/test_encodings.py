"""Encodings: of the resolution that was asked for; a parent is always lossless."""

import io
from pathlib import Path

import pytest
from PIL import Image

from builder.builds.build import estimate_rest, plan_build
from builder.planning.recipe import Recipe, load_recipe
from builder.release.verify import verify_release
from release.classes.class_list import load_classes
from release.images.decoding import is_marked_synthetic
from release.layout.manifest import read_manifest
from release.layout.shard_files import read_shard
from tests.forked_commands import run

FORMATS = {"webp-lossless": "WEBP", "png": "PNG", "jpeg": "JPEG"}


def write_recipe(stand_in: Path, folder: Path, encoding: str) -> Path:
    path = folder / f"{encoding}.toml"
    path.write_text(f'encoding = "{encoding}"\n{stand_in.read_text()}')
    return path


def build(recipe: Path, out: Path, res: int) -> list[str | Path]:
    command = ["build-dataset", "--recipe", recipe, "--res", str(res), "--per-class", "1"]
    return [*command, "--out", out, "--workers", "1", "--json"]


def found(release: Path, config: str) -> set[tuple[str | None, bool]]:
    """Format of each image, and whether it says that it is synthetic."""
    marks = set()
    for record in read_manifest(release).shards:
        if record.config == config:
            for row in read_shard(release / record.path, ["image"])["image"].to_pylist():
                with Image.open(io.BytesIO(row["bytes"])) as image:
                    marks.add((image.format, is_marked_synthetic(image)))
    return marks


def problems(release: Path) -> list[str]:
    report = verify_release(release, read_manifest(release), 1, lambda _: None)
    return list(map(str, report.problems))


@pytest.mark.parametrize("encoding", FORMATS)
def test_the_last_stage_asked_for_is_encoded_as_the_recipe_says(
    stand_in_recipe: Path, tmp_path: Path, encoding: str
):
    recipe, release = write_recipe(stand_in_recipe, tmp_path, encoding), tmp_path / "release"
    result = run(build(recipe, release, 16))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no cost is stated or measured yet, and nothing is said of it
    assert found(release, "8") == {("WEBP", True)}
    assert found(release, "16") == {(FORMATS[encoding], True)}
    assert problems(release) == []
    before = {p: p.read_bytes() for p in release.glob("*/*.parquet")}
    result = run(build(recipe, release, 32))
    if encoding == "jpeg":
        assert result.returncode == 2
        assert result.stderr == (
            f"error: {release} ends at 16 px in JPEG, and a parent must be lossless: build 32 px "
            "in another --out, or with encoding webp-lossless or png from the start\n"
        )
    else:
        assert result.returncode == 0, result.stderr
        assert found(release, "32") == {(FORMATS[encoding], True)}
    assert {p: p.read_bytes() for p in before} == before
    assert problems(release) == []


def test_a_longer_chain_has_lossless_parents(stand_in_recipe: Path, tmp_path: Path):
    recipe = load_recipe(str(write_recipe(stand_in_recipe, tmp_path, "jpeg")))
    assert planned_encodings(recipe, 32, tmp_path) == ["webp-lossless", "webp-lossless", "jpeg"]
    assert planned_encodings(recipe, 8, tmp_path) == ["jpeg"]
    assert planned_encodings(recipe.lossless(), 8, tmp_path) == ["webp-lossless"]


def planned_encodings(recipe: Recipe, res: int, folder: Path) -> list[str]:
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.chain(res), classes, 1, folder / "release")
    sizes = [round(estimate.cost.bytes) for estimate in estimate_rest(plan, {})]
    assert sizes == [
        round({"webp-lossless": 2.0, "jpeg": 0.9}[s.encoding] * s.recipe.resolution**2)
        for s in plan.stages
    ]
    return [stage.encoding for stage in plan.stages]
