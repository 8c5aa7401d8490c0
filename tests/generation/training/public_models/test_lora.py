"""LoRA of text-to-image pipelines by the command: Stable Diffusion, SDXL, FLUX.2-klein, all tiny.

On images, on their latents, stopped, gone on with, and sampled by diffusers.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from diffusers import Flux2KleinPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file
from transformers import CLIPTextModel

from builder.release.encode_command import encode
from generation.families import generator_source, load_training_recipe, trainable
from generation.families import trained_checkpoint as trained
from generation.families.diffusers import course as course_module
from generation.families.diffusers.network import ADAPTER, LoraNetwork
from generation.families.diffusers.recipe import LoraRecipe, LoraTraining
from generation.families.diffusers.starting_point import starting_network
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.finetuned import fine_tuned
from generation.prompts.prompt_table import PromptTable
from generation.training.data.training_set import TrainingSet, Wanted, open_training_set
from generation.training.loop.state_files import TrainingStates
from generation.training.run import train_course
from release.errors import UserError
from release.streaming.image_cache import ImageCache
from tests.in_process import InProcess
from tests.models.tiny_loras import RECIPE
from tests.models.tiny_models import save_flux2_klein, save_pixart, save_sd, save_sdxl
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
SAVE = {"flux2": save_flux2_klein, "pixart": save_pixart, "sd": save_sd, "sdxl": save_sdxl}
PIPELINES = {"flux2": Flux2KleinPipeline, "sdxl": StableDiffusionXLPipeline}
COMPONENTS = {"flux2": "transformer", "sd": "unet", "sdxl": "unet"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """real/ in colour at 16 px with latents of sdxl's and flux2's autoencoders; the pipelines, and
    a recipe of each. Samples of a training take one step."""
    folder = tmp_path_factory.mktemp("lora")
    parts = [np.stack([paint(i % 4, 20 * part + i, 16, 10) for i in range(20)]) for part in (0, 1)]
    write_release(folder / "real", {"train": parts}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    for name, save in SAVE.items():
        save(folder / name)
        text = RECIPE.format(folder=folder, start=folder / name, steps=4)
        (folder / f"{name}.toml").write_text(text)
    preview = course_module.PREVIEW.model_copy(update={"steps": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(course_module, "PREVIEW", preview)
        patch.setattr(course_module, "ROWS", 1)
        InProcess(patch)
        for name in PIPELINES:
            options: dict[str, Any] = {"config": "16", "name": name, "dtype": "float32"}
            encode(str(folder / "real"), str(folder / name), mirrored=True, as_json=True, **options)
        yield folder


def train(place: Path, name: str, out: str, data: str = "real", **given: Any) -> Path:
    options = {"recipe": str(place / f"{name}.toml"), "data": str(place / data), "as_json": True}
    finetune_generator(**options | {"out": place / out} | given)
    return place / out / "checkpoint"


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


@pytest.fixture(scope="module")
def runs(place: Path) -> Path:
    """`place` with run-sdxl, on images, and run-flux2, on latents."""
    before = {name: hashes(place / name) for name in PIPELINES}
    train(place, "sdxl", "run-sdxl")
    train(place, "flux2", "run-flux2", "real/latents/flux2")
    assert {name: hashes(place / name) for name in before} == before
    return place


def recipe_of(place: Path, name: str, **training: Any) -> LoraRecipe:
    recipe = load_training_recipe(str(place / f"{name}.toml")).with_training(**training)
    assert isinstance(recipe, LoraRecipe)
    return recipe


def images_of(place: Path, data: str = "real") -> TrainingSet:
    return open_training_set(Wanted(place / data, "fit", (16,)), 1e9, ImageCache(limit=0))


def course_of(place: Path, name: str, data: str, **training: Any) -> Any:
    family, start = trainable("diffusers"), str(place / name)
    recipe = family.with_start(recipe_of(place, name, **training), start)
    return family.course(recipe, start, images_of(place, data), PartialState(cpu=True))


# ---------------------------------------------------------------- what a training leaves


@pytest.mark.parametrize("name", PIPELINES)
def test_only_the_adapter_is_kept(runs: Path, name: str) -> None:
    checkpoint = runs / f"run-{name}/checkpoint"
    found = load_file(checkpoint / "pytorch_lora_weights.safetensors")
    assert all(f"{COMPONENTS[name]}." in n and ADAPTER in n for n in found)
    assert {w.dtype for w in found.values()} == {torch.float32}
    learned = [w for n, w in found.items() if "lora_B" in n]  # zero before
    assert sum(bool(w.any()) for w in learned) == len(learned)
    assert not [f for f in hashes(checkpoint) if f.endswith(".safetensors") and "lora" not in f]
    state = torch.load(runs / f"run-{name}/state.pt", weights_only=True)
    for kind in ("modules", "averages"):
        assert len(state[kind]["network"]) == len(found)
    told = fine_tuned(checkpoint)
    assert told is not None
    assert (told.generator, told.resolution, told.precision) == ("diffusers", 16, "float32")
    source = generator_source("diffusers")
    assert told.base.checkpoint == str(runs / name)
    assert told.base.sha256 == source.sha256(runs / name)
    record = json.loads((checkpoint / "training.json").read_text())
    assert record["start_sha256"] == told.base.sha256
    assert record["recipe"]["lora"] == {"rank": 2, "alpha": 4.0, "targets": []}
    assert trained(checkpoint).generator == "diffusers"
    assert source.trained_resolution(checkpoint) == 16  # type: ignore[attr-defined]
    assert (runs / f"run-{name}/samples-000004.png").is_file()


@pytest.mark.parametrize(
    ("name", "data", "precision"),
    [("sd", "real", "no"), ("sdxl", "real", "bf16"), ("flux2", "real", "no")],
)
def test_what_is_frozen_stays_to_the_bit(
    place: Path, tmp_path: Path, name: str, data: str, precision: str
) -> None:
    """Also in bfloat16, in which what is frozen is kept; with blocks computed again."""
    again = {"gradient_checkpointing": precision == "bf16", "flip": True}
    course = course_of(place, name, data, steps=2, precision=precision, **again)
    network = course.objective.modules["network"]
    before = {n: w.detach().clone() for n, w in network.base.named_parameters()}
    config = recipe_of(place, name, steps=2, precision=precision, **again).training
    learner = train_course(
        course, config, TrainingStates(tmp_path, "key", 9), PartialState(cpu=True)
    )
    end = learner.snapshot()
    assert end is not None
    assert course.samples(end).shape == (16, 8 * 16, 3)
    kept = torch.bfloat16 if precision == "bf16" else torch.float32
    for weight_name, weight in network.base.named_parameters():
        is_adapter = ADAPTER in weight_name
        assert weight.dtype == (torch.float32 if is_adapter else kept)
        assert torch.equal(weight, before[weight_name]) != is_adapter, weight_name


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_diffusers_says_what_pefts_network_says(runs: Path, name: str) -> None:
    """Loaded by its own pipeline, as anyone loads it; and that is not what the start says."""
    checkpoint = runs / f"run-{name}/checkpoint"
    pipeline = PIPELINES[name].from_pretrained(runs / name)
    plain = getattr(PIPELINES[name].from_pretrained(runs / name), COMPONENTS[name])
    pipeline.load_lora_weights(checkpoint)
    recipe = trainable("diffusers").with_start(recipe_of(runs, name), str(checkpoint))
    rng = torch.Generator().manual_seed(0)
    shape = (2, 16, 4, 4) if name == "flux2" else (2, 4, 8, 8)
    x, t = torch.randn(shape, generator=rng), torch.tensor([0.3, 0.9])
    text = {"prompt_embeds": torch.randn(2, 20, 48 if name == "flux2" else 32, generator=rng)}
    text["pooled_prompt_embeds"] = torch.randn(2, 16, generator=rng)
    table, numbers = PromptTable(("a", ""), text), torch.tensor([0, 1])
    own = starting_network(recipe, str(checkpoint), table, torch.float32).eval()
    theirs = LoraNetwork(getattr(pipeline, COMPONENTS[name]).eval(), table, own._asked)
    start = LoraNetwork(plain.eval(), table, own._asked)
    assert torch.equal(theirs(x, t, numbers), own(x, t, numbers))
    assert not torch.allclose(start(x, t, numbers), own(x, t, numbers))


def test_prompts_are_embedded_once_and_never_again(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the text encoder was loaded again")

    monkeypatch.setattr(CLIPTextModel, "from_pretrained", refuse)
    train(runs, "sdxl", "again", steps=1)
    sampled(runs / "again/checkpoint")


def sampled(checkpoint: Path, steps: int = 2) -> np.ndarray:
    source = generator_source("diffusers")
    settings = course_module.PREVIEW.model_copy(update={"steps": steps})
    batch = ImageBatch([c.prompt for c in CLASSES], range(4), range(4), None, 16)
    images = source.load(source.locate(str(checkpoint)), compiled=False).sample(batch, settings)
    assert isinstance(images, np.ndarray)
    return images


def test_a_lora_changes_images_and_a_run_goes_on_from_it(runs: Path) -> None:
    made = sampled(runs / "run-sdxl/checkpoint")
    assert (made != sampled(runs / "sdxl")).any()
    further = train(runs, "sdxl", "further", start=str(runs / "run-sdxl/checkpoint"), steps=1)
    told, before = fine_tuned(further), fine_tuned(runs / "run-sdxl/checkpoint")
    assert told is not None
    assert told == before
    source = generator_source("diffusers")
    record = json.loads((further / "training.json").read_text())
    assert record["start_sha256"] == source.sha256(runs / "run-sdxl/checkpoint")


@pytest.mark.parametrize(("name", "data"), [("sdxl", "real"), ("flux2", "real/latents/flux2")])
def test_a_stopped_training_ends_the_same(runs: Path, name: str, data: str) -> None:
    """From the state after two of four steps, as a kill would leave it; latents streamed then."""
    streamed = {"resident_gb": 0, "loaders": 0} if "latents" in data else {}
    run = runs / f"run-{name}"
    whole = hashes(run / "checkpoint")
    (run / "state.pt").unlink()  # the one before it stays
    shutil.rmtree(run / "checkpoint")
    assert hashes(train(runs, name, f"run-{name}", data, **streamed)) == whole


@pytest.mark.parametrize("name", PIPELINES)
def test_images_are_seen_as_their_latents_are(place: Path, name: str) -> None:
    """Some mirrored, the posterior of each sampled by the same numbers."""
    seen = []
    for data in ("real", f"real/latents/{name}"):
        course = course_of(place, name, data, flip=True)
        drawn = course.data.batch(0, 0)
        seen.append(course.objective._latents.of(drawn))
    images, latents = seen
    assert torch.equal(images.conditions, latents.conditions)
    torch.testing.assert_close(images.images, latents.images, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- what is refused


def test_latents_of_another_autoencoder_are_refused(place: Path) -> None:
    with pytest.raises(UserError, match=r"is not the autoencoder of .*flux2: make them with `rel"):
        train(place, "flux2", "refused", "real/latents/sdxl")


def test_a_start_that_does_not_fit_is_one_line(place: Path, tmp_path: Path) -> None:
    recipe, family = recipe_of(place, "flux2"), trainable("diffusers")
    distilled = shutil.copytree(place / "flux2", tmp_path / "distilled")
    index = json.loads((distilled / "model_index.json").read_text())
    (distilled / "model_index.json").write_text(json.dumps(index | {"is_distilled": True}))
    odd = recipe.model_copy(update={"stage": recipe.stage.model_copy(update={"resolution": 18})})
    for changed, start, message in (
        (recipe, distilled, "is distilled to few steps"),
        (recipe, place / "pixart", "is a PixArtAlphaPipeline, which is not trained here: name one"),
        (odd, place / "flux2", "makes images whose side is a multiple of 4 px"),
        (recipe, None, "a LoRA changes a model that there is: name one"),
    ):
        with pytest.raises(UserError, match=message) as error:
            family.with_start(changed, None if start is None else str(start))
        assert "\n" not in str(error.value)


def test_layers_that_there_are_not_are_one_line(place: Path) -> None:
    recipe, family = recipe_of(place, "sdxl"), trainable("diffusers")
    lora = recipe.lora.model_copy(update={"targets": ("to_z",)})
    wanted = family.with_start(recipe.model_copy(update={"lora": lora}), str(place / "sdxl"))
    with pytest.raises(UserError, match=r"\[lora\] targets to_z: .*not found") as error:
        family.memory(wanted, 1)
    assert "\n" not in str(error.value)


def test_a_lora_of_another_rank_is_one_line(runs: Path) -> None:
    (runs / "wide.toml").write_text(
        (runs / "sdxl.toml").read_text().replace("rank = 2", "rank = 3")
    )
    with pytest.raises(
        UserError, match=r"is not that of the recipe: .*2 x .* there and 3 x .*rank"
    ):
        train(runs, "wide", "wide", start=str(runs / "run-sdxl/checkpoint"))


def test_a_base_that_changed_is_refused(runs: Path, tmp_path: Path) -> None:
    source, folder = generator_source("diffusers"), tmp_path / "checkpoint"
    shutil.copytree(runs / "run-sdxl/checkpoint", folder)
    content = json.loads((folder / "finetuned.json").read_text())
    other = shutil.copytree(runs / "sdxl", tmp_path / "other")
    for path, message in (
        (tmp_path / "gone", "changes a model that it does not hold: .*gone"),
        (other, "was trained on another model than .*other is now"),
    ):
        (other / "scheduler/scheduler_config.json").write_text("{}")
        content["base"]["checkpoint"] = str(path)
        (folder / "finetuned.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            source.locate(str(folder))
    (folder / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(UserError, match="is not a whole checkpoint: no pytorch_lora_weights"):
        source.locate(str(folder))


def test_an_adapter_is_not_shared_out() -> None:
    with pytest.raises(ValueError, match="a LoRA has few weights"):
        LoraTraining(steps=1, sharding="full")
