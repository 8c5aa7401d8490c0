"""`release encode`: latents of a release's images, made once, file by file."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import typer
from datasets import load_dataset
from diffusers import AutoencoderKL, VQModel

from builder.release.command import repair, verify
from builder.release.encode_command import encode
from builder.release.verify import verify_release, with_latents
from builder.release.view_command import view
from builder.shards import latent_shard
from cards.leaderboard import leaderboard
from cards.render_card import render_card
from generation.pretrained.autoencoder_files import locate_autoencoder
from release.commands.command import EXIT_FOUND_WANTING
from release.errors import UserError
from release.files.commit import sha256_file
from release.layout.findings import Report
from release.layout.image_sets import decode, load_images
from release.layout.latents import Latents, latents_of
from release.layout.manifest import read_manifest
from release.streaming.encoded import index_images
from tests.in_process import InProcess
from tests.models.tiny_autoencoders import save_autoencoder, save_quantiser
from tests.sets.small_releases import random_images, write_release

SIDE, IMAGES = 16, 21  # of each file; no multiple of the batches that are encoded


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("models") / "tiny-vae")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(monkeypatch)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two files of train, one of test, in colour."""
    parts = [random_images(seed, IMAGES, SIDE) for seed in range(3)]
    return write_release(tmp_path / "real", {"train": parts[:2], "test": parts[2:]}, "real")


def make(release: Path, autoencoder: Path, **options: Any) -> Path:
    settings: dict[str, Any] = {"config": str(SIDE), "name": "tiny", "as_json": True}
    encode(str(release), str(autoencoder), **settings | options)
    return release / "latents" / (settings | options)["name"]


def problems(root: Path) -> list[str]:
    report = verify_release(root, read_manifest(root), 1, lambda _: None)
    return [str(problem) for problem in report.problems]


def rows(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def found(root: Path) -> tuple[Latents, list[np.ndarray]]:
    latents = latents_of(read_manifest(root))
    assert latents is not None
    return latents, [latents.decoded(row["moments"]) for row in rows(root / str(SIDE))]


@torch.no_grad()
def posterior(autoencoder: Path, release: Path, *, flip: bool = False) -> np.ndarray:
    """float32[N,8,8,8], of images read and encoded one by one, here."""
    network = AutoencoderKL.from_pretrained(autoencoder).eval()
    made = []
    for row in rows(release / str(SIDE)):
        image = torch.from_numpy(decode(row["image"]["bytes"]).copy()).permute(2, 0, 1)[None]
        x = (image.flip(3) if flip else image).float() / 127.5 - 1
        made.append(network.encode(x).latent_dist.parameters[0].numpy())
    return np.stack(made)


@pytest.mark.usefixtures("here")
def test_moments_are_the_autoencoders_beside_the_images_own_rows(
    release: Path, autoencoder: Path
) -> None:
    before = sha256_file(release / "manifest.json")
    root = make(release, autoencoder, dtype="float32", mirrored=True)
    latents, moments = found(root)
    assert latents.shape == (2, 8, 8, 8)
    assert (latents.scaling_factor, latents.dtype, latents.mirrored) == (0.5, "float32", True)
    assert latents.sha256 == locate_autoencoder(str(autoencoder)).sha256
    stacked = np.stack(moments)
    np.testing.assert_allclose(stacked[:, 0], posterior(autoencoder, release), atol=1e-5)
    np.testing.assert_allclose(stacked[:, 1], posterior(autoencoder, release, flip=True), atol=1e-5)
    own, theirs = rows(root / str(SIDE)), rows(release / str(SIDE))
    names = ("image_id", "label", "class_id", "tuning")
    assert [[row[n] for n in names] for row in own] == [[row[n] for n in names] for row in theirs]
    assert problems(root) == []
    assert sha256_file(release / "manifest.json") == before
    set_ = load_dataset(str(root), str(SIDE), split="test")
    assert len(set_) == IMAGES
    assert len(set_[0]["moments"]) == latents.image_bytes


@pytest.mark.usefixtures("here")
def test_half_precision_is_rounding_alone(release: Path, autoencoder: Path) -> None:
    _, half = found(make(release, autoencoder))
    assert half[0].dtype == np.float16
    assert half[0].shape == (1, 8, 8, 8)
    full = posterior(autoencoder, release)
    np.testing.assert_allclose(np.stack(half)[:, 0], full, atol=5e-3, rtol=1e-3)


@pytest.mark.usefixtures("here")
def test_generated_images_have_latents_too(tmp_path: Path, autoencoder: Path) -> None:
    """Of a release that marks no tuning rows; its latents say that they are of generated images."""
    release = write_release(tmp_path / "made", {"train": [random_images(0, 5, SIDE)]})
    root = make(release, autoencoder)
    assert read_manifest(root).kind == "synthetic"
    assert set(rows(root / str(SIDE))[0]) == {"moments", "label", "image_id", "class_id"}
    assert problems(root) == []


@pytest.mark.usefixtures("here")
def test_a_quantiser_has_points(release: Path, tmp_path: Path) -> None:
    quantiser = save_quantiser(tmp_path / "vq")
    latents, moments = found(make(release, quantiser, dtype="float32"))
    assert (latents.kind, latents.shape) == ("VQModel", (1, 3, 8, 8))
    image = decode(rows(release / str(SIDE))[0]["image"]["bytes"]).copy()
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        wanted = VQModel.from_pretrained(quantiser).eval().encode(x).latents[0].numpy()
    np.testing.assert_allclose(moments[0][0], wanted, atol=1e-5)


@pytest.mark.usefixtures("_worker_forks")
def test_two_workers_make_the_same_bytes_and_a_rerun_makes_none(
    release: Path, autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = make(release, autoencoder, workers=2, name="two")
    here = InProcess(monkeypatch)
    one = make(release, autoencoder, name="one")
    assert len(here.made) == 3
    files = {path.relative_to(one) for path in one.rglob("*.parquet")}
    assert len(files) == 3
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()
    here.made.clear()
    files = {path for path in one.rglob("*") if path.is_file() and path.name != "build.json"}
    before = {path: path.stat().st_mtime_ns for path in files}
    make(release, autoencoder, name="one")
    assert here.made == []
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_was_interrupted_goes_on_and_what_is_damaged_is_made_again(
    here: InProcess, release: Path, autoencoder: Path
) -> None:
    here.left = 2
    with pytest.raises(KeyboardInterrupt):
        make(release, autoencoder)
    here.left = 100
    here.made.clear()
    root = make(release, autoencoder)
    assert len(here.made) == 1
    path = sorted((root / str(SIDE)).glob("train-*"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes(40))
    assert any("SHA-256" in text for text in problems(root))
    make(release, autoencoder)
    assert path.read_bytes() == whole
    assert problems(root) == []


@pytest.mark.usefixtures("here")
def test_latents_follow_a_release_that_changed(release: Path, autoencoder: Path) -> None:
    root = make(release, autoencoder)
    new = [random_images(7, IMAGES, SIDE), random_images(1, IMAGES, SIDE)]
    write_release(release, {"train": [*new, random_images(9, 5, SIDE)]}, "real")
    texts = problems(root)
    assert any("run `release encode` again" in text for text in texts)
    assert any("is not of a file of 16 that the release lists" in text for text in texts)
    make(release, autoencoder)
    assert problems(root) == []
    assert len(rows(root / str(SIDE))) == 2 * IMAGES + 5


@pytest.mark.usefixtures("here")
def test_verify_finds_other_latents_and_other_rows(
    release: Path, autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files whose hashes are all as they should be: a set that somebody else made."""
    real = latent_shard.encoded
    monkeypatch.setattr(latent_shard, "encoded", lambda *of: real(*of) + 1)
    root = make(release, autoencoder)
    assert sum("latent of image is another's" in text for text in problems(root)) == 3
    empty = Report(0, 0, 0, ())
    merged = with_latents(release, empty, 1)
    assert merged.shards == 3
    (root / "manifest.json").write_text("{")  # the release's own report is not lost by it
    damaged = with_latents(release, replace(empty, shards=2), 1)
    assert damaged.shards == 2
    assert [p.path for p in damaged.problems] == ["latents/tiny/manifest.json"]
    assert {p.path.split("/")[:2] == ["latents", "tiny"] for p in merged.problems} == {True}


@pytest.mark.usefixtures("here")
def test_repair_looks_at_latents_and_says_who_mends_them(
    release: Path,
    autoencoder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    intact = Report(3, 3 * IMAGES, 1, ())
    monkeypatch.setattr("builder.release.command._verified", lambda *_: intact)
    repair(str(release))
    assert capsys.readouterr().out.endswith("intact (0 shards made again)\n")
    file = next(make(release, autoencoder).rglob("*.parquet"))
    file.write_bytes(b"harm")
    with pytest.raises(typer.Exit) as left:
        repair(str(release))
    assert left.value.exit_code == EXIT_FOUND_WANTING
    told = capsys.readouterr().out
    assert str(file.relative_to(release)) in told
    assert "release encode makes latents again" in told


@pytest.mark.usefixtures("here")
def test_verify_without_the_autoencoder_compares_rows_alone(
    release: Path, autoencoder: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(autoencoder, tmp_path / "moved"))
    root = make(release, moved)
    shutil.rmtree(moved)
    assert problems(root) == []
    with pytest.raises(UserError, match="neither a folder"):
        make(release, moved)


@pytest.mark.usefixtures("here")
def test_indices_lead_to_each_images_moments(release: Path, autoencoder: Path) -> None:
    root = make(release, autoencoder)
    index = index_images(root, str(SIDE), "fit")
    assert len(index) == 2 * IMAGES - 6
    latents, _ = found(root)
    by_id = {row["image_id"]: row["moments"] for row in rows(root / str(SIDE))}
    for i in (0, 7, len(index) - 1):
        content = next(index.read([i]))
        assert content == by_id[index.rows["image_id"][i].as_py()]
        assert latents.decoded(content).shape == latents.shape


@pytest.mark.usefixtures("here")
def test_latents_are_not_read_as_images(release: Path, autoencoder: Path) -> None:
    root = make(release, autoencoder)
    with pytest.raises(UserError, match="holds latents, no images"):
        load_images(root, str(SIDE), "train")
    with pytest.raises(UserError, match=r"train-.*, image train-.*: cannot be decoded"):
        index_images(root, str(SIDE), "train").image(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "32"}, "unknown configuration of real '32'"),
        ({"dtype": "bfloat16"}, "unknown --dtype"),
        ({"name": "../up"}, "is no plain name"),
    ],
)
def test_bad_input_is_a_line(
    release: Path, autoencoder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(release, autoencoder, **options)
    assert not (release / "latents").exists()


@pytest.mark.usefixtures("here")
def test_other_latents_of_the_same_name_and_other_models_are_refused(
    release: Path, autoencoder: Path, tmp_path: Path
) -> None:
    root = make(release, autoencoder)
    with pytest.raises(UserError, match="holds latents with dtype float16, asked for is float32"):
        make(release, autoencoder, dtype="float32")
    other = save_autoencoder(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="holds latents with sha256"):
        make(release, other)
    with pytest.raises(UserError, match="name the release of their images"):
        make(root, autoencoder)
    for command in (
        lambda: repair(str(root)),
        lambda: view(str(root)),
        lambda: render_card(str(root), allow_missing=True),
        lambda: leaderboard(tmp_path, release=[str(root)]),
    ):
        with pytest.raises(UserError, match="holds latents, no images"):
            command()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no autoencoder"):
        make(release, tmp_path / "empty")
    deep = save_autoencoder(tmp_path / "deep", blocks=6)
    with pytest.raises(UserError, match="images of 16 px do not divide by 32"):
        make(release, deep)
    content = json.loads((root / "manifest.json").read_text())
    assert content["origin"]["latents"]["channels"] == 4
    manifest = read_manifest(root)
    odd = {"latents": asdict(latents_of(manifest)) | {"channels": -1}}  # type: ignore[call-overload]
    replace(manifest, origin=odd).write(root)
    with pytest.raises(UserError, match=r"origin\.latents\.channels"):
        latents_of(read_manifest(root))


@pytest.mark.usefixtures("here")
def test_the_command_says_what_it_finds(
    release: Path, autoencoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(release, autoencoder)
    assert json.loads(capsys.readouterr().out)["images"] == 3 * IMAGES
    verify(str(root))
    assert "intact (3 shards, 63 images" in capsys.readouterr().out
    (root / "README.md").unlink()
    with pytest.raises(typer.Exit) as ended:
        verify(str(root))
    assert ended.value.exit_code == EXIT_FOUND_WANTING
