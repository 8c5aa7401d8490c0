"""croissant.json: valid under mlcroissant, and true of the release."""

import json
import shutil
from dataclasses import replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.release.folding import folded_files
from builder.state import STATE_FILE
from cards.card.croissant import LICENSES, SYNTHETIC, croissant_document, croissant_json
from cards.card.provenance import LEARNED
from cards.render_card import publication_day
from release.errors import UserError
from release.files.commit import sha256_bytes, sha256_file
from release.layout.manifest import Manifest, read_manifest
from release.layout.readme import write_readme
from release.layout.shard_files import folded_path
from tests.cards.tiny_card import CLASSES, DAY, ORIGIN, write_shard
from tests.sets.shapes import make_images
from tests.sets.shapes import write_release as write_real

pytestmark = [  # mlcroissant's calls of rdflib and pandas, not ours
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]
SAMPLER = {"method": "dpm-solver++", "steps": 4}


def two_stages() -> dict[str, Any]:
    """ORIGIN with a stage after its own, made without the data set."""
    origin: dict[str, Any] = json.loads(json.dumps(ORIGIN))
    origin["stages"].append(
        origin["stages"][0]
        | {"resolution": 32, "checkpoint": "tiny-32", "checkpoint_sha256": "d" * 64}
        | {"sampler": SAMPLER}
    )
    told = origin["recipe"]["stage"][0]
    origin["recipe"]["stage"].append(told | {"resolution": 32, "regime": "A"})
    return origin


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of 16 and 32 px; two files each."""
    folder = tmp_path_factory.mktemp("croissant") / "garments"
    shards = [write_shard(folder, 0, 2, False), write_shard(folder, 2, 3, False)]
    for shard in list(shards):
        path = shard.path.replace("16/", "32/")
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes((folder / shard.path).read_bytes())
        shards.append(replace(shard, path=path))
    manifest = Manifest(
        name="garments",
        kind="synthetic",
        dataset="fashion-mnist",
        regime="B",
        license="mit",
        classes=CLASSES,
        origin=two_stages(),
        shards=tuple(shards),
    )
    write_readme(folder, manifest)
    manifest.write(folder)
    return folder


def document(release: Path, repository: str | None = None, **changes: Any) -> dict[str, Any]:
    manifest = replace(read_manifest(release), **changes)
    return json.loads(croissant_json(release, manifest, repository, DAY))


def issues(content: dict[str, Any]) -> tuple[set[str], set[str]]:
    found = mlcroissant.Dataset(content).metadata.ctx.issues
    return found.errors, found.warnings


@pytest.mark.parametrize("repository", [None, "someone/garments"])
@pytest.mark.parametrize("license_", ["mit", "other"])
def test_mlcroissant_finds_no_issue(release: Path, repository: str | None, license_: str) -> None:
    assert issues(document(release, repository, license=license_)) == (set(), set())


def test_the_test_can_fail(release: Path) -> None:
    content = document(release)
    del content["version"]
    assert [len(found) for found in issues(content)] == [0, 1]
    del content["recordSet"][2]["field"][1]["dataType"]
    with pytest.raises(mlcroissant.ValidationError, match="image"):
        issues(content)


def test_mlcroissant_reads_every_row_and_checks_the_splits(release: Path) -> None:
    (release / "croissant.json").write_text(json.dumps(document(release)))
    dataset = mlcroissant.Dataset(str(release / "croissant.json"))
    for config in ("16", "32"):
        rows = list(dataset.records(config))
        assert sorted((r[f"{config}/label"], r[f"{config}/index"]) for r in rows) == [
            (label, index) for label in range(3) for index in range(3)
        ]
        assert {row[f"{config}/split"] for row in rows} == {b"train"}
        first = next(r for r in rows if r[f"{config}/image_id"] == b"boot-000001")
        assert first[f"{config}/image"].getpixel((0, 0)) == (51, 1, 0)
    again = mlcroissant.Dataset(str(release / "croissant.json"))
    assert len(list(again.records("32", filters={"32/split": "train"}))) == 9
    names = [row["classes/name"] for row in dataset.records("classes")]
    assert names == [entry.name for entry in CLASSES]


def test_it_reads_the_same_where_shards_stand_in_sub_folders(release: Path, tmp_path: Path) -> None:
    content = croissant_json(release, read_manifest(release), "someone/garments", DAY)
    copy = tmp_path / "there"
    shutil.copytree(release, tmp_path / "here")
    (tmp_path / "here/croissant.json").write_bytes(content)
    (tmp_path / "here" / STATE_FILE).write_text("{}")
    noted = replace(read_manifest(release), documents={"croissant.json": sha256_bytes(content)})
    folder = tmp_path / "folded"
    folder.mkdir()
    for file in chain(*folded_files(tmp_path / "here", noted, folder)):
        (copy / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(file.source), copy / file.path)
    assert not list(copy.glob("*/*.parquet"))
    there = json.loads((copy / "croissant.json").read_text())
    assert issues(there) == (set(), set())
    dataset = mlcroissant.Dataset(str(copy / "croissant.json"))
    rows = list(dataset.records("32", filters={"32/split": "train"}))
    assert len(rows) == 9


def test_a_readme_that_names_its_files_names_them_in_sub_folders(
    release: Path, tmp_path: Path
) -> None:
    """As that of a release whose extension was killed."""
    manifest = read_manifest(release)
    named = "data_files:\n" + "".join(f"  - {shard.path}\n" for shard in manifest.shards)
    shutil.copytree(release, tmp_path / "here")
    (tmp_path / "here/README.md").write_text(named + "see 16/train-*.parquet, not 9/a-b.parquet\n")
    (tmp_path / "here" / STATE_FILE).write_text("{}")
    (tmp_path / "folded").mkdir()
    noted = replace(manifest, documents={"README.md": sha256_file(tmp_path / "here/README.md")})
    folded_files(tmp_path / "here", noted, tmp_path / "folded")
    *lines, last = (tmp_path / "folded/README.md").read_text().splitlines()
    assert lines[1:] == [f"  - {folded_path(shard.path)}" for shard in manifest.shards]
    assert last == "see 16/part-*/train-*.parquet, not 9/a-b.parquet"
    (tmp_path / "here/README.md").write_text("of another state")
    with pytest.raises(UserError, match="was changed by another command meanwhile: publish again"):
        folded_files(tmp_path / "here", noted, tmp_path / "folded")


def test_every_file_stands_in_it_with_its_hash(release: Path) -> None:
    files = [d for d in document(release)["distribution"] if d["@type"] == "cr:FileObject"]
    found = {d["contentUrl"]: (d["sha256"], d["contentSize"]) for d in files}
    shards = read_manifest(release).shards
    assert found == {s.path: (s.sha256, f"{s.bytes} B") for s in shards}


def test_it_says_where_the_images_come_from(release: Path) -> None:
    content = document(release)
    assert content["digitalSourceType"] == {"@id": SYNTHETIC}
    assert "synthetic" in content["keywords"]
    assert content["identifier"] == f"sha256:{read_manifest(release).content_sha256}"
    sets = {record_set["@id"]: record_set for record_set in content["recordSet"]}
    base, last = sets["16"], sets["32"]
    made = last["prov:wasGeneratedBy"]
    assert made["prov:wasAssociatedWith"]["@type"] == "prov:SoftwareAgent"
    assert made["prov:wasAssociatedWith"]["softwareRequirements"] == [
        "numpy 2.4.6, torch 2.15.0; cpu test"
    ]
    settings = {p["propertyID"]: p["value"] for p in made["additionalProperty"]}
    assert settings == {f"sampler.{name}": value for name, value in SAMPLER.items()}
    assert [e["identifier"] for e in made["prov:used"]] == [f"sha256:{'d' * 64}", "16"]
    assert [e["identifier"] for e in last["prov:wasDerivedFrom"]] == ["16", f"sha256:{'d' * 64}"]
    assert [e["identifier"] for e in base["prov:wasDerivedFrom"]] == [
        "fashion-mnist",
        f"sha256:{'c' * 64}",
    ]
    assert base["prov:wasDerivedFrom"][1]["license"] == "made-up-1.0. Images: Use them."
    fields = {field["name"]: field for field in last["field"]}
    assert fields["image"]["dataType"] == "sc:ImageObject"
    assert fields["label"]["references"] == {"field": {"@id": "classes/label"}}


def test_a_generator_that_never_saw_the_data_is_not_derived_from_it(release: Path) -> None:
    assert "A" not in LEARNED
    content = document(release, regime="A")
    derived = json.dumps([content["prov:wasDerivedFrom"], content["recordSet"][2:]])
    assert "real images of" not in derived


def test_license_note_goes_along(release: Path) -> None:
    license_ = document(release)["license"]
    assert license_["description"] == "For tests only."
    assert license_["url"] == LICENSES["mit"]


def test_only_a_published_release_has_an_address_and_somebody_who_answers(release: Path) -> None:
    assert not {"url", "creator"} & document(release).keys()
    content = document(release, "someone/garments")
    assert content["url"].endswith("/datasets/someone/garments")
    assert content["creator"]["name"] == "someone"


def test_same_release_same_bytes_and_the_first_day_stays(release: Path) -> None:
    manifest = read_manifest(release)
    content = croissant_json(release, manifest, None, DAY)
    assert croissant_json(release, manifest, None, DAY) == content
    (release / "croissant.json").write_bytes(content)
    assert publication_day(release, manifest, None) == DAY
    assert publication_day(release, manifest, "2027-02-03") == date(2027, 2, 3)
    changed = replace(manifest, shards=manifest.shards[:1])
    assert publication_day(release, changed, None) != DAY
    with pytest.raises(UserError, match="'soon' is no date: give YYYY-MM-DD"):
        publication_day(release, manifest, "soon")


def test_a_missing_fact_is_an_error(release: Path) -> None:
    origin = two_stages()
    del origin["recipe"]["stage"][1]["model"]
    with pytest.raises(UserError, match=r"lacks model in origin\.recipe\.stage at 32 px"):
        document(release, origin=origin)


def test_a_real_release_is_no_synthetic_one(tmp_path: Path) -> None:
    folder = write_real(tmp_path / "real", {"train": make_images(2, 0), "test": make_images(1, 1)})
    manifest = replace(read_manifest(folder), origin={"source": "drawn by the test"})
    content = croissant_document(folder, manifest, None, DAY)
    assert "digitalSourceType" not in content
    assert content["prov:wasDerivedFrom"]["name"] == "drawn by the test"
    assert issues(json.loads(json.dumps(content))) == (set(), set())


def test_a_release_in_arrow_says_who_reads_its_rows(release: Path, tmp_path: Path) -> None:
    """mlcroissant has no reader of Arrow: valid, every file listed, and said plainly."""
    parquet = read_manifest(release)
    shard = parquet.shards[0]
    table = pq.read_table(release / shard.path)
    (tmp_path / "16" / "train").mkdir(parents=True)
    path = tmp_path / "16" / "train" / "data-0.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    arrow = replace(shard, path="16/train/data-0.arrow", sha256=sha256_file(path))
    manifest = replace(parquet, shards=(arrow,), origin=json.loads(json.dumps(ORIGIN)))
    content = json.loads(croissant_json(tmp_path, manifest, None, DAY))
    assert issues(content) == (set(), set())
    (files,) = (d for d in content["distribution"] if d["@type"] == "cr:FileSet")
    assert "mlcroissant, which knows Parquet, gives no records" in files["description"]
    assert "mlcroissant" not in json.dumps(document(release))
