"""Models in diffusers' layout: what is read, hashed and refused, on tiny models. No network."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMScheduler

from generation.families import generator_source
from generation.pretrained.diffusers_folder import file_sha256, noise_schedule
from release.errors import UserError
from tests.generation.families.references.tiny_deepfloyd import (
    save_base,
    save_super_resolution,
    write_index,
)

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_base(folder / "if-1")
    save_super_resolution(folder / "if-2")
    return folder


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache: empty, and its network off."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_a_published_schedule_is_read_as_diffusers_reads_it(tmp_path: Path, name: str) -> None:
    scheduler = DDPMScheduler(beta_schedule=name, beta_start=0.00085, beta_end=0.012)
    scheduler.save_pretrained(tmp_path)
    schedule, kind = noise_schedule(tmp_path)
    assert kind == "epsilon"
    theirs = scheduler.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(schedule.alphas_cumprod, theirs, rtol=1e-3, atol=1e-9)


def test_a_schedule_that_is_not_supported_is_refused(tmp_path: Path) -> None:
    DDPMScheduler(rescale_betas_zero_snr=True).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not supported: rescale_betas_zero_snr"):
        noise_schedule(tmp_path)


def copied(folder: Path, target: Path) -> Path:
    return shutil.copytree(folder, target / folder.name)


def test_the_hash_covers_what_is_read_and_nothing_else(models: Path, tmp_path: Path) -> None:
    source = generator_source("deepfloyd-if")
    hashes = {source.sha256(models / "if-2")}
    for path in (
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/spiece.model",
        "scheduler/scheduler_config.json",
        "image_noising_scheduler/scheduler_config.json",
    ):
        folder = copied(models / "if-2", tmp_path / path)
        with (folder / path).open("ab") as file:
            file.write(b" ")
        hashes.add(source.sha256(folder))
    assert len(hashes) == 6
    folder = copied(models / "if-2", tmp_path)
    (folder / "README.md").write_text("notes")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"another precision")
    (folder / "safety_checker").mkdir()
    assert source.sha256(folder) == source.sha256(models / "if-2")


def hub_copy(model: Path, hub: Path, repo: str) -> Path:
    """`model` as the Hub's cache keeps it: large files are links to blobs named by SHA-256."""
    home = hub / f"models--{repo.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = home / "snapshots" / revision
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    shutil.copytree(model, snapshot)
    for file in snapshot.rglob("*.safetensors"):
        blob = home / "blobs" / file_sha256(file)
        shutil.move(file, blob)
        file.symlink_to(blob)
    return snapshot


def test_a_model_in_the_hubs_cache_is_found_and_hashed_by_its_blobs(
    models: Path, hub: Path
) -> None:
    source = generator_source("deepfloyd-if")
    snapshot = hub_copy(models / "if-1", hub, "DeepFloyd/IF-I-XL-v1.0")
    revision = snapshot.name
    assert source.locate("DeepFloyd/IF-I-XL-v1.0") == snapshot
    assert source.locate(f"DeepFloyd/IF-I-XL-v1.0@{revision}") == snapshot
    assert source.sha256(snapshot) == source.sha256(models / "if-1")
    weights = snapshot / "unet" / "diffusion_pytorch_model.safetensors"
    blob = weights.resolve()
    blob.chmod(0o600)
    blob.write_bytes(b"")  # the name of the blob is taken at its word: nothing large is read
    assert source.sha256(snapshot) == source.sha256(models / "if-1")


# ---------------------------------------------------------------- what goes wrong, in one line


def located(checkpoint: str) -> str:
    with pytest.raises(UserError) as error:
        generator_source("deepfloyd-if").locate(checkpoint)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "DeepFloyd/IF-I-XL-v1.0",
        "DeepFloyd/IF-II-L-v1.0",
        "stabilityai/stable-diffusion-x4-upscaler",
    ],
)
def test_weights_out_of_reach_end_in_a_line_that_says_what_to_do(name: str) -> None:
    message = located(name)
    for advice in (name, "licence", "hf auth login", "local folder", "--recipe fashion-mnist"):
        assert advice in message


def hub_error(kind: str) -> Exception:
    import huggingface_hub.errors

    error: Exception = getattr(huggingface_hub.errors, kind).__new__(
        getattr(huggingface_hub.errors, kind)
    )
    return error


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("GatedRepoError", "is gated: accept its licence at"),
        ("RepositoryNotFoundError", "the Hub shows no model"),
        ("RevisionNotFoundError", "at revision v9"),
        ("HfHubHTTPError", "the Hub did not give it"),
    ],
)
def test_what_the_hub_answers_becomes_advice(
    monkeypatch: pytest.MonkeyPatch, kind: str, advice: str
) -> None:
    def answer(*_: object, **__: object) -> None:
        raise hub_error(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    message = located("DeepFloyd/IF-I-XL-v1.0@v9")
    assert advice in message
    assert "--recipe fashion-mnist" in message


def test_a_folder_that_lacks_something_names_it(models: Path, tmp_path: Path) -> None:
    assert "no model_index.json" in located(str(tmp_path))
    for component in ("unet", "text_encoder", "scheduler", "image_noising_scheduler"):
        folder = copied(models / "if-2", tmp_path / component)
        shutil.rmtree(folder / component)
        assert f"{component}/" in located(str(folder))
    folder = copied(models / "if-2", tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "complete weights in unet/" in located(str(folder))
    write_index(folder, "FluxPipeline")
    assert "is a FluxPipeline; the generator reads IFPipeline" in located(str(folder))
    assert "neither a folder" in located("no such model")


def test_finding_a_model_does_not_import_torch() -> None:
    code = (
        "import sys\n"
        "from generation.families import generator_source\n"
        "generator_source('deepfloyd-if')\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
