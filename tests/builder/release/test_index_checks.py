"""The index of a release's images against its shards: verified, repaired, made for an older one."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from builder.builds.finish import finish_release
from builder.builds.run import RunSettings
from builder.imports import layout
from builder.imports import release as real
from builder.release import repair
from builder.release.verify import verify_release
from release.files.commit import write_stream_atomically
from release.layout.findings import Report
from release.layout.image_index import open_index, write_index
from release.layout.image_sets import noted_index
from release.layout.manifest import Manifest, read_manifest
from release.layout.shard_commit import marker_path, sidecar_name
from tests.builder.imports.serial_import import SerialImport


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> SerialImport:
    monkeypatch.setattr(layout, "_files_for", lambda _: 2)
    return SerialImport(monkeypatch)


@pytest.fixture
def release(importing: SerialImport, tmp_path: Path) -> Path:
    """Of 16 photographs in two classes, in two files of originals and two of a view."""
    random = np.random.default_rng(0)
    for i in range(16):
        path = tmp_path / "photos" / "train" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(20, 30, 3), dtype=np.uint8)).save(path)
    importing(tmp_path / "photos", tmp_path / "out")
    return tmp_path / "out"


def verified(release: Path) -> Report:
    return verify_release(release, read_manifest(release), 2, lambda _: None)


def noted(release: Path, config: str = "8") -> str:
    found = noted_index(release, config, "train")
    assert found is not None
    return found[0]


def write_again(release: Path, name: str, table: pa.Table) -> None:
    """Another index, which the manifest notes."""
    _, sha256 = write_stream_atomically(release / name, partial(write_index, table=table))
    manifest = read_manifest(release)
    replace(manifest, documents=manifest.documents | {name: sha256}).write(release)


@pytest.mark.parametrize("column", ["offset", "size", "label", "sha256", "image_id"])
def test_an_index_that_says_what_its_shards_do_not_hold_is_a_problem(release: Path, column: str):
    assert verified(release).intact
    name = noted(release)
    table = open_index(release / name)
    values = table[column].to_pylist()
    values[3] = values[3] + 1 if isinstance(values[3], int) else values[4]
    place = table.column_names.index(column)
    write_again(
        release, name, table.set_column(place, column, pa.array(values, table[column].type))
    )
    found = [str(problem) for problem in verified(release).problems]
    assert found == [f"{name}: says of its shards' images what these do not hold"]


def test_one_that_lacks_an_image_is_a_problem(release: Path):
    name = noted(release, "original")
    write_again(release, name, open_index(release / name).slice(1).combine_chunks())
    assert [problem.path for problem in verified(release).problems] == [name]


@pytest.mark.parametrize("noted_wrong", [True, False])
def test_repair_writes_it_as_its_shards_are(
    importing: SerialImport,  # noqa: ARG001
    release: Path,
    monkeypatch: pytest.MonkeyPatch,
    noted_wrong: bool,
):
    """Also where sidecars tell what it told."""
    monkeypatch.setattr(repair, "run_builds", real.run_builds)
    before, name = read_manifest(release), noted(release)
    whole = (release / name).read_bytes()
    if noted_wrong:
        first, second = (r for r in before.shards if r.config == "8")
        tell_other_images(release, first.path, second.path)
    write_again(release, name, open_index(release / name).slice(1).combine_chunks())
    report = verified(release)
    manifest = repair.repair_release(
        release, read_manifest(release), report, RunSettings(), lambda _: None
    ).manifest
    assert manifest == before
    assert (release / name).read_bytes() == whole
    assert verified(release).intact


def tell_other_images(release: Path, shard: str, other: str) -> None:
    path = release / sidecar_name(shard)
    sidecar = json.loads(path.read_text())
    rows = json.loads((release / sidecar_name(other)).read_text())["images"]["rows"]
    path.write_text(json.dumps(sidecar | {"images": sidecar["images"] | {"rows": rows}}))


def older(release: Path, shards: list[str]) -> Manifest:
    """As if an earlier version had written `shards`, and no index."""
    for shard in shards:
        path = release / sidecar_name(shard)
        sidecar = json.loads(path.read_text())
        del sidecar["images"]
        path.write_text(json.dumps(sidecar))
    manifest = read_manifest(release)
    for name in manifest.documents:
        (release / name).unlink()
    (release / "manifest.json").unlink()
    return replace(manifest, documents={})


def test_a_release_of_an_earlier_version_gets_an_index_once_it_has_grown(release: Path):
    before = read_manifest(release)
    first = next(r.path for r in before.shards if r.config == "original")
    assert finish_release(release, older(release, [first])) == before
    assert verified(release).intact
    assert "images" in json.loads((release / sidecar_name(first)).read_text())
    assert marker_path(release, first).exists()


def test_one_that_has_not_grown_stays_without(release: Path):
    before = read_manifest(release)
    shards = [r.path for r in before.shards if r.config == "original"]
    finished = finish_release(release, older(release, shards))
    assert finished.shards == before.shards
    assert noted_index(release, "original", "train") is None
    assert noted_index(release, "8", "train") is not None
    assert verified(release).intact


def test_a_shard_that_is_damaged_is_not_noted(release: Path):
    before = read_manifest(release)
    first = next(r.path for r in before.shards if r.config == "original")
    manifest = older(release, [first])
    content = bytearray((release / first).read_bytes())
    content[200] ^= 1
    (release / first).write_bytes(content)
    finish_release(release, manifest)
    assert noted_index(release, "original", "train") is None
    assert "images" not in json.loads((release / sidecar_name(first)).read_text())
