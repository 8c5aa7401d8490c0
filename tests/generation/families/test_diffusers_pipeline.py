"""Any text-to-image pipeline of diffusers: five kinds, tiny, through one adapter."""

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    Flux2KleinPipeline,
    PixArtAlphaPipeline,
    SanaPipeline,
    StableDiffusionXLPipeline,
)
from transformers import CLIPTextModel, T5EncoderModel

from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.generator import Generator, ImageBatch
from release.errors import UserError
from tests.generation.families.references.tiny_deepfloyd import PROMPTS
from tests.models.tiny_models import save_flux2_klein, save_lcm, save_pixart, save_sana, save_sdxl

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
SAVE: dict[str, Callable[[Path], Path]] = {
    "flux2-klein": save_flux2_klein,
    "lcm": save_lcm,
    "pixart": save_pixart,
    "sana": save_sana,
    "sdxl": save_sdxl,
}
NATIVE = SamplerConfig(method="native", steps=2, guidance=3.0)
BATCH = ImageBatch(PROMPTS[:3], [0, 1, 2], [11, 22, 33], None, 16)
SIDES = dict.fromkeys(SAVE, 16) | {"sana": 32}  # its pipeline takes multiples of 32 alone


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, save in SAVE.items():
        save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def load(folder: Path) -> Generator:
    source = generator_source("diffusers")
    return source.load(source.locate(str(folder)), compiled=False)


@pytest.mark.parametrize("name", SAVE)
def test_an_image_depends_on_its_own_row_alone(models: Path, name: str) -> None:
    generator = load(models / name)
    batch, side = replace(BATCH, resolution=SIDES[name]), SIDES[name]
    images = generator.sample(batch, NATIVE)
    assert images.shape == (3, side, side, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 3
    seeded = generator.sample(replace(batch, seeds=[11, 99, 33]), NATIVE)
    assert (seeded != images).any(axis=(1, 2, 3)).tolist() == [False, True, False]
    turned = ImageBatch(PROMPTS[2::-1], [2, 1, 0], [33, 22, 11], None, side)
    np.testing.assert_array_equal(generator.sample(turned, NATIVE)[::-1], images)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("flux2-klein", Flux2KleinPipeline),
        ("pixart", PixArtAlphaPipeline),
        ("sana", SanaPipeline),
        ("sdxl", StableDiffusionXLPipeline),
    ],
)
@torch.no_grad()
def test_cached_prompts_make_the_pipelines_own_images(models: Path, name: str, kind: type) -> None:
    pipeline = kind.from_pretrained(models / name)
    pipeline.set_progress_bar_config(disable=True)
    extra = {"use_resolution_binning": False} if name in ("pixart", "sana") else {}
    own = pipeline(
        prompt=list(PROMPTS[:3]),
        num_inference_steps=2,
        guidance_scale=3.0,
        height=SIDES[name],
        width=SIDES[name],
        generator=[torch.Generator().manual_seed(seed) for seed in BATCH.seeds],
        output_type="np",
        **extra,
    ).images
    made = load(models / name).sample(replace(BATCH, resolution=SIDES[name]), NATIVE)
    assert np.abs(made - np.rint(own * 255)).max() <= 1


@pytest.mark.parametrize(("name", "encoder"), [("pixart", T5EncoderModel), ("sdxl", CLIPTextModel)])
def test_prompts_are_encoded_once_and_the_encoder_goes(
    models: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, encoder: type
) -> None:
    images = load(models / name).sample(BATCH, NATIVE)
    assert len(list(cache.rglob("*.safetensors"))) == 4  # three prompts and the null prompt
    assert not [x for x in gc.get_objects() if type(x) is encoder]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the text encoder was loaded again")

    monkeypatch.setattr(encoder, "from_pretrained", refuse)
    np.testing.assert_array_equal(load(models / name).sample(BATCH, NATIVE), images)


def test_a_model_that_brings_its_own_code_is_refused(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "pixart", tmp_path / "pixart")
    index = json.loads((folder / "model_index.json").read_text())
    for change, named in (
        ({"transformer": ["my_transformer", "MyTransformer"]}, "transformer is of"),
        ({"_class_name": ["pipeline", "MyPipeline"]}, "its pipeline is its own"),
    ):
        (folder / "model_index.json").write_text(json.dumps(index | change))
        with pytest.raises(UserError, match=f"needs code that comes with the model .{named}"):
            generator_source("diffusers").locate(str(folder))


def test_what_does_not_fit_is_refused(models: Path, tmp_path: Path) -> None:
    generator = load(models / "lcm")
    with pytest.raises(UserError, match='method = "native"'):
        generator.sample(BATCH, SamplerConfig())
    parents = ImageBatch(PROMPTS[:1], [0], [1], np.zeros((1, 4, 4, 3), np.uint8), 16)
    with pytest.raises(UserError, match="must be a first stage"):
        generator.sample(parents, NATIVE)
    folder = shutil.copytree(models / "lcm", tmp_path / "lcm")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "NewPipeline"}))
    with pytest.raises(UserError, match="no text-to-image pipeline of this diffusers"):
        load(folder)
