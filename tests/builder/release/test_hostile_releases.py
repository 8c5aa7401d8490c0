"""A release from a stranger: no name in it makes us open, write or delete a file outside of it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from builder.release.command import extend, repair, verify
from builder.state import SyntheticState, read_state, write_state
from cards.render_card import render_card
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.files.names import within
from release.layout.image_sets import split_files
from release.layout.manifest import MANIFEST_FILE, read_manifest
from release.layout.readme import remove_documents
from release.layout.shard_commit import committed_record, marker_path
from release.lease import claimed
from tests.sets.shapes import make_images, write_release

OUTSIDE = (
    "../x",
    "/tmp/x",
    "16/../../x",
    "16//x",
    "./x",
    "",
    ".git/x",
    "C:x",
    "a\\b",
    "a\nb",
    "a\0b",
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", {"train": make_images(2, 0)}, kind="synthetic")


def tamper(release: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as a stranger would: its hashes fit what it says."""
    path = release / MANIFEST_FILE
    content = json.loads(path.read_text())
    change(content)
    content.pop("manifest_sha256")
    if isinstance(content.get("shards"), list):
        pairs = [[s.get("path"), s.get("sha256")] for s in content["shards"] if isinstance(s, dict)]
        content["content_sha256"] = sha256_text(canonical_json(sorted(pairs, key=str)))
    content["manifest_sha256"] = sha256_text(canonical_json(content))
    path.write_text(json.dumps(content))


def setting(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_from_a_file_stays_within(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="is no plain path within"):
        within(tmp_path, name)


@pytest.mark.parametrize("name", ["README.md", "32/train-0.parquet", "klänge 1+2/x=y@3.json"])
def test_a_plain_name_is_joined(name: str, tmp_path: Path):
    assert within(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("command", [verify, repair, extend, render_card])
@pytest.mark.parametrize("absolute", [False, True])
def test_no_command_deletes_a_document_outside(
    release: Path, command: Callable[..., Any], absolute: bool
):
    mine = release.parent / "mine.txt"
    mine.write_text("mine")
    name = str(mine) if absolute else "../mine.txt"
    tamper(release, setting("documents", to={name: "0" * 64}))
    further = {"per_class": 9} if command is extend else {}
    with pytest.raises(UserError, match=r"manifest.json cannot be read: documents.*no plain path"):
        command(str(release), **further)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        *("manifest.json", "build.json", "lease/000001.json", "markers/16/train-0.json"),
        *("16/train-00000000.parquet", ".git/config"),
    ],
)
def test_no_document_is_part_of_the_release_itself(release: Path, name: str):
    tamper(release, setting("documents", to={name: "0" * 64}))
    with pytest.raises(UserError, match="cannot be read: documents"):
        read_manifest(release)


@pytest.mark.parametrize(
    "path",
    [
        *("../release/16/train-0.parquet", "/16/train-0.parquet", "16/../train-0.parquet"),
        *("16/train.parquet", "train-0.parquet", "16/-0.parquet", "16/train-0.txt", 5, None),
    ],
)
def test_no_shard_is_outside(release: Path, path: Any):
    tamper(release, setting("shards", 0, "path", to=path))
    with pytest.raises(UserError, match=r"manifest.json cannot be read: shards 1: path"):
        read_manifest(release)
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        split_files(release, "16", "train")


@pytest.mark.parametrize(
    ("keys", "value", "place"),
    [
        (("origin",), None, "origin: Input should be a valid dict"),
        (("origin",), {"stages": None}, "origin.stages: "),
        (("origin",), {"stages": [5]}, "origin.stages 1: "),
        (("origin",), {"stages": [{"resolution": "16"}]}, "origin.stages 1: resolution: "),
        (
            ("origin",),
            {"recipe": {"stage": [{"cost": {"seconds": "x"}}]}},
            "origin.recipe.stage 1: cost.seconds",
        ),
        (("origin",), {"requests": [{"classes": "a", "per_class": 1}]}, "origin.requests 1: cla"),
        (("origin",), {"environments": [{"device": "cpu"}]}, "origin.environments 1: versions"),
        (("name",), "../../x", "name: "),
        (("name",), 5, "name: "),
        (("kind",), "other", "kind: "),
        (("regime",), "D", "regime: "),
        (("classes", 0, "label"), 7, "classes: labels must count 0, 1, 2"),
        (("classes", 0, "wnid"), None, "classes 1: wnid: "),
        (("classes",), {}, "classes: "),
        (("shards",), [], "shards: "),
        (("shards", 0), [], "shards 1: "),
        (("shards", 0, "rows"), -1, "shards 1: rows: "),
        (("shards", 0, "rows"), "12", "shards 1: rows: "),
        (("shards", 0, "bytes"), 2**70, "shards 1: bytes: "),
        (("shards", 0, "sha256"), "../../x", "shards 1: sha256: "),
        (("shards", 0, "per_class"), {"a": 1.5}, "shards 1: per_class.a: "),
        (("shards", 0, "rejections_sha256"), "x", "shards 1: rejections_sha256: "),
        (("documents",), ["README.md"], "documents: "),
        (("documents",), {"README.md": 5}, "documents.README.md: "),
        (("surprise",), 1, "surprise: "),
    ],
)
def test_a_value_of_another_type_is_one_line(
    release: Path, keys: tuple[str | int, ...], value: Any, place: str
):
    tamper(release, setting(*keys, to=value))
    with pytest.raises(UserError) as error:
        read_manifest(release)
    assert f"manifest.json cannot be read: {place}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", '{"content_sha256": {}}', "[" * 10**5])
def test_a_manifest_that_is_no_object_is_one_line(release: Path, text: str):
    (release / MANIFEST_FILE).write_text(text)
    with pytest.raises(UserError, match=r"manifest.json cannot be read|own hash"):
        read_manifest(release)


def test_a_marker_names_no_file_outside(release: Path, monkeypatch: pytest.MonkeyPatch):
    record = read_manifest(release).shards[0]
    marker_path(release, record.path).parent.mkdir(parents=True)
    outside = asdict(replace(record, path="../../outside.parquet"))
    marker_path(release, record.path).write_text(json.dumps({"shard": outside}))
    monkeypatch.setattr(
        "release.layout.shard_commit.file_size", lambda path: pytest.fail(f"{path} is opened")
    )
    assert committed_record(release, record) is None  # type: ignore[arg-type]


def test_documents_that_memory_holds_are_checked_as_well(release: Path):
    with pytest.raises(UserError, match="is no plain path within"):
        remove_documents(release, ["../mine.txt"])


def test_nothing_is_written_behind_a_link_that_leads_out(release: Path):
    elsewhere = release.parent / "elsewhere"
    elsewhere.mkdir()
    (release / "markers").symlink_to(elsewhere)
    with (
        pytest.raises(UserError, match=r"release/markers is a link that leads out of"),
        claimed(release),
    ):
        pass
    assert list(elsewhere.iterdir()) == []


def test_a_link_that_leads_out_is_not_published(release: Path, tmp_path: Path):
    from builder.release.hub import Repository
    from builder.release.publish import publish_release

    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    record = read_manifest(release).shards[0]
    marker_path(release, record.path).parent.mkdir(parents=True)
    marker_path(release, record.path).write_text("{}")
    (release / "build.json").symlink_to(secret)
    hub = Repository("me/mine", pytest.fail)
    with pytest.raises(UserError, match=r"build.json is a link that leads out of"):
        publish_release(release, read_manifest(release), hub, None, False, lambda _: None)


def test_links_within_a_release_and_to_files_are_followed(release: Path):
    """As the Hub's cache lays out a download: every file a link to a blob beside it."""
    blobs = release.parent / "blobs"
    blobs.mkdir()
    for name in (MANIFEST_FILE, "16/train-00000000.parquet"):
        blob = blobs / name.replace("/", "-")
        shutil.move(release / name, blob)
        (release / name).symlink_to(os.path.relpath(blob, (release / name).parent))
    (release / "copy").symlink_to("16")
    with claimed(release):
        assert read_manifest(release).shards
    assert split_files(release, "16", "train")


def test_an_image_id_names_no_picture_outside(tmp_path: Path):
    import numpy as np

    from builder.release.reproduce import Comparison

    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="is no plain path within"):
        Comparison("../../x", pixels, pixels, True, None).write_pair(tmp_path / "pairs")
    assert not list(tmp_path.rglob("*.png"))


def test_a_report_does_not_say_where_its_picture_is(tmp_path: Path):
    from cards.measured.result_folder import read_folder
    from tests.cards.board.made_up_reports import a_finetuning

    path = a_finetuning(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"path": "/etc/passwd"}))
    (report,) = read_folder(tmp_path).finetunings
    assert report.path == path


def test_a_model_index_names_no_file_outside(tmp_path: Path):
    from generation.pretrained.diffusers_folder import index_components, weights

    index = {"_class_name": "X", "../unet": ["diffusers", "UNet2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is no plain path within"):
        index_components(tmp_path)
    shards = {"weight_map": {"a": "../../x.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    with pytest.raises(UserError, match="is no plain path within"):
        weights(tmp_path)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("stages",), {}),
        (("stages",), {"x": "f"}),
        (("stages",), {"16": 5}),
        (("seed",), "seven"),
        (("name",), None),
        (("shard",), {"classes": "ten"}),
        (("requests",), [{"classes": ["a"], "per_class": "many"}]),
        (("requests",), None),
        (("encodings",), []),
        (("format",), "csv"),
        (("environments",), [{"device": 5, "versions": [["torch", "2"]]}]),
        (("surprise",), 1),
    ],
)
def test_a_state_of_another_shape_is_one_line(
    tmp_path: Path, keys: tuple[str | int, ...], value: Any
):
    from builder.planning.plan import BuildRequest
    from release.environment import Environment

    state = SyntheticState(
        name="mine",
        seed=7,
        shard={"classes": 10, "indices": 25},
        stages={"16": "f"},
        requests=(BuildRequest(("a",), 3),),
        encodings={"16": "png"},
        environments=(Environment("cpu", (("torch", "2"),)),),
    )
    write_state(tmp_path, state)
    assert read_state(tmp_path, SyntheticState) == state
    content = json.loads((tmp_path / "build.json").read_text())
    setting(*keys, to=value)(content)
    (tmp_path / "build.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"build\.json cannot be read"):
        read_state(tmp_path, SyntheticState)
