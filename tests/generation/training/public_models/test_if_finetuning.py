"""DeepFloyd IF fine-tuned as the shipped recipes say, at their sizes, on tiny models of its kind.

The models are saved as the Hub has them: in shards, as float16 alone. Nothing is fetched.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import T5EncoderModel

from builder.builds.build import plan_build
from builder.builds.build import write_release as write_built
from builder.builds.run import Outcome
from builder.planning.recipe import load_recipe
from cards.card.facts import stage_facts
from cards.card.provenance import stage_provenance
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, load_training_recipe, trained_checkpoint
from generation.families.deepfloyd_if.recipe import DeepFloydIFRecipe
from generation.families.deepfloyd_if.starting_point import starting_network, with_network_of
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.diffusers_weights import save_weights
from generation.pretrained.finetuned import fine_tuned, lasting_name
from metrics.states.frechet import GaussianReference, Moments, bucket_moments
from metrics.states.intervals import jackknife
from release.classes.class_list import load_classes
from release.environment import own_environment
from release.errors import UserError
from release.layout.image_sets import decode
from release.layout.manifest import read_manifest
from release.layout.shard_commit import committed_records
from tests.generation.families.references.tiny_deepfloyd import (
    if_scheduler,
    if_unet,
    save_t5,
    save_upscaler,
    write_index,
)
from tests.sets.small_releases import CLASSES, write_release

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute")

COLOURS = np.array([(215, 50, 50), (50, 205, 60), (60, 60, 220), (220, 210, 60)])
IMAGES = 40
RECIPE = """
base = "imagenet-if-{side}"
name = "tiny-{side}"
classes = "{folder}/classes.csv"

[stage]
resolution = {resolution}

[training]
steps = {steps}
batch = {batch}
optimizer = "adam"
learning_rate = 5e-3
warmup = 0
ema = 0.9
precision = "no"
save_every = {save_every}
keep_every = {steps}
"""
CHAIN = """
name = "fine-tuned"
description = "two fine-tuned stages, an upscaler as published"
classes = "{folder}/classes.csv"
dataset = "shapes"
regime = "B"
license = "other"

[shard]
classes = 4
indices = 1

[[stage]]
resolution = 64
generator = "deepfloyd-if"
checkpoint = "{folder}/run-64/checkpoint"
batch = 4
sampler = {{ steps = 2, guidance = 1.5 }}
sampler_source = "a test's"
model = {{ name = "Tiny base", license = "other", images = "nothing", source = "a test" }}

[[stage]]
resolution = 256
generator = "deepfloyd-if"
checkpoint = "{folder}/run-256/checkpoint"
batch = 4
sampler = {{ steps = 2 }}
sampler_source = "a test's"
model = {{ name = "Tiny second", license = "other", images = "nothing", source = "a test" }}

[[stage]]
resolution = 1024
regime = "A"
generator = "deepfloyd-if"
checkpoint = "{folder}/x4"
batch = 1
sampler = {{ method = "ddim", steps = 1, threshold = "none" }}
sampler_source = "a test's"
model = {{ name = "Tiny third", license = "other", images = "nothing", source = "a test" }}
"""


def coloured(side: int) -> np.ndarray:
    """uint8[IMAGES,side,side,3]: a colour for each class, somewhat off in each image."""
    rng = np.random.default_rng(7)
    means = COLOURS[np.arange(IMAGES) % 4] + rng.normal(0, 12, (IMAGES, 3))
    return np.tile(means.clip(0, 255).astype(np.uint8)[:, None, None], (1, side, side, 1))


def save_as_the_hub_has_it(folder: Path) -> None:
    """Half precision alone, in shards."""
    encoder = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float16)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float16)
    for model, place in ((encoder, "text_encoder"), (unet, "unet")):
        for file in (folder / place).glob("*.safetensors"):
            file.unlink()
        size = "3KB" if place == "text_encoder" else "60KB"
        model.save_pretrained(folder / place, variant="fp16", max_shard_size=size)
        assert len(list((folder / place).glob("*fp16-*.safetensors"))) > 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with models (if-8 of 8 px), real/ and a prompt cache of the tests' own."""
    folder = tmp_path_factory.mktemp("if")
    torch.manual_seed(0)
    save_t5(folder / "t5")  # all stages have the same one
    for name, channels, side, level, halvings, kind in (
        ("if-8", 3, 8, None, 1, "IFPipeline"),
        ("if-1", 3, 64, None, 4, "IFPipeline"),
        ("if-2", 6, 256, "timestep", 5, "IFSuperResolutionPipeline"),
    ):
        shutil.copytree(folder / "t5", folder / name)
        if_unet(channels, side, level, halvings).save_pretrained(folder / name / "unet")
        if_scheduler().save_pretrained(folder / name / "scheduler")
        write_index(folder / name, kind)
        save_as_the_hub_has_it(folder / name)
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    noising.save_pretrained(folder / "if-2/image_noising_scheduler")
    save_upscaler(folder / "x4", side=128, halvings=3, attends=False)
    shards = []
    for side in (8, 64, 256):  # the same images at all sizes
        write_release(folder / "real", {"train": [coloured(side)]}, "real")
        shards += read_manifest(folder / "real").shards
    replace(read_manifest(folder / "real"), shards=tuple(shards)).write(folder / "real")
    rows = [f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES]
    (folder / "classes.csv").write_text("\n".join(["id,wnid,name,prompt", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield folder


def train(
    place: Path, side: int, start: str, out: str, steps: int, batch: int = 2, save_every: int = 2
) -> Path:
    """From the shipped recipe of the first stage, of 64 px or of another side, or of the second."""
    recipe = place / f"{out}.toml"
    settings = {"side": max(side, 64), "resolution": side, "steps": steps, "batch": batch}
    recipe.write_text(RECIPE.format(folder=place, save_every=save_every, **settings))
    finetune_generator(
        recipe=str(recipe),
        data=str(place / "real"),
        out=place / out,
        start=str(place / start),
        as_json=True,
    )
    return place / out


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


@pytest.fixture(scope="module")
def runs(place: Path) -> Path:
    """`place` with run-64 and run-256."""
    before = {name: hashes(place / name) for name in ("if-1", "if-2")}
    train(place, 64, "if-1", "run-64", steps=2)
    train(place, 256, "if-2", "run-256", steps=2)
    assert {name: hashes(place / name) for name in before} == before
    return place


# ---------------------------------------------------------------- what a training leaves


def test_only_the_unet_is_trained_and_saved(runs: Path) -> None:
    for run, start in (("run-64", "if-1"), ("run-256", "if-2")):
        folder = runs / run / "checkpoint"
        assert not (folder / "text_encoder").exists()
        old, new = (
            UNet2DConditionModel.from_pretrained(
                root / "unet", variant=variant, torch_dtype=torch.float32
            ).state_dict()
            for root, variant in ((runs / start, "fp16"), (folder, None))
        )
        assert old.keys() == new.keys()
        assert sum(not torch.equal(old[name], new[name]) for name in old) > len(old) // 2
        schedules = [f for f in hashes(folder) if f.endswith("scheduler_config.json")]
        assert schedules
        for name in ("model_index.json", *schedules):
            assert (folder / name).read_bytes() == (runs / start / name).read_bytes()
        told = fine_tuned(folder)
        assert told is not None
        assert (told.generator, told.precision) == ("deepfloyd-if", "float32")
        assert told.base.checkpoint == str(runs / start)
        assert told.base.sha256 == generator_source("deepfloyd-if").sha256(runs / start)
        record = json.loads((folder / "training.json").read_text())
        assert record["start_sha256"] == told.base.sha256
        assert record["recipe"]["network"]["encoder_hid_dim"] == 16


def test_prompts_are_embedded_once_and_never_again(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the training, its samples and the images it makes."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the text encoder was loaded again")

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", refuse)
    train(runs, 8, "if-8", "again", steps=1)
    sampled(runs / "again/checkpoint", 1)


def sampled(checkpoint: Path, per_class: int) -> np.ndarray:
    source = generator_source("deepfloyd-if")
    n = 4 * per_class
    prompts = [CLASSES[i % 4].prompt for i in range(n)]
    batch = ImageBatch(prompts, [i % 4 for i in range(n)], range(n), None, 8)
    settings = SamplerConfig(method="dpm-solver++", steps=6)
    images = source.load(source.locate(str(checkpoint)), compiled=False).sample(batch, settings)
    assert isinstance(images, np.ndarray)
    return images


def test_images_move_towards_the_training_set(place: Path) -> None:
    """Fréchet distance of mean colours, with the intervals that scores have."""

    def features(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1, 3).mean(axis=1) / 255

    target = GaussianReference.from_moments(Moments.from_features(features(coloured(8))))
    train(place, 8, "if-8", "run-8", steps=150, batch=16, save_every=1000)
    found = []
    for checkpoint in (place / "if-8", place / "run-8/checkpoint"):
        made = features(sampled(checkpoint, per_class=50))
        keys = np.random.default_rng(0).integers(1 << 63, size=len(made), dtype=np.uint64)
        found.append(jackknife(bucket_moments(made, keys), target.distance))
    before, after = found
    assert before.interval is not None
    assert after.interval is not None
    assert after.interval[1] < before.interval[0]


def test_a_build_takes_the_checkpoints_as_they_are(runs: Path) -> None:
    """64 to 256 to 1024 px, the last stage as it was published."""
    recipe_file = runs / "chain.toml"
    recipe_file.write_text(CHAIN.format(folder=runs))
    recipe = load_recipe(str(recipe_file))
    release = runs / "release"
    classes = load_classes(recipe.classes)[:1]
    plan = plan_build(recipe, recipe.stages, classes, 1, release, load_classes(recipe.classes))
    for job in plan.jobs():
        job.run()
    for side in (64, 256, 1024):
        rows = pq.read_table(release / str(side)).to_pylist()
        assert [decode(row["image"]["bytes"]).shape for row in rows] == [(side, side, 3)]
    records = committed_records(release, plan.shards)
    manifest = write_built(plan, Outcome(tuple(records.values()), (), (), (own_environment(),)))
    told = fine_tuned(runs / "run-256/checkpoint")
    assert told is not None
    base = {"checkpoint": str(runs / "if-2"), "sha256": told.base.sha256}
    stages = manifest.origin["stages"]
    assert [stage.get("fine_tuned_from") for stage in stages][1:] == [base, None]
    facts = stage_facts(manifest)
    derived = stage_provenance(manifest, facts[1], facts[0])["prov:wasDerivedFrom"][-1]
    assert derived["prov:wasDerivedFrom"][0]["identifier"] == f"sha256:{base['sha256']}"


def test_select_checkpoint_knows_a_run_of_if(runs: Path) -> None:
    found = trained_checkpoint(runs / "run-256/checkpoints/2")
    assert (found.generator, found.resolution) == ("deepfloyd-if", 256)
    assert found.sha256 == generator_source("deepfloyd-if").sha256(runs / "run-256/checkpoint")


def test_a_checkpoint_is_a_start_and_keeps_its_base(runs: Path) -> None:
    again = train(runs, 64, "run-64/checkpoint", "further", steps=1)
    told, before = (fine_tuned(r / "checkpoint") for r in (again, runs / "run-64"))
    assert told is not None
    assert before is not None
    assert told.base == before.base
    record = json.loads((again / "training.json").read_text())
    start = runs / "run-64/checkpoint"
    assert record["start_sha256"] == generator_source("deepfloyd-if").sha256(start)


def test_a_stopped_training_ends_the_same(place: Path) -> None:
    """From the state after two of four steps, as a kill would leave it."""
    run = train(place, 8, "if-8", "stopped", steps=4)
    whole = hashes(run / "checkpoint")
    (run / "state.pt").unlink()  # the one before it stays
    shutil.rmtree(run / "checkpoint")
    assert hashes(train(place, 8, "if-8", "stopped", steps=4) / "checkpoint") == whole


def test_a_text_encoder_that_changed_is_refused(runs: Path, tmp_path: Path) -> None:
    """Named in the checkpoint by its hash; a right copy in the checkpoint's folder will do."""
    source, folder = generator_source("deepfloyd-if"), tmp_path / "checkpoint"
    shutil.copytree(runs / "run-64/checkpoint", folder)
    wanted = source.sha256(folder)
    content = json.loads((folder / "finetuned.json").read_text())
    content["base"]["checkpoint"] = str(tmp_path / "gone")
    (folder / "finetuned.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"goes on using the text encoder of its base: .*gone"):
        source.locate(str(folder))
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(runs / "if-1" / name, folder / name)
    assert source.sha256(source.locate(str(folder))) == wanted
    (folder / "tokenizer/tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="trained with another text encoder"):
        source.locate(str(folder))


@pytest.mark.parametrize(
    ("side", "start", "message"),
    [
        (64, "if-2", "is a second stage of IF, the recipe trains a first stage"),
        (64, "x4", "is a StableDiffusionUpscalePipeline, which is not trained here"),
        (8, "if-1", "makes images of 64 px, the recipe's stage has resolution 8"),
        (
            64,
            "DeepFloyd/IF-I-M-v1.0",
            "is not on this machine and the Hub did not give it.*--from$",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    place: Path, side: int, start: str, message: str
) -> None:
    named = start if start.startswith("Deep") else str(place / start)
    recipe = load_training_recipe("imagenet-if-64")
    assert isinstance(recipe, DeepFloydIFRecipe)
    stage = recipe.stage.model_copy(update={"resolution": side})
    with pytest.raises(UserError, match=message) as error:
        with_network_of(recipe.model_copy(update={"stage": stage}), named)
    assert "\n" not in str(error.value)


def test_a_text_encoder_of_another_width_is_one_line(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "if-8", tmp_path / "other")
    wide = if_unet(3, 8, None)
    config = dict(wide.config) | {"encoder_hid_dim": 32}
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet", variant="fp16")
    with pytest.raises(UserError, match=r"its U-Net reads texts of width 32, its .* writes 16"):
        starting_network(folder, ("a",), "float32", "cpu")


def test_a_model_is_named_so_that_others_find_it(tmp_path: Path) -> None:
    commit = tmp_path / "snapshots/0123abc"
    commit.mkdir(parents=True)
    assert lasting_name("me/model", commit) == "me/model@0123abc"
    assert lasting_name("me/model@v1", commit) == "me/model@0123abc"
    assert lasting_name(str(tmp_path), tmp_path) == str(tmp_path.resolve())


def test_large_networks_are_saved_in_shards(tmp_path: Path) -> None:
    unet = if_unet(3, 8, None)
    save_weights(unet, tmp_path, torch.float32, largest="30KB")
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 1
    found = UNet2DConditionModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in unet.state_dict().items())


def test_a_gpu_samples_in_the_precision_of_the_training() -> None:
    assert Placement("cuda", torch.bfloat16).on_gpu("float32").dtype == torch.float32
    assert Placement("cpu", torch.float32).on_gpu("bfloat16").dtype == torch.float32
