"""An import follows its source: bad images are named, mended and replaced ones mend the release."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import ExifTags, Image

from builder.builds.run import Outcome, RunSettings
from builder.imports import jobs, layout, row_file
from builder.imports import release as real
from builder.imports.bad_images import BAD_IMAGES_FILE
from builder.release import repair
from builder.release.verify import verify_release
from builder.reporting import report_outcome
from cards.drawing.sample_grid import read_groups
from release.errors import UserError
from release.files.storage import list_files
from release.images.decoding import decode_rgb
from release.images.views import make_view
from release.layout.image_sets import load_images
from release.layout.manifest import MANIFEST_FILE, Manifest, read_manifest
from release.layout.shard_commit import marker_path
from release.layout.shard_files import iterate_shard
from release.real_sources.folder import FolderSplit
from release.real_sources.opening import open_source
from release.real_sources.tables import TableSplit
from tests.builder.imports.serial_import import SerialImport
from tests.conftest import release_bytes


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, train and test, colour and grey; names with a space and a second dot."""
    root = tmp_path / "photos"
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = root / split / name / f"im {i:02d}.a.{'jpg' if i % 2 else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = (20 + i, 30, 3) if i % 3 else (20 + i, 30)
                Image.fromarray(random.integers(256, size=shape, dtype=np.uint8)).save(path)
    return root


def rows_of(release: Path, config: str = "original") -> list[dict]:
    paths = sorted((release / config).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def require_agreement(photos: Path, release: Path, manifest: Manifest) -> None:
    """Every image of the source is there, once, and both configurations have its bytes."""
    report = verify_release(release, read_manifest(release), 1, lambda _: None)
    assert [str(problem) for problem in report.problems] == []
    rows = rows_of(release)
    left_out = {(b["split"], b["file"]) for b in manifest.origin.get("left_out", ())}
    files = {tuple(p.relative_to(photos).as_posix().split("/", 1)) for p in photos.glob("*/*/*")}
    found = {(row["image_id"].split("-")[0], row["file_name"]) for row in rows}
    assert found == files - left_out
    views = {row["image_id"]: row for row in rows_of(release, "8")}
    assert len(views) == len(rows)
    for row in rows:
        content = (photos / row["image_id"].split("-")[0] / row["file_name"]).read_bytes()
        assert row["image"]["bytes"] == content
        view = views[row["image_id"]]
        assert view["original_sha256"] == hashlib.sha256(content).hexdigest()
        expected = make_view(decode_rgb(content), 8, "center-crop")
        assert np.array_equal(np.asarray(decode_rgb(view["image"]["bytes"])), expected)


def truncate(path: Path) -> bytes:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def test_a_second_run_of_a_finished_import_makes_nothing(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    manifest = importing(photos, tmp_path / "out")
    require_agreement(photos, tmp_path / "out", manifest)
    assert importing(photos, tmp_path / "out") == manifest
    assert importing.made == []


def test_a_bad_image_stops_the_manifest_and_mending_it_goes_on(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    path = photos / "train" / "cat" / "im 01.a.jpg"
    content = truncate(path)
    with pytest.raises(UserError, match=r"1 of 30 images .* image cat/im 01.a.jpg of train cannot"):
        importing(photos, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()
    path.write_bytes(content)
    manifest = importing(photos, tmp_path / "out")
    assert {p.split("-")[0] for p in importing.made} == {"original/train", "8/train"}
    require_agreement(photos, tmp_path / "out", manifest)
    assert not (tmp_path / "out" / BAD_IMAGES_FILE).exists()
    assert manifest.shards == importing(photos, tmp_path / "fresh").shards


def test_what_may_pass_is_no_bad_image(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is written of an image counts until it changes, which a disk's trouble does not do."""
    release, whole, failing = tmp_path / "out", FolderSplit.read, [errno.EIO]

    def read(self: FolderSplit, i: int) -> bytes:
        if failing and self.key(i) == "cat/im 05.a.jpg":
            raise OSError(failing[0], os.strerror(failing[0]))
        return whole(self, i)

    monkeypatch.setattr(FolderSplit, "read", read)
    with pytest.raises(OSError, match=r"Input/output error: 'cat/im 05.a.jpg'"):
        importing(photos, release)
    failing[:] = [errno.EACCES]
    with pytest.raises(UserError, match=r"image cat/im 05.a.jpg of train .* read: Permission"):
        importing(photos, release)
    failing.clear()
    (photos / "train/cat/im 05.a.jpg").touch()  # so is a permission that was given
    manifest = importing(photos, release)
    assert manifest.shards == importing(photos, tmp_path / "fresh").shards


def test_a_bad_image_that_is_removed_leaves_a_whole_release(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    path = photos / "train" / "cat" / "im 01.a.jpg"
    truncate(path)
    with pytest.raises(UserError, match="cannot be imported"):
        importing(photos, tmp_path / "out")
    path.unlink()
    manifest = importing(photos, tmp_path / "out")
    assert all("train" in made for made in importing.made)
    require_agreement(photos, tmp_path / "out", manifest)
    assert manifest.shards == importing(photos, tmp_path / "fresh").shards


@pytest.mark.parametrize("change", ["replace", "add", "remove", "rename"])
def test_a_finished_release_follows_its_source(
    importing: SerialImport, photos: Path, tmp_path: Path, change: str
):
    importing(photos, tmp_path / "out")
    path = photos / "train" / "cat" / "im 01.a.jpg"
    if change == "replace":
        shutil.copy(photos / "train" / "dog" / "im 03.a.jpg", path)
    elif change == "add":
        shutil.copy(path, path.with_name("new.jpg"))
    elif change == "remove":
        path.unlink()
    else:
        path.rename(path.with_name("new.jpg"))
    manifest = importing(photos, tmp_path / "out")
    assert all("train" in made for made in importing.made)
    require_agreement(photos, tmp_path / "out", manifest)
    assert manifest.shards == importing(photos, tmp_path / "fresh").shards


def test_files_that_were_only_touched_come_out_the_same_and_no_view_is_made_again(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    manifest = importing(photos, tmp_path / "out")
    for path in photos.glob("*/*/*"):
        os.utime(path, (0, 0))
    assert importing(photos, tmp_path / "out") == manifest
    assert {made.split("/")[0] for made in importing.made} == {"original"}


def test_a_view_added_after_a_change_has_the_bytes_of_its_original(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    importing(photos, tmp_path / "out", [8])
    assert real.all_views(tmp_path / "out", [4]) == (4, 8)  # what progress counts
    shutil.copy(photos / "test/dog/im 01.a.jpg", photos / "test/cat/im 01.a.jpg")
    manifest = importing(photos, tmp_path / "out", [4])
    assert set(manifest.splits()) == {"original", "4", "8"}
    require_agreement(photos, tmp_path / "out", manifest)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_import_that_was_cut_between_original_and_views_goes_on(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    importing(photos, tmp_path / "out")
    shutil.copy(photos / "test/dog/im 01.a.jpg", photos / "test/cat/im 01.a.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "make_view", interrupt)
        with pytest.raises(KeyboardInterrupt):
            importing(photos, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()
    manifest = importing(photos, tmp_path / "out")
    assert {made.split("-")[0] for made in importing.made} == {"8/test"}
    require_agreement(photos, tmp_path / "out", manifest)


def test_a_source_that_changes_while_it_is_read_is_refused(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = photos / "train" / "cat" / "im 01.a.jpg"

    def changing(data: bytes, *, real: bool) -> Image.Image:
        os.utime(path, (0, 0))
        return decode_rgb(data, real=real)

    monkeypatch.setattr(jobs, "decode_rgb", changing)
    with pytest.raises(UserError, match="was changed while it was imported: run again"):
        importing(photos, tmp_path / "out")


def test_a_worker_that_has_an_earlier_listing_reads_the_source_again(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    manifest = importing(photos, tmp_path / "out")
    open_source(str(photos))  # what a worker that lives on has in its cache
    (photos / "train" / "cat" / "im 00.a.png").unlink()
    planned = layout.stretches
    source = open_source.__wrapped__(str(photos))
    files = list(planned(source, {"train": 1, "test": 1}))
    plan = jobs.plan_jobs(str(photos), source, files, tmp_path / "out", [], "center-crop")
    assert plan[-1].run().rows == 23
    assert manifest.rows("original", "train") == 24


def huge_text(path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "x" * (1 << 21), zip=True)
    Image.new("L", (4, 4)).save(path, pnginfo=info)


def broken_png(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(256, size=(9, 9), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[29] ^= 1  # the checksum of its header
    path.write_bytes(content)


def broken_bmp(path: Path) -> None:
    Image.new("RGB", (4, 4)).save(path.with_suffix(".bmp"))
    content = bytearray(path.with_suffix(".bmp").read_bytes())
    content[28:30] = struct.pack("<H", 77)  # bits a pixel
    path.write_bytes(content)
    path.with_suffix(".bmp").unlink()


def broken_avif(path: Path) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "AVIF")
    path.write_bytes(buffer.getvalue()[:-30])


def of_197_megapixels(path: Path) -> None:
    sizes = struct.pack("<IiiHHIIiiII", 40, 14036, 14036, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + sizes)


ODD = {
    "huge text": (huge_text, "Decompressed data too large"),
    "broken png": (broken_png, "cannot be decoded"),
    "broken bmp": (broken_bmp, "cannot be decoded"),
    "broken avif": (broken_avif, "cannot be decoded"),
    "empty": (Path.touch, "cannot be decoded"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels"),
    "large": (of_197_megapixels, "exceeds limit of 178956970 pixels; make it smaller"),
}


@pytest.mark.filterwarnings("ignore:.*animated:UserWarning")
def test_every_bad_image_is_named_in_one_run_and_the_rest_is_kept(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    for i, (make, _) in enumerate(ODD.values()):
        make(photos / "train" / "cat" / f"odd {i}.png")
    with pytest.raises(UserError) as stopped:
        importing(photos, tmp_path / "out")
    message = str(stopped.value)
    assert message.startswith("8 of 38 images cannot be imported, all of them in ")
    assert "image cat/odd 0.png of train" in message
    assert "and 3 more. Mend or remove them" in message
    assert "--bad-images skip" in message
    with (tmp_path / "out" / BAD_IMAGES_FILE).open() as file:
        listed = list(csv.DictReader(file))
    assert [row["file"] for row in listed] == [f"cat/odd {i}.png" for i in range(8)]
    for row, (_, reason) in zip(listed, ODD.values(), strict=True):
        assert reason in row["reason"]
    manifest = importing(photos, tmp_path / "out", on_bad_images="skip")
    assert importing.made == []
    assert [b["file"] for b in manifest.origin["left_out"]] == [row["file"] for row in listed]
    assert manifest.quarantined("8", "train") == {"cat": 8}
    assert manifest.rows("original", "train") == manifest.rows("8", "train") == 24
    require_agreement(photos, tmp_path / "out", manifest)


def test_a_finished_release_stays_where_an_image_of_its_source_went_bad(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    release = tmp_path / "out"
    manifest = importing(photos, release)
    before = release_bytes(release)
    image = next((photos / "train" / "cat").glob("*.png"))
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    with pytest.raises(UserError, match="1 of 30 images cannot be imported"):
        importing(photos, release)
    assert release_bytes(release).items() >= before.items()
    image.write_bytes(whole)
    require_agreement(photos, release, manifest)
    assert importing(photos, release) == manifest
    assert release_bytes(release) == before


def test_a_null_image_of_a_data_set_is_named():
    from datasets import Dataset, Features, Value

    empty = Dataset.from_dict({"image": [None]}, features=Features({"image": Value("binary")}))
    with pytest.raises(UserError, match="is null"):
        TableSplit(empty, "image", [0], "").read(0)
    without_bytes = [
        {"image": {"bytes": b"", "path": None}},  # as a table may have it
        {"image": {"bytes": None, "path": None}},
    ]
    assert TableSplit(without_bytes, "image", [0, 0], "").read(0) == b""
    with pytest.raises(UserError, match="is null"):
        TableSplit(without_bytes, "image", [0, 0], "").read(1)


def test_a_release_changes_with_its_data_set(importing: SerialImport, tmp_path: Path):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})

    def publish(colour: int) -> None:
        images = [Image.new("L", (9, 9), colour + i) for i in range(4)]
        data = Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
        (tmp_path / "set").mkdir(exist_ok=True)
        data.to_parquet(tmp_path / "set" / "train.parquet")

    publish(0)
    importing(str(tmp_path / "set"), tmp_path / "out")
    publish(100)
    importing(str(tmp_path / "set"), tmp_path / "out")
    images = load_images(tmp_path / "out", "8", "train").images
    assert sorted(images[:, 0, 0, 0].tolist()) == [100, 101, 102, 103]
    assert "file_name" not in rows_of(tmp_path / "out")[0]


def test_views_and_sizes_are_turned_as_exif_says_and_the_bytes_stay(
    importing: SerialImport, tmp_path: Path
):
    folder = tmp_path / "photos" / "train" / "cat"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    ramp = np.arange(800, dtype=np.uint16).reshape(20, 40) // 4
    Image.fromarray(ramp.astype(np.uint8)).save(folder / "a.png", exif=exif)
    manifest = importing(tmp_path / "photos", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert (row["width"], row["height"]) == (20, 40)
    assert row["image"]["bytes"] == (folder / "a.png").read_bytes()
    require_agreement(tmp_path / "photos", tmp_path / "out", manifest)
    assert "turned as EXIF says" in manifest.origin["pixel_rule"]


def test_views_in_several_files_are_those_of_their_originals(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    truncate(photos / "train" / "cat" / "im 01.a.jpg")
    monkeypatch.setattr(layout, "SHARD_BYTES", 7 * 2 * 8 * 8)
    monkeypatch.setattr(layout, "_files_for", lambda _: 1)
    manifest = importing(photos, tmp_path / "out", on_bad_images="skip")
    views = [shard for shard in manifest.shards if (shard.config, shard.split) == ("8", "train")]
    assert [shard.planned for shard in views] == [7, 7, 7, 3]
    require_agreement(photos, tmp_path / "out", manifest)
    (tmp_path / "out" / views[1].path).unlink()
    marker_path(tmp_path / "out", views[1].path).unlink()
    importing(photos, tmp_path / "out", on_bad_images="skip")
    assert importing.made == [views[1].path]


def test_memory_holds_a_row_group_and_no_file(
    importing: SerialImport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rows go to the file as they come: a group ends as soon as it has its bytes."""
    folder = tmp_path / "photos" / "train" / "cat"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    for i in range(12):
        Image.fromarray(noise + np.uint8(i)).save(folder / f"{i}.png")
    monkeypatch.setattr(row_file, "ROW_GROUP_BYTES", 12_000)
    importing(tmp_path / "photos", tmp_path / "out")
    (path,) = (tmp_path / "out" / "original").glob("*.parquet")
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3] * 4


def test_reading_a_file_holds_a_row_group_and_not_all_of_them(tmp_path: Path):
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema, compression="none") as writer:
        for _ in range(8):
            writer.write_table(pa.table({"image": [os.urandom(1 << 20)] * 2}, schema=schema))
    before = pa.total_allocated_bytes()
    batches = iterate_shard(tmp_path / "a.parquet", ["image"], 1)
    held = [pa.total_allocated_bytes() - before for _ in batches]
    assert len(held) == 16
    assert max(held) < 8 << 20


def test_a_split_of_bad_images_alone_is_refused(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    for path in (photos / "test").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of test can be imported, see .*move the split"):
        importing(photos, tmp_path / "out", on_bad_images="skip")


def test_a_file_of_bad_images_alone_is_empty_and_load_dataset_reads_the_rest(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(layout, "_files_for", lambda _: 8)
    importing(photos, tmp_path / "out")
    first = pq.read_table(min((tmp_path / "out" / "original").glob("train-*"))).to_pylist()
    for row in first:
        truncate(photos / "train" / row["file_name"])
    manifest = importing(photos, tmp_path / "out", on_bad_images="skip")
    assert 0 in [shard.rows for shard in manifest.shards]
    require_agreement(photos, tmp_path / "out", manifest)
    data = load_dataset(str(tmp_path / "out"), "8", cache_dir=str(tmp_path / "cache"))
    assert len(data["train"]) == 24 - len(first)


def test_a_damaged_original_is_repaired_from_its_source(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    manifest = importing(photos, out)
    monkeypatch.setattr(repair, "run_builds", real.run_builds)
    path = next(shard.path for shard in manifest.shards if shard.config == "original")
    (out / path).write_bytes(b"harm")
    report = verify_release(out, manifest, 1, lambda _: None)
    repaired = repair.repair_release(out, manifest, report, RunSettings(), lambda _: None)
    assert (repaired.again, repaired.changed) == ((path,), ())
    require_agreement(photos, out, manifest)


@pytest.mark.parametrize("harmed", ["file", "marker"])
def test_repair_loses_no_image_that_has_gone_bad(
    importing: SerialImport,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harmed: str,
):
    """One that was left out before is none of them. Where a marker is damaged, the file stays."""
    out, train = tmp_path / "out", photos / "train" / "cat"
    truncate(train / "im 03.a.jpg")
    manifest = importing(photos, out, on_bad_images="skip")
    monkeypatch.setattr(repair, "run_builds", real.run_builds)
    record = next(r for r in manifest.shards if (r.config, r.split) == ("original", "train"))
    harm = out / record.path if harmed == "file" else marker_path(out, record.path)
    harm.write_bytes(b"harm")
    before = (out / record.path).read_bytes()
    content, status = truncate(train / "im 00.a.png"), (train / "im 00.a.png").stat()
    report = verify_release(out, manifest, 1, lambda _: None)
    open_source.cache_clear()
    told = r"would lose 1 image: image cat/im 00.a.png of train cannot be decoded"
    with pytest.raises(UserError, match=told):
        repair.repair_release(out, manifest, report, RunSettings(), lambda _: None)
    assert read_manifest(out) == manifest
    assert (out / record.path).read_bytes() == before
    (train / "im 00.a.png").write_bytes(content)
    os.utime(train / "im 00.a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    open_source.cache_clear()
    repair.repair_release(out, manifest, report, RunSettings(), lambda _: None)
    require_agreement(photos, out, read_manifest(out))


def test_views_of_an_earlier_crop_rule_are_not_mixed_with_todays(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    importing(photos, tmp_path / "out")
    state = tmp_path / "out" / "build.json"
    state.write_text(state.read_text().replace('"center-crop-2"', '"center-crop"'))
    with pytest.raises(
        UserError, match="by the rule center-crop, asked for is center-crop-2; name"
    ):
        importing(photos, tmp_path / "out")
    with pytest.raises(UserError, match="no view is made by the rule 'center-crop' any more"):
        real.recorded_rule("center-crop")


def test_a_state_of_an_earlier_version_is_read(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    manifest = importing(photos, tmp_path / "out")
    path = tmp_path / "out" / "build.json"
    state = json.loads(path.read_text()) | {"images_sha256": "0"}
    del state["files"]
    path.write_text(json.dumps(state))
    for sidecar in (tmp_path / "out" / "sidecars").rglob("*.json"):
        sidecar.write_text('{"host": "x", "started": 0, "seconds": 0}')
    assert importing(photos, tmp_path / "out") == manifest
    assert len(importing.made) == len(manifest.shards)  # what they were made from was not written


def test_the_snippet_and_the_picture_show_train(
    importing: SerialImport, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    manifest = importing(photos, tmp_path / "out")
    assert manifest.splits()["8"][0] == "test"  # the first of the alphabet
    report_outcome(Outcome(manifest.shards, (), (), (), manifest), tmp_path / "out", False)
    assert 'split="train"' in capsys.readouterr().out
    assert {samples.split for samples in read_groups(tmp_path / "out")} == {"train"}


def test_what_was_left_out_is_said(
    importing: SerialImport, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    truncate(photos / "train" / "cat" / "im 01.a.jpg")
    manifest = importing(photos, tmp_path / "out", on_bad_images="skip")
    outcome = Outcome(manifest.shards, (), (), (), manifest)
    assert report_outcome(outcome, tmp_path / "out", False) == 0
    said = capsys.readouterr().err
    assert "left out: 1 images, the first cat/im 01.a.jpg of train cannot be decoded" in said
    report_outcome(outcome, tmp_path / "out", True)
    (left_out,) = json.loads(capsys.readouterr().out)["left_out"]
    assert (left_out["split"], left_out["file"]) == ("train", "cat/im 01.a.jpg")


def test_no_file_of_an_earlier_state_stays(importing: SerialImport, photos: Path, tmp_path: Path):
    importing(photos, tmp_path / "out")
    (photos / "train" / "cat" / "im 01.a.jpg").unlink()
    manifest = importing(photos, tmp_path / "out")
    planned = {shard.path for shard in manifest.shards}
    found = set(list_files(tmp_path / "out"))
    assert {name for name in found if name.endswith(".parquet")} == planned
    stems = {Path(name).with_suffix("").as_posix() for name in planned}
    for folder in ("markers", "sidecars"):
        beside = {n.removeprefix(f"{folder}/") for n in found if n.startswith(f"{folder}/")}
        assert {Path(name).with_suffix("").as_posix() for name in beside} == stems
