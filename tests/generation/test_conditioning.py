"""Networks told a class, or nothing: trained and sampled as those told a text."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tests.stand_in_rule
from builder.builds.build import plan_build
from builder.planning.recipe import load_recipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.families.pixel_unet.checkpoint import load_checkpoint, save_checkpoint
from generation.families.pixel_unet.checkpoint_files import BUILTIN, checkpoint_sha256
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import StageConfig
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.prompts.conditioning import Conditioning, embed_conditions
from generation.training.data.images import TrainingImages
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.forked_commands import run
from tests.models.tiny_network import SHAPE, tiny_conditioned
from tests.models.train_tiny import train_stage
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

NAMES = ("dark", "bright")
LEVELS = (40, 215)
SAMPLER = SamplerConfig(method="dpm-solver++", steps=8)
BUILD = """
name = "tiny"
description = "tiny"
classes = "{classes}"
dataset = "test"
regime = "B"
license = "other"

[[stage]]
resolution = 8
generator = "pixel-unet"
checkpoint = "{checkpoint}"
batch = 4
sampler = {{ method = "dpm-solver++", steps = 4 }}
{accept}
"""


def trained(conditioning: Conditioning, folder: Path) -> PixelUNetGenerator:
    """Of images of one level: dark ones, bright ones."""
    network = tiny_conditioned(conditioning, NAMES)
    labels = torch.arange(32) % 2
    images = torch.tensor(LEVELS, dtype=torch.uint8)[labels].view(-1, 1, 1, 1)
    index = network.conditions(NAMES)
    data = TrainingImages(images.expand(-1, 3, 8, 8).contiguous(), None, index[labels])
    config = PixelUNetTraining(steps=110, batch=16, learning_rate=3e-3, warmup=10, ema=0.95)
    average, _ = train_stage(network, data, config, folder, lambda _: None, lambda *_: None)
    save_checkpoint(average, folder / "checkpoint", torch.float16)
    source = generator_source("pixel-unet")
    loaded = source.load(source.locate(str(folder / "checkpoint")), compiled=False)
    assert isinstance(loaded, PixelUNetGenerator)
    return loaded


def levels(generator: PixelUNetGenerator, names: list[str], guidance: float = 1.0) -> np.ndarray:
    batch = ImageBatch(names, [0] * len(names), list(range(len(names))), None, 8)
    settings = SAMPLER.model_copy(update={"guidance": guidance})
    return generator.sample(batch, settings).mean(axis=(1, 2, 3))


def test_a_network_told_the_class_makes_that_class(tmp_path: Path) -> None:
    generator = trained("class", tmp_path)
    for guidance in (1.0, 1.5):
        found = levels(generator, ["dark"] * 8 + ["bright"] * 8, guidance)
        assert (found[:8] < 100).all()
        assert (found[8:] > 155).all()
    with pytest.raises(UserError, match="prompt 'grey' is not among"):
        levels(generator, ["grey"])


def test_a_network_told_nothing_makes_all_of_them(tmp_path: Path) -> None:
    """The same images whatever the prompt, some dark and some bright."""
    generator = trained("none", tmp_path)
    found = levels(generator, ["dark"] * 16)
    np.testing.assert_array_equal(levels(generator, ["grey"] * 16), found)
    assert (found < 100).any()
    assert (found > 155).any()
    with pytest.raises(UserError, match="has nothing to guide by: leave guidance 1"):
        levels(generator, ["dark"], 1.5)


def test_a_class_is_one_embedding_and_guidance_needs_the_null_one() -> None:
    embeddings, encoder = embed_conditions("class", ["a", "b"])
    assert encoder is None
    assert embeddings.prompts == ("a", "b", "")
    assert torch.equal(embeddings.tokens[:, 0] > 0, torch.eye(3) > 0)
    assert embeddings.pooled.square().mean() == pytest.approx(1)
    assert embed_conditions("none", ["a", "b"])[0].prompts == ("",)


def test_what_was_written_before_there_was_a_choice_stays_as_it_is() -> None:
    for file in BUILTIN.glob("*/stage.json"):
        text = file.read_text()
        config = StageConfig.model_validate_json(text)
        assert config.conditioning == "text"
        assert config.model_dump_json(indent=2) + "\n" == text
    with pytest.raises(ValueError, match="text_encoder goes with"):
        StageConfig(resolution=8, prompts=("a", ""))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/, classes.csv, and a run of finetune-generator of each conditioning."""
    folder = tmp_path_factory.mktemp("conditioning")
    images = np.stack([paint(i % 4, i, 8, 10) for i in range(80)])
    write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    (folder / "one.csv").write_text("id,wnid,name,prompt\n0,n1,All,all\n")
    network = "\n".join(f"{k} = {json.dumps(v)}" for k, v in SHAPE.items())
    for kind in ("class", "none"):
        (folder / f"{kind}.toml").write_text(
            f'name = "{kind}"\ndescription = "tiny"\nclasses = "{folder}/classes.csv"\n'
            f'[stage]\nresolution = 8\nconditioning = "{kind}"\n[network]\n{network}\n'
            "[training]\nsteps = 2\nbatch = 8\nwarmup = 1\n"
        )
        finetune(folder, kind, folder / kind)
    return folder


def finetune(place: Path, recipe: str, out: Path, start: Path | None = None) -> None:
    finetune_generator(
        recipe=str(place / f"{recipe}.toml"),
        data=str(place / "real"),
        out=out,
        start=None if start is None else str(start),
        split="fit",
        as_json=True,
    )


def build_recipe(place: Path, classes: str, accept: str = "") -> Path:
    path = place / "build.toml"
    checkpoint = place / "none" / "checkpoint"
    path.write_text(BUILD.format(classes=place / classes, checkpoint=checkpoint, accept=accept))
    return path


def test_finetune_generator_trains_both(place: Path, tmp_path: Path) -> None:
    """And goes on from its own checkpoints, of the same conditioning alone."""
    for kind, rows in (("class", len(CLASSES) + 1), ("none", 1)):
        checkpoint = place / kind / "checkpoint"
        network = load_checkpoint(checkpoint)
        assert network.config.conditioning == kind
        assert network.config.text_encoder is None
        assert len(network.prompts.prompts) == rows
        finetune(place, kind, tmp_path / kind, checkpoint)
        record = json.loads((tmp_path / kind / "training.json").read_text())
        assert record["start_sha256"] == checkpoint_sha256(checkpoint)
        assert load_file(checkpoint / "prompts.safetensors")["tokens"].shape == (rows, 1, rows)
    with pytest.raises(UserError, match="has conditioning class, the recipe's stage none"):
        finetune(place, "none", tmp_path / "mixed", place / "class" / "checkpoint")


def test_labels_of_an_unconditional_checkpoint_need_one_class_or_a_judge(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(path: Path) -> int:
        recipe = load_recipe(str(path))
        classes = load_classes(recipe.classes)
        return plan_build(recipe, recipe.stages, classes, 3, tmp_path / path.stem).images

    several = build_recipe(place, "classes.csv")
    with pytest.raises(UserError, match=r"is unconditional: a label among \d classes .* one class"):
        plan(several)
    result = run(["build-dataset", "--recipe", several, "--out", tmp_path / "out"])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr

    assert plan(build_recipe(place, "one.csv")) == 3
    judged = build_recipe(
        place, "classes.csv", 'accept = { rule = "tests.stand_in_rule", red = 0 }'
    )
    with pytest.raises(UserError, match="is unconditional"):
        plan(judged)
    monkeypatch.setattr(tests.stand_in_rule, "JUDGES_LABELS", True, raising=False)
    assert plan(judged) == 3 * len(CLASSES)
