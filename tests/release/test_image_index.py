"""The index of a release's images: what it says, who writes it, and what readers make of it."""

import io
import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from builder.builds.finish import finish_release
from metrics.features.image_lists import open_image_set, read_image_list
from release.errors import UserError
from release.layout.image_places import image_places
from release.layout.image_sets import first_of_each, load_images, noted_index, part_labels
from release.layout.manifest import Manifest, read_manifest
from release.layout.parquet import image_features, table_schema, write_table
from release.layout.shard_commit import commit_shard, sidecar_name
from release.streaming import encoded
from release.streaming.encoded import index_images, join_encoded
from tests.sets.shapes import CLASSES, make_images, png

COLUMNS = {"image_id": "string", "tuning": "bool"}


def write_shards(release: Path, names: tuple[str, ...], file_format: str = "parquet") -> Manifest:
    """Each of the 12 images of 6 classes, committed as a worker does it; ids do not rise."""
    schema = table_schema(image_features(CLASSES, COLUMNS), CLASSES)
    records = []
    for seed, name in enumerate(names):
        data = make_images(2, seed)
        columns = {
            "image": [png(image) for image in data.images],
            "label": data.labels.tolist(),
            "image_id": [f"i{99 - 7 * i % 12}-{seed}" for i in range(len(data))],
            "tuning": [i % 5 == 0 for i in range(len(data))],
        }
        path = f"16/train-{name}.parquet" if file_format == "parquet" else f"16/train/{name}.arrow"
        records.append(
            commit_shard(
                release,
                path,
                "f",
                lambda sink, c=columns: write_table(sink, schema, dict(c), file_format),
                [CLASSES[label].wnid for label in data.labels],
                time.time(),
            )
        )
    return Manifest("r", "real", "shapes", None, "cc0-1.0", CLASSES, {}, tuple(records))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    finish_release(tmp_path / "r", write_shards(tmp_path / "r", ("0", "1", "2")))
    return tmp_path / "r"


def without_index(release: Path) -> None:
    replace(read_manifest(release), documents={}).write(release)


@pytest.mark.parametrize("file_format", ["parquet", "arrow"])
@pytest.mark.parametrize("split", ["train", "fit", "tuning"])
def test_it_says_what_looking_for_the_images_finds(
    tmp_path: Path, split: str, file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "r"
    finish_release(release, write_shards(release, ("data-0", "data-1"), file_format))
    loaded = load_images(release, "16", split)
    with monkeypatch.context() as patch:
        patch.setattr(encoded, "_search", None)  # no shard is read
        patch.setattr("release.layout.image_sets.iterate_tables", None)
        found = index_images(release, "16", split)
        labels = part_labels(release, "16", split)
    without_index(release)
    searched = index_images(release, "16", split)
    assert found.image_ids == searched.image_ids == loaded.image_ids
    assert found.labels.tolist() == searched.labels.tolist() == loaded.labels.tolist()
    assert sorted(labels) == sorted(loaded.labels)
    for row in range(len(found)):
        assert found.path(found.file[row]) == searched.path(searched.file[row])
        assert (found.offset[row], found.size[row]) == (searched.offset[row], searched.size[row])
        assert np.array_equal(np.asarray(found.image(row)), loaded.images[row])


def test_images_on_many_pages_and_in_several_row_groups_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page ends after a megabyte; lengths of images that look like a page's header."""
    monkeypatch.setattr("release.layout.parquet.ROW_GROUP_BYTES", 3 << 20)
    rng = np.random.default_rng(0)
    images = [rng.bytes(int(size)) for size in (*rng.integers(0, 40_000, 400), 0x15, 0x1500, 0)]
    schema = table_schema(image_features(CLASSES, {}), CLASSES)
    sink = pa.BufferOutputStream()
    write_table(sink, schema, {"image": images, "label": [0] * len(images)})
    content = sink.getvalue().to_pybytes()
    offsets, sizes = image_places(content, "parquet")
    assert [content[o : o + s] for o, s in zip(offsets, sizes, strict=True)] == images


def test_a_changed_image_is_named_when_it_is_read(release: Path) -> None:
    found = index_images(release, "16", "train")
    path, place = found.path(found.file[3]), int(found.offset[3]) + 30
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    found = index_images(release, "16", "train")
    wanted = rf"{path.name}, image {found.image_ids[3]}: is not the image that the index"
    with pytest.raises(UserError, match=wanted):
        found.image(3)
    found.image(4)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{path.name} is not the file that its manifest lists"):
        index_images(release, "16", "train")
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} is not there"):
        index_images(release, "16", "train")


def test_a_changed_index_is_refused(release: Path) -> None:
    noted = noted_index(release, "16", "train")
    assert noted is not None
    index = release / noted[0]
    content = bytearray(index.read_bytes())
    content[-200] ^= 1
    index.write_bytes(content)
    with pytest.raises(UserError, match=r"feather is not the file that its manifest lists"):
        index_images(release, "16", "train")


def test_a_release_that_grew_has_one_index_and_no_litter(release: Path) -> None:
    before = noted_index(release, "16", "train")
    (release / "index" / "16" / "train-0123456789.feather").write_bytes(b"of a killed build")
    grown = finish_release(release, write_shards(release, ("0", "1", "2", "3")))
    (name,) = [name for name in grown.documents if name.startswith("index/")]
    assert list((release / "index").rglob("*.*")) == [release / name]
    assert before is not None
    assert name != before[0]
    assert len(index_images(release, "16", "train")) == 48


def test_sidecars_of_before_leave_images_to_be_looked_for(tmp_path: Path) -> None:
    release = tmp_path / "r"
    manifest = write_shards(release, ("0", "1"))
    for record in manifest.shards:
        path = release / sidecar_name(record.path)
        path.write_text(json.dumps({"host": "h", "started": 0, "seconds": 1}))
    written = finish_release(release, manifest)
    assert not [name for name in written.documents if name.startswith("index/")]
    assert len(index_images(release, "16", "train")) == 24


def test_a_whole_split_is_mapped_and_small_where_it_is_sent(release: Path) -> None:
    found = index_images(release, "16", "train")
    joined = join_encoded([found, index_images(release, "16", "tuning")]).mapped_alone()
    for images in (found, joined):
        assert len(pickle.dumps(images)) < 1500
        sent = pickle.loads(pickle.dumps(images))
        assert sent.rows.equals(images.rows)
        assert list(sent.read([5])) == list(images.read([5]))
    taken = pickle.loads(pickle.dumps(found.take(np.array([2, 1]))))
    assert list(taken.read([0])) == list(found.read([2]))
    assert joined.mapped is not None
    folder = joined.mapped.parent
    del images, joined
    assert not folder.exists()


@pytest.mark.parametrize("split", ["train", "tuning"])
def test_scoring_lists_the_images_that_reading_the_files_lists(
    release: Path, tmp_path: Path, split: str
) -> None:
    def lists() -> list[object]:
        image_set = open_image_set(release, "16", split)
        found = [read_image_list(image_set, s, tmp_path / "cache") for s in image_set.shards()]
        return [(f.rows.tolist(), f.sha256, f.image_ids, f.labels.tolist()) for f in found]

    by_index = lists()
    assert not (tmp_path / "cache").exists()
    without_index(release)
    assert lists() == by_index
    assert (tmp_path / "cache").exists()


def test_first_of_each_takes_the_first_in_their_order() -> None:
    labels = np.array([2, 0, 2, 1, 0, 2, 0])
    assert first_of_each(labels, [1, 5, 2]).tolist() == [0, 1, 2, 3]


def test_an_image_set_behind_a_url_has_its_index_too(tmp_path: Path) -> None:
    from release.files.storage import release_path

    place = release_path("memory://indexed/r")
    finish_release(place, write_shards(place, ("0", "1")))
    finish_release(tmp_path / "r", write_shards(tmp_path / "r", ("0", "1")))
    index, other = noted_index(place, "16", "train"), noted_index(tmp_path / "r", "16", "train")
    assert index is not None
    assert other is not None
    assert index == other
    assert (
        io.BytesIO((place / index[0]).read_bytes()).getvalue()
        == (tmp_path / "r" / index[0]).read_bytes()
    )
