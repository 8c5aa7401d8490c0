"""Checkpoints of ours that are cut or altered: one line, before a build begins."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from generation.families import generator_source
from release.errors import UserError
from tests.campaigns.bad_inputs import LFS_POINTER
from tests.models.codes.tiny_vq_vae import save_tiny
from tests.models.tiny_loras import save_lora
from tests.models.tiny_models import save_sdxl

LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save_lora(folder / "lora", save_sdxl(folder / "sdxl"))
    return folder


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda whole: whole[: len(whole) // 2], lambda _: LFS_POINTER],
    ids=["empty", "half", "Git LFS"],
)
def test_a_cut_lora_is_refused_when_it_is_named(
    place: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(place / "lora", folder)
    source = generator_source("diffusers")
    assert source.locate(str(folder)) == folder
    (folder / LORA).write_bytes(damage((folder / LORA).read_bytes()))
    with pytest.raises(UserError, match=f"{LORA} is cut or damaged") as refusal:
        source.locate(str(folder))
    assert "\n" not in str(refusal.value)


def test_sizes_that_cannot_be_are_refused(place: Path, tmp_path: Path) -> None:
    codes = save_tiny(tmp_path / "codes")
    shutil.copytree(place / "lora", tmp_path / "lora")
    for file, key, generator in (
        (codes / "autoencoder.json", "channels", "vq-vae-2"),
        (codes / "autoencoder.json", "resolution", "vq-vae-2"),
        (tmp_path / "lora/finetuned.json", "resolution", "diffusers"),
    ):
        whole = file.read_bytes()
        file.write_text(json.dumps(json.loads(whole) | {key: -1}))
        source = generator_source(generator)
        with pytest.raises(UserError, match="damaged"):
            source.load(source.locate(str(file.parent)), compiled=False)
        file.write_bytes(whole)
