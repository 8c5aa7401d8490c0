"""Every family of denoisers through finetune-generator: stopped, gone on, started from, refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from generation.denoisers.course import denoiser_course
from generation.denoisers.learning import NETWORK
from generation.denoisers.source import DenoiserGenerator
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import TRAINED, generator_source, trainable, trained_checkpoint
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch, Screened
from generation.training.data.images import TrainingImages
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.run import train_course
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.models.tiny_denoisers import KINDS, PROMPTS, save_denoiser, tiny_denoiser, tiny_recipe
from tests.recipe_text import as_toml
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

LOW = 8  # px of parents


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/, in colour at 8 and 16 px, classes.csv and KIND.toml of every kind."""
    folder = tmp_path_factory.mktemp("denoisers")
    shards = []
    for side in (LOW, 16):
        images = np.stack([paint(i % 4, i, side, 10) for i in range(40)])
        write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
        shards.extend(read_manifest(folder / "real").shards)
    both = replace(read_manifest(folder / "real"), shards=tuple(shards))
    both.write(folder / "real")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    for kind in KINDS:
        recipe = tiny_recipe(kind, str(folder / "classes.csv"))
        (folder / f"{kind}.toml").write_text(as_toml(recipe))
    return folder


def train(place: Path, kind: str, out: str, **options: Any) -> Path:
    settings = {"recipe": str(place / f"{kind}.toml"), "data": str(place / "real")}
    finetune_generator(**settings | {"out": place / out, "as_json": True} | options)
    return place / out / "checkpoint"


def test_every_trained_denoiser_has_a_kind_here() -> None:
    named = {name for name, module in TRAINED.items() if module.endswith(":TRAINABLE")}
    assert named == {generator for generator, *_ in KINDS.values()}


def batch(prompts: list[str], seeds: list[int], resolution: int, low: int | None) -> ImageBatch:
    parents = None
    if low is not None:
        parents = np.random.default_rng(3).integers(0, 256, (len(prompts), low, low, 3), np.uint8)
    return ImageBatch(prompts, [0] * len(prompts), seeds, parents, resolution)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_trained_by_the_command_sampled_and_trained_on(
    kind: str, place: Path
) -> None:
    checkpoint = train(place, kind, f"{kind}-run")
    found = trained_checkpoint(checkpoint)
    assert (found.generator, found.resolution) == (KINDS[kind][0], 16)
    source = generator_source(found.generator)
    assert source.unconditional(checkpoint) is False
    low = tiny_recipe(kind).stage.low_resolution
    assert source.size_problem(checkpoint, 16, low) is None
    assert "makes images of 16 px" in source.size_problem(checkpoint, 32, low)
    generator = source.load(checkpoint, compiled=False)
    asked = batch(["class 0", "class 3", "class 1"], [1, 2, 3], 16, low)
    settings = SamplerConfig(method="ddim", steps=3, guidance=1.5)
    images = generator.sample(asked, settings)
    assert not isinstance(images, Screened)
    assert (images.shape, images.dtype) == ((3, 16, 16, 3), np.uint8)
    order = [2, 0, 1]
    parents = None if asked.parents is None else asked.parents[order]
    rows = (asked.prompts, asked.labels, asked.seeds)
    shuffled = ImageBatch(*([row[i] for i in order] for row in rows), parents, 16)
    np.testing.assert_array_equal(generator.sample(shuffled, settings), images[order])

    samples = sorted(path.name for path in (place / f"{kind}-run").glob("samples-*.png"))
    assert samples == ["samples-000002.png", "samples-000004.png"]
    further = train(place, kind, f"{kind}-further", start=str(checkpoint), steps=2)
    record = json.loads((further / "training.json").read_text())
    assert record["start_sha256"] == found.sha256
    one, other = (load_file(folder / "weights.safetensors") for folder in (checkpoint, further))
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_is_killed_goes_on_to_the_same_weights(kind: str, tmp_path: Path) -> None:
    training = {"steps": 5, "accumulation": 2, "flip": True, "save_every": 2}
    recipe = tiny_recipe(kind, training=training)
    low = recipe.stage.low_resolution
    generator = torch.Generator().manual_seed(5)

    def images(side: int) -> torch.Tensor:
        return torch.randint(0, 256, (24, 3, side, side), dtype=torch.uint8, generator=generator)

    data = TrainingImages(images(16), None if low is None else images(low), torch.arange(24) % 3)

    def run(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if done == stop:
                raise KeyboardInterrupt

        processes, family = PartialState(cpu=True), trainable(recipe.generator).family
        course = denoiser_course(family, tiny_denoiser(kind), recipe, data, processes)
        states = TrainingStates(folder, "key", recipe.training.save_every)
        learner = train_course(course, recipe.training, states, processes, Hooks(advance))
        return {k: v.clone() for k, v in learner.trained[NETWORK].state_dict().items()}

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 3)
    resumed = run(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    start = tiny_denoiser(kind).state_dict()
    assert any(not torch.equal(whole[name], start[name]) for name in whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_classes_are_told_apart(kind: str) -> None:
    prompts = tuple(f"thing {i}" for i in range(1000))
    network = tiny_denoiser(kind, prompts)
    assert network.null_condition == 1000
    generator = DenoiserGenerator(network)
    low = network.config.stage.low_resolution
    asked = ["thing 0", "thing 517", "thing 999"]
    made = generator.sample(batch(asked, [7, 7, 7], 16, low), SamplerConfig(steps=2))
    images = made.images if isinstance(made, Screened) else made
    if low is None:
        assert len({image.tobytes() for image in images}) == 3
    with pytest.raises(UserError, match="class 'thing 1000' is not among the 1000"):
        generator.sample(batch(["thing 1000"], [1], 16, low), SamplerConfig(steps=2))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unconditional_network_is_told_nothing(kind: str, tmp_path: Path) -> None:
    stage = {"conditioning": "none"}
    network = tiny_denoiser(kind, stage=stage)
    assert network.config.classes == ("",)
    assert generator_source(KINDS[kind][0]).unconditional(
        save_denoiser(tmp_path, kind, stage=stage)
    )
    low, settings = network.config.stage.low_resolution, SamplerConfig(steps=2)
    one, other = (
        DenoiserGenerator(network).sample(batch([name], [7], 16, low), settings)
        for name in ("anything", "else")
    )
    np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="nothing to guide by"):
        DenoiserGenerator(network).sample(
            batch(["x"], [7], 16, low), SamplerConfig(steps=2, guidance=2.0)
        )


def damaged(folder: Path, what: str) -> Path:
    save_denoiser(folder, "rin")
    config, weights = folder / "network.json", folder / "weights.safetensors"
    if what == "cut config":
        config.write_bytes(config.read_bytes()[:40])
    elif what == "list":
        config.write_text("[]")
    elif what == "no stage":
        config.write_text(json.dumps({"generator": "rin"}))
    elif what == "cut weights":
        weights.write_bytes(weights.read_bytes()[:2000])
    elif what == "another shape":
        content = json.loads(config.read_text())
        content["network"]["latents"] = 7
        config.write_text(json.dumps(content))
    elif what == "no weights":
        weights.unlink()
    return folder


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("cut config", r"network\.json is damaged"),
        ("list", "holds no JSON object"),
        ("no stage", "is damaged: 'stage'"),
        ("cut weights", "is not a whole checkpoint"),
        ("another shape", "is not a whole checkpoint"),
        ("no weights", "is not a checkpoint of rin: no weights.safetensors there"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(what: str, words: str, tmp_path: Path) -> None:
    folder = damaged(tmp_path / "checkpoint", what)
    source = generator_source("rin")
    with pytest.raises(UserError, match=words) as refusal:
        source.load(source.locate(str(folder)), compiled=False)
    assert "\n" not in str(refusal.value)


def test_another_familys_checkpoint_and_other_starts_are_refused(
    place: Path, tmp_path: Path
) -> None:
    other = save_denoiser(tmp_path / "unet", "unet")
    with pytest.raises(UserError, match="is a checkpoint of simple-diffusion, not rin"):
        generator_source("rin").locate(str(other))
    assert generator_source("rin").trained_resolution(other) is None
    wrong = save_denoiser(tmp_path / "rin", "rin", network={"latents": 8})
    with pytest.raises(UserError, match=r"has latents 8, the recipe's \[network\] 6"):
        train(place, "rin", "nowhere", start=str(wrong))
    classes = save_denoiser(tmp_path / "fruit", "rin")
    with pytest.raises(UserError, match="learned other classes than those of"):
        train(place, "rin", "nowhere", start=str(classes))
    assert not (place / "nowhere").exists()


@pytest.mark.parametrize("kind", ["unet", "rin"])
def test_a_grey_stage_refuses_images_in_colour(kind: str, place: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(kind, str(place / "classes.csv"), stage={"channels": 1})
    (tmp_path / "grey.toml").write_text(as_toml(recipe))
    with pytest.raises(UserError, match="are in colour, which the recipe's"):
        train(place, kind, "nowhere", recipe=str(tmp_path / "grey.toml"))


def test_noise_in_parents_has_no_effect_and_is_refused() -> None:
    with pytest.raises(UserError, match="knows no noise in parents"):
        DenoiserGenerator(tiny_denoiser("rin")).sample(
            batch([PROMPTS[0]], [1], 16, None), SamplerConfig(steps=2, noise_augmentation=0.2)
        )
