"""Every built-in recipe through its own file, to Parquet rows, with tiny models for its own.

The recipe is as `load_recipe` has it: resolutions, guidance, encoding, shards. Only the checkpoints
are stand-ins (tests/builder/recipe_stand_ins.py), three of the classes are built, BATCH at a time
and in STEPS steps at most. A new recipe is walked as it comes; it fails until its
checkpoints have one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from diffusers import AutoencoderKLFlux2
from torch import Tensor

import builder.shards.shard
import classifiers.recipes.recipe
import generation.families
import generation.training.recipe
from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.classifiers import with_classifiers
from builder.planning.image_seeds import image_id, image_seed
from builder.planning.prompts import choose_prompts
from builder.planning.recipe import BUILTIN, Recipe, StageRecipe, load_recipe
from builder.release.verify import verify_release
from builder.shards.shard import columns_of, load_generator
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.generator import Generator, ImageBatch, Screened
from release.classes.class_list import ClassEntry, load_classes
from release.files.commit import canonical_json
from release.layout.image_sets import decode
from tests.builder.recipe_stand_ins import CHECKPOINTS, save_stand_in
from tests.in_process import InProcess

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # diffusers with numpy 2
]

RECIPES = sorted(path.stem for path in BUILTIN.glob("*.toml"))
STEPS = 2  # of every sampler, for its cost: the recipes' own are 16 to 1000
BATCH = 4  # at most, for its cost: three images and one that pads
CLASSES = {"imagenet-1k": (0, 134, 517), "fashion-mnist": (0, 4, 9)}  # two of them cranes


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that builds run in, where a recipe's checkpoint is found by its name."""
    monkeypatch.chdir(models)
    monkeypatch.setenv("XDG_CACHE_HOME", str(models / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    # a CPU multiplies in fp8 as well, slowly
    monkeypatch.setattr("builder.planning.checkpoints.fp8_problem", lambda: None)
    decoding_in_float32(monkeypatch)
    yield models
    load_generator.cache_clear()


def decoding_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoencoder of a stage in fp8 is in bfloat16: minutes of convolutions on many CPUs."""
    decode = AutoencoderKLFlux2._decode

    def decoded(model: AutoencoderKLFlux2, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        return decode(model.float(), latents.float(), *args, **kwargs)

    monkeypatch.setattr(AutoencoderKLFlux2, "_decode", decoded)


class FullBatches:
    """A generator whose spare rows, which a build pads a batch with, are earlier ones elsewhere.

    An image that is made twice, in two places, must be the same.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._images: dict[int, np.ndarray] = {}  # by seed
        self._rows: dict[int, tuple[str, int, np.ndarray | None]] = {}

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray:
        parents = batch.parents if batch.parents is not None else [None] * len(batch.seeds)
        rows = zip(batch.prompts, batch.labels, parents, strict=True)
        given = dict(zip(batch.seeds, rows, strict=True))
        self._rows |= given
        seeds = list(given)
        earlier = list(self._rows)
        seeds += [earlier[i % len(earlier)] for i in range(len(batch.seeds) - len(seeds))]
        prompts, labels, parents = zip(*(self._rows[seed] for seed in seeds), strict=True)
        together = None if batch.parents is None else np.stack(parents)
        full = ImageBatch(prompts, labels, seeds, together, batch.resolution)
        images = self._generator.sample(full, settings)
        assert not isinstance(images, Screened)
        for seed, image in zip(seeds, images, strict=True):
            np.testing.assert_array_equal(image, self._images.setdefault(seed, image))
        return images


def in_few_steps(recipe: Recipe) -> Recipe:
    def shortened(stage: StageRecipe) -> StageRecipe:
        steps = {"steps": min(STEPS, stage.sampler.steps)}
        if stage.sampler.diffusion_steps is not None:
            steps["diffusion_steps"] = STEPS
        sampler = stage.sampler.model_copy(update=steps)
        batch = min(BATCH, stage.batch)
        return stage.model_copy(update={"sampler": sampler, "batch": batch})

    return recipe.model_copy(update={"stages": tuple(map(shortened, recipe.stages))})


def named_by(stage: StageRecipe) -> list[str]:
    """Its checkpoint, its guide's, and that of the classifier that guides it."""
    guidance = stage.sampler.classifier
    return [*stage.checkpoints, *([guidance.checkpoint] if guidance else [])]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_the_rows_its_file_speaks_of(
    name: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = in_few_steps(load_recipe(name))
    for stage in recipe.stages:
        for checkpoint in named_by(stage):
            save_stand_in(checkpoint, here)
    classes = load_classes(recipe.classes)
    wanted = [classes[label] for label in CLASSES[recipe.classes]]
    monkeypatch.setattr(
        builder.shards.shard, "load_generator", lambda *of: FullBatches(load_generator(*of))
    )
    InProcess(monkeypatch)
    plan = plan_build(recipe, recipe.stages, wanted, 1, tmp_path / "release", classes)
    outcome = build_release(plan, RunSettings(), lambda _: None)
    assert outcome.manifest is not None
    assert verify_release(plan.release, outcome.manifest, 1, lambda _: None).problems == ()
    prompts = choose_prompts(recipe.prompts, recipe.seed, classes)
    parents: dict[str, str] = {}
    for stage in with_classifiers(recipe.stages, classes, prompts):
        parents = check_rows(plan.release, recipe, stage, wanted, parents)
    folders = {path.name for path in plan.release.iterdir() if path.name.isdigit()}
    assert folders == {str(stage.resolution) for stage in recipe.stages}


def check_rows(
    release: Path,
    recipe: Recipe,
    stage: StageRecipe,
    wanted: list[ClassEntry],
    parents: dict[str, str],
) -> dict[str, str]:
    """The stage's rows are the recipe's; parents: image ids of the stage before, by class."""
    side, source = stage.resolution, generator_source(stage.generator)
    (file,) = (release / str(side)).glob("*.parquet")
    table = pq.read_table(file)
    assert set(table.column_names) == {"image", "label", *columns_of(stage)}
    hashes = [source.sha256(source.locate(checkpoint)) for checkpoint in stage.checkpoints]
    named = dict(zip(("checkpoint_sha256", "guide_sha256"), hashes, strict=False))
    identities = [(recipe.seed, side, entry.wnid, 0, 0) for entry in wanted]
    expected = [
        {
            "label": entry.label,
            "class_id": entry.wnid,
            "prompt": entry.prompt,
            "image_id": image_id(*identity),
            "parent_image_id": parents.get(entry.wnid, ""),
            "seed": image_seed(*identity),
            "index": 0,
            "attempt": 0,
            "generator": stage.generator,
            **named,
            "sampler": canonical_json(stage.sampler.model_dump()),
        }
        for entry, identity in zip(wanted, identities, strict=True)
    ]
    assert table.drop_columns(["image"]).to_pylist() == expected
    images = [decode(row["bytes"]) for row in table["image"].to_pylist()]
    assert {(image.shape, image.dtype) for image in images} == {((side, side, 3), np.dtype("u1"))}
    assert len({image.tobytes() for image in images}) == len(wanted)
    return {row["class_id"]: row["image_id"] for row in expected}


@pytest.mark.parametrize(
    ("folder", "load"),
    [
        (generation.training.recipe.BUILTIN, generation.families.load_training_recipe),
        (classifiers.recipes.recipe.BUILTIN, classifiers.recipes.recipe.load_recipe),
    ],
)
def test_every_recipe_of_a_training_is_read(folder: Path, load: Callable[[str], object]) -> None:
    names = sorted(path.stem for path in folder.glob("*.toml"))
    assert names
    for name in names:
        load(name)


def test_no_stand_in_is_left_over() -> None:
    stages = [stage for name in RECIPES for stage in load_recipe(name).stages]
    named = {checkpoint for stage in stages for checkpoint in named_by(stage)}
    assert set(CHECKPOINTS) == {c for c in named if not c.startswith("builtin:")}
