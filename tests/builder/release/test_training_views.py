"""`release view`: small JPEGs of a finished release that follow from it, file by file."""

import io
import json
import os
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image, JpegImagePlugin

from builder.build_dataset import build_dataset
from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.checks.views import SAMPLED
from builder.release.command import repair
from builder.release.publish import quick_problems
from builder.release.verify import verify_release
from builder.release.view_command import view
from builder.shards import view_shard
from cards.card.body import card_body
from cards.card.croissant import croissant_document
from cards.drawing.sample_grid import read_groups
from cards.measured.release_facts import release_facts
from cards.render_card import picture_names
from classifiers.data.sources import describe, index_source, open_source
from metrics.features.image_lists import open_image_set
from release.classes.class_list import load_classes
from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import release_path
from release.images.decoding import decode_rgb
from release.images.views import shrink
from release.layout import training_views
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest
from release.layout.readme import write_readme
from release.layout.shard_commit import marker_path
from release.layout.training_views import jpeg_codec
from tests.builder.imports.serial_import import SerialImport
from tests.campaigns.killing import POINTS, killed_at, temporaries
from tests.conftest import release_bytes, state_facts
from tests.forked_commands import run
from tests.in_process import InProcess
from tests.servers.faulty_store import BUCKET
from tests.sets.shapes import encode_table

NAME = "16-jpeg"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(monkeypatch)


def build(recipe_file: Path, release: Any, per_class: int = 4, file_format: str = "") -> None:
    recipe = load_recipe(str(recipe_file))
    if file_format:
        recipe = recipe.model_copy(update={"format": file_format})
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.chain(None), classes, per_class, release)
    build_release(plan, RunSettings(), lambda _: None)


@pytest.fixture
def told(stand_in_recipe: Path, tmp_path: Path) -> Path:
    path = tmp_path / "told.toml"
    path.write_text(state_facts(stand_in_recipe.read_text()))
    return path


@pytest.fixture
def release(here: InProcess, told: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    build(told, folder)
    here.made.clear()
    return folder


def make(release: Any, size: int = 16, **settings: Any) -> None:
    view(str(release), size=size, as_json=True, **settings)


def problems(release: Any) -> list[str]:
    report = verify_release(release, read_manifest(release), 2, lambda _: None)
    return [str(problem) for problem in report.problems]


def rows(release: Path, config: str) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted((release / config).glob("*.parquet"))]
    return sorted(
        (row for table in tables for row in table.to_pylist()), key=lambda row: row["image_id"]
    )


def files(release: Path, config: str = NAME) -> list[str]:
    return [record.path for record in read_manifest(release).shards if record.config == config]


def test_a_view_holds_the_same_rows_with_small_jpegs(release: Path) -> None:
    before = read_manifest(release)
    make(release)
    manifest = read_manifest(release)
    source, derived = rows(release, "32"), rows(release, NAME)
    assert len(derived) == 12
    for ours, theirs in zip(source, derived, strict=True):
        content = theirs.pop("image")["bytes"]
        original = decode_rgb(ours.pop("image")["bytes"])
        assert theirs == ours
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (16, 16), "RGB")
            assert b"trainedAlgorithmicMedia" in image.info["xmp"]
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
            wanted = np.asarray(original.resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
            assert np.abs(np.asarray(image).astype(int) - wanted).max() <= 3
    assert manifest.content_sha256 == before.content_sha256
    assert [s for s in manifest.shards if s.config != NAME] == list(before.shards)
    assert manifest.origin["training_views"] == [
        {
            "name": NAME, "source": "32", "size": 16, "rule": "short-side", "encoding": "jpeg",
            "quality": 95, "subsampling": "4:4:4", "codec": jpeg_codec(),
        }
    ]  # fmt: skip
    assert problems(release) == []
    text = (release / "README.md").read_text()
    assert (
        f"- `{NAME}`: train 12 images, derived from 32: short side 16 px, JPEG quality 95" in text
    )


def test_it_is_loaded_by_its_name(release: Path, tmp_path: Path) -> None:
    make(release)
    loaded = load_dataset(str(release), NAME, split="train", cache_dir=str(tmp_path / "cache"))
    assert (len(loaded), loaded[0]["image"].size) == (12, (16, 16))
    highest = load_dataset(str(release), split="train", cache_dir=str(tmp_path / "cache"))
    assert highest[0]["image"].size == (32, 32)


def test_rerun_goes_on_where_it_was_killed(release: Path, here: InProcess, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(release, tmp_path / "whole" / "release"))
    make(whole)
    before = read_manifest(release).shards
    here.left, here.made = 1, []
    with pytest.raises(KeyboardInterrupt):
        make(release)
    assert read_manifest(release).shards == before
    assert problems(release) == []
    here.left, here.made = float("inf"), []
    make(release)
    assert len(here.made) == 1
    assert release_bytes(release) == release_bytes(whole)
    make(release)  # all is there
    assert len(here.made) == 1


def test_a_release_that_grows_leaves_its_view_behind(
    release: Path, told: Path, here: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    make(release)
    old = release_bytes(release)
    build_dataset(recipe=str(told), per_class=8, out=str(release))
    assert f"training view {NAME} lags behind 32: 2 of its 4 files" in capsys.readouterr().err
    (found,) = problems(release)
    assert found.startswith(f"{NAME}: lags behind 32: 2 of its 4 files have no view yet; run ")
    assert f"--size 16 --quality 95 --subsampling 4:4:4 --from 32 --name {NAME}" in found
    assert [p.text for p in quick_problems(release, read_manifest(release))] == [found[9:]]
    for opened in (
        lambda: open_source(f"{release}:{NAME}", 16),
        lambda: open_image_set(release, NAME, "train"),
    ):
        with pytest.raises(UserError, match="training view 16-jpeg of release lags behind 32"):
            opened()
    assert open_source(f"{release}:32", 32).images == 24
    here.made.clear()
    make(release)
    assert (len(here.made), problems(release)) == (2, [])
    assert all(release_bytes(release)[n] == d for n, d in old.items() if n.startswith(NAME))


def test_other_settings_need_another_name(release: Path) -> None:
    make(release)
    with pytest.raises(UserError, match=r"has a view 16-jpeg, derived from 32: .* with --name"):
        make(release, quality=80)
    make(release, quality=80, name="small", subsampling="4:2:0", source="16", size=8)
    assert list(read_manifest(release).splits()) == ["8", "16", "32", NAME, "small"]
    assert problems(release) == []


def test_another_codec_makes_all_of_it_again(
    release: Path, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(release)
    first = files(release)
    here.made.clear()
    for module in (training_views, view_shard):
        monkeypatch.setattr(module, "jpeg_codec", lambda: "Pillow 99, libjpeg-turbo 9")
    make(release)
    assert sorted(here.made) == sorted(files(release))
    assert not set(first) & set(files(release))
    assert not any(
        (release / path).exists() or marker_path(release, path).exists() for path in first
    )
    assert problems(release) == []  # its pixels are alike, whatever the library is called
    assert "*" in (release / "README.md").read_text()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_write_it_loads_and_goes_on(
    release: Path, point: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While another codec makes all of it again, so that files come, are listed and go."""
    make(release)
    whole = Path(shutil.copytree(release, tmp_path / "whole" / "release"))
    for module in (training_views, view_shard):
        monkeypatch.setattr(module, "jpeg_codec", lambda: "Pillow 99, libjpeg-turbo 9")
    make(whole)
    number = 1
    while killed_at(number, point, lambda: make(release)):
        listed = {record.path for record in read_manifest(release).shards}
        found = [text.split(": ")[0] for text in problems(release)]
        assert not listed & set(found)  # files without a marker and README are the rerun's to mend
        number += 1
    assert number >= 5
    assert release_bytes(release) == release_bytes(whole)
    assert not temporaries(release)


def test_a_worker_with_another_codec_is_one_line(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(release)
    asked = training_views.new_view(manifest, 16, 95, "4:4:4", None, None)
    job = view_shard.plan_view(release, manifest, asked)[0]
    for module in (training_views, view_shard):
        monkeypatch.setattr(module, "jpeg_codec", lambda: "Pillow 99, libjpeg-turbo 9")
    with pytest.raises(UserError, match=r"worker has Pillow 99, .* this view is made by Pillow 1"):
        job.run()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"size": 0}, "--size 0: give 1 to"),
        ({"size": 64}, "--size 64: images of 32 are smaller"),
        ({"quality": 101}, "--quality 101: give 1 to 100"),
        ({"subsampling": "4:1:1"}, "unknown subsampling '4:1:1'; known: 4:2:0, 4:2:2, 4:4:4"),
        ({"source": "64"}, "unknown configuration of release '64'; known: 16, 32, 8"),
        ({"name": "32"}, "--name '32': give letters, digits"),
        ({"name": "../up"}, "--name '../up': give letters, digits"),
        ({"name": "index"}, "--name 'index': give letters, digits"),
        ({"name": "halfway"}, "--name 'halfway': give letters, digits"),
        ({"name": "_earlier"}, "--name '_earlier': give letters, digits"),
    ],
)
def test_bad_options_are_one_line(release: Path, settings: dict[str, Any], line: str) -> None:
    before = release_bytes(release)
    with pytest.raises(UserError) as found:
        make(release, **settings)
    assert line in str(found.value)
    assert "\n" not in str(found.value)
    assert release_bytes(release) == before


def rewrite_rows(release: Path, path: str, change: Any) -> None:
    """Change the rows of a file, marker and manifest with it: only its source can tell."""
    table = pq.read_table(release / path)
    columns = table.to_pydict()
    columns["image"] = [image["bytes"] for image in columns["image"]]
    change(columns)
    (release / path).write_bytes(encode_table(table.schema, columns))
    manifest = read_manifest(release)
    old = next(record for record in manifest.shards if record.path == path)
    sha256 = sha256_file(release / path)
    new = replace(old, bytes=(release / path).stat().st_size, sha256=sha256)
    marker = json.loads(marker_path(release, path).read_text())
    marker_path(release, path).write_text(json.dumps(marker | {"shard": vars(new)}))
    manifest = replace(manifest, shards=tuple(new if s == old else s for s in manifest.shards))
    write_readme(release, manifest)
    documents = {"README.md": sha256_file(release / "README.md")}
    replace(manifest, documents=documents).write(release)


def test_verify_makes_images_again_from_their_source(release: Path) -> None:
    make(release)
    path = files(release)[0]

    def swap(columns: dict[str, list[Any]]) -> None:
        columns["image"] = columns["image"][::-1]

    rewrite_rows(release, path, swap)
    found = problems(release)
    assert len(found) == 1
    assert "image is not what its source gives: its bytes are others" in found[0]
    assert SAMPLED >= 4


def test_verify_compares_rows_with_the_source(release: Path) -> None:
    make(release)

    def change(columns: dict[str, list[Any]]) -> None:
        columns["seed"][1] += 1

    rewrite_rows(release, files(release)[1], change)
    assert ["seed is not the source's in 1 of " in text for text in problems(release)] == [True]


def test_repair_makes_a_damaged_file_again_and_no_more(release: Path, here: InProcess) -> None:
    make(release)
    before = release_bytes(release)
    (release / files(release)[1]).write_bytes(b"damaged")
    marker_path(release, files(release)[0]).unlink()
    here.made.clear()
    repair(str(release), trust=["tests.stand_in"], as_json=True)
    assert sorted(here.made) == sorted(files(release)[:2])
    assert release_bytes(release) == before


def test_repair_of_a_source_leaves_the_view_whole(release: Path, here: InProcess) -> None:
    make(release)
    before = release_bytes(release)
    (release / files(release, "32")[1]).write_bytes(b"damaged")
    os.truncate(release / files(release)[0], 100)
    here.made.clear()
    repair(str(release), trust=["tests.stand_in"], as_json=True)
    assert sorted(here.made) == sorted([files(release, "32")[1], files(release)[0]])
    assert release_bytes(release) == before


def test_a_source_that_was_changed_is_one_line(release: Path) -> None:
    content = bytearray((release / files(release, "32")[0]).read_bytes())
    content[200] ^= 1
    (release / files(release, "32")[0]).write_bytes(content)
    with pytest.raises(UserError, match=r"parquet is not the file that its manifest lists"):
        make(release)


def test_what_a_stranger_states_of_a_view_is_checked(release: Path) -> None:
    make(release)
    manifest = read_manifest(release)
    (stated,) = manifest.origin["training_views"]
    names = [("name", "../x"), ("name", "32"), ("source", "../y")]
    for key, value in (*names, ("codec", "<b>\n# x"), ("rule", "x"), ("quality", 101)):
        origin = manifest.origin | {"training_views": [stated | {key: value}]}
        replace(manifest, origin=origin).write(release)
        with pytest.raises(UserError, match=rf"cannot be read: origin\.training_views 1: {key}: "):
            read_manifest(release)


def test_a_release_without_its_state_is_one_line(release: Path) -> None:
    (release / "build.json").unlink()
    with pytest.raises(UserError, match=r"lacks build\.json: run `release repair` first"):
        make(release)


@pytest.mark.usefixtures("here")
def test_arrow_releases_have_arrow_views(told: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mapped"
    folder.mkdir()
    build(told, folder, file_format="arrow")
    make(folder)
    assert all(path.startswith(f"{NAME}/train/data-") for path in files(folder))
    assert problems(folder) == []
    data = index_source(open_source(f"{folder}:{NAME}", 16), lambda _: None)
    assert [data.image(row).size for row in range(3)] == [(16, 16)] * 3


@pytest.mark.usefixtures("here", "s3")
def test_behind_a_url(told: Path) -> None:
    url = release_path(f"s3://{BUCKET}/views/release")
    build(told, url)
    make(url)
    assert problems(url) == []
    assert len(files(url)) == 2


def test_a_training_sees_the_same_images_in_the_same_order(release: Path) -> None:
    make(release)
    base = index_source(open_source(f"{release}:32", 32), lambda _: None)
    source = open_source(f"{release}:{NAME}", 32)
    data = index_source(source, lambda _: None)
    assert data.image_ids == base.image_ids
    assert (data.labels == base.labels).all()
    told = describe(source, len(data))
    assert told["derived"]["source"] == "32"
    assert open_image_set(release, NAME, "train").identity["derived"] == told["derived"]
    assert "derived" not in describe(open_source(f"{release}:32", 32), len(data))


def test_card_croissant_and_leaderboard_name_it_as_derived(release: Path) -> None:
    make(release)
    manifest = read_manifest(release)
    body = card_body(manifest, picture_names(read_groups(release)), None, "./r", date(2026, 1, 2))
    said = "`16-jpeg` is derived from 32: short side 16 px, JPEG quality 95, 4:4:4, by Pillow"
    assert said in body
    assert "Sizes are those the chain makes (8, 16, 32 px)" in body
    document = croissant_document(release, manifest, None, date(2026, 1, 2))
    record_set = next(r for r in document["recordSet"] if r["@id"] == NAME)
    (source,) = record_set["prov:wasDerivedFrom"]
    assert source["identifier"] == "32"
    assert "quality 95" in record_set["prov:wasGeneratedBy"]["description"]
    facts = release_facts([release], [])
    content = manifest.content_sha256
    assert facts[content, NAME] == facts[content, "32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in colour, of many shapes: tall, wide, tiny, grey, transparent, turned."""
    root, random = tmp_path / "photos", np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = root / split / name / f"im {i:02d}.a.{'jpg' if i % 2 else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = [(40, 24, 3), (24, 60, 3), (9, 7, 3), (30, 30), (50, 20, 4)][i % 5]
                image = Image.fromarray(random.integers(256, size=shape, dtype=np.uint8))
                exif = Image.Exif()
                exif[0x0112] = 6 if i == 7 else 1
                if path.suffix == ".jpg":
                    image = image.convert("RGB")
                image.save(path, exif=exif)
    return root


@pytest.fixture
def real(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Path, SerialImport]:
    importing = SerialImport(monkeypatch)
    importing(photos, tmp_path / "real")
    return tmp_path / "real", importing


@pytest.mark.usefixtures("here")
def test_real_images_keep_their_shape_and_are_never_enlarged(
    real: tuple[Path, SerialImport],
) -> None:
    release, _ = real
    make(release)
    derived = {row["image_id"]: row for row in rows(release, NAME)}
    for row in rows(release, "original"):
        ours = derived[row["image_id"]]
        original = decode_rgb(row["image"]["bytes"])
        image = Image.open(io.BytesIO(ours["image"]["bytes"]))
        assert min(image.size) == min(16, *original.size)
        assert abs(image.width / image.height - original.width / original.height) < 0.1
        assert "xmp" not in image.info
        assert (ours["crop_rule"], ours["tuning"]) == ("short-side", row["tuning"])
        assert ours["original_sha256"] == row["original_sha256"]
    assert problems(release) == []
    assert open_source(f"{release}:{NAME}:tuning", 16).config == NAME
    data = index_source(open_source(f"{release}:{NAME}:tuning", 16), lambda _: None)
    assert data.image_ids == load_images(release, "8", "tuning").image_ids


def test_a_changed_source_leaves_the_view_of_its_file_behind(
    real: tuple[Path, SerialImport], photos: Path, here: InProcess
) -> None:
    release, importing = real
    make(release)
    kept = next(path for path in files(release) if "/test-" in path)
    Image.new("RGB", (33, 44), "red").save(photos / "train" / "cat" / "im 00.a.png")
    importing(photos, release)
    assert files(release) == [kept]
    assert not (set(map(str, release.glob(f"{NAME}/*"))) - {str(release / kept)})
    assert problems(release)[0].startswith(f"{NAME}: lags behind original: 1 of its 2 files")
    here.made.clear()
    make(release)
    assert (len(here.made), problems(release)) == (1, [])
    importing(photos, release)  # nothing changed: the view stays
    assert problems(release) == []


def test_shrinking_is_torchvisions() -> None:
    """Of a PIL image, by the same rule: short side exact, long side rounded down."""
    from torchvision.transforms import InterpolationMode, Resize

    random = np.random.default_rng(1)
    for shape in ((333, 500, 3), (500, 375, 3), (256, 900, 3), (300, 300, 3)):
        image = Image.fromarray(random.integers(256, size=shape, dtype=np.uint8))
        wanted = Resize(256, InterpolationMode.BICUBIC)(image)
        assert np.array_equal(np.asarray(shrink(image, 256)), np.asarray(wanted))


def test_the_command_on_a_cluster(release: Path) -> None:
    result = run(["release", "view", release, "--size", "16", "--workers", "1"])
    assert result.returncode == 0, result.stderr
    assert "16-jpeg, derived from 32: short side 16 px" in result.stdout
    assert "view: 12 of 12 images" in result.stderr
    assert problems(release) == []
