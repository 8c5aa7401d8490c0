"""The built-in accept rules, on tiny networks and releases."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builder.accept import AcceptRule, StageFacts, locate_rule
from builder.accept.safety_checker import UNSAFE, WATERMARK
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.checkpoint import load_classifier, save_classifier
from classifiers.training.predictions import predict
from generation.networks.timm_classifier import build_model
from release.errors import UserError
from release.layout.image_sets import LabelledImages, decode
from release.layout.manifest import Manifest
from tests.builder.accept.red_rule import build, plan, rejections, rows
from tests.conftest import STAND_IN_RECIPE

CLASSES = ("c0", "c1", "c2")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny grey network for 8 px images, its last layer made bold so that verdicts differ."""
    recipe = ClassifierRecipe(
        name="tiny",
        description="for tests",
        model="test_resnet",
        resolution=8,
        channels=1,
        mean=(0.4,),
        std=(0.3,),
        epochs=1,
        batch=8,
        optimizer="sgd",
        learning_rate=0.1,
    )
    torch.manual_seed(0)
    model = build_model(recipe, len(CLASSES))
    with torch.no_grad():
        model.get_classifier().weight.mul_(100)
    file = tmp_path_factory.mktemp("classifier") / "tiny.safetensors"
    save_classifier(file, model.eval(), recipe, CLASSES)
    return file


def facts(resolution: int = 8, checkpoint: Path = Path("8")) -> StageFacts:
    return StageFacts(resolution, CLASSES, checkpoint)


def load(name: str, settings: dict, stage: StageFacts) -> AcceptRule:
    return locate_rule(name, settings, stage).load()


def test_a_classifier_keeps_what_it_is_sure_of(classifier: Path, class_list: Path, tmp_path: Path):
    accept = f'{{ rule = "classifier-confidence", checkpoint = "{classifier}", minimum = 0.34 }}'
    text = STAND_IN_RECIPE.format(classes=class_list).split("[[stage]]\nresolution = 16")[0]
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(text + f"accept = {accept}\n")
    records = build(plan(recipe_file, tmp_path / "release"))
    kept, rejected = rows(tmp_path / "release", 8), rejections(tmp_path / "release", 8)
    assert kept
    assert rejected
    assert sum(sum(record.rejected.values()) for record in records) == len(rejected)
    assert all(row["score"] < 0.34 for row in rejected)
    assert {row["reason"] for row in rejected} == {"confidence in its own class below 0.34"}
    # the same network through the classifiers' own path
    model, recipe, _ = load_classifier(classifier)
    images = np.stack([decode(row["image"]["bytes"]) for row in kept])
    labels = np.array([row["label"] for row in kept])
    ids = tuple(row["image_id"] for row in kept)
    predictions = predict(model, recipe, LabelledImages(images, labels, ids, CLASSES, CLASSES))
    own = np.where(predictions.top[:, 0] == labels, predictions.probability, 1)
    assert min(own) >= 0.34 - 1e-6


def test_a_classifier_of_other_classes_or_sizes_is_refused(classifier: Path, tmp_path: Path):
    settings = {"checkpoint": str(classifier), "minimum": 0.5}
    with pytest.raises(UserError, match="knows 3 classes"):
        locate_rule("classifier-confidence", settings, StageFacts(8, CLASSES[::-1], Path("8")))
    with pytest.raises(UserError, match="takes 8 px images"):
        locate_rule("classifier-confidence", settings, facts(16))
    missing = settings | {"checkpoint": str(tmp_path / "none")}
    with pytest.raises(UserError, match="not a classifier that this project saved"):
        locate_rule("classifier-confidence", missing, facts())


def test_where_a_classifier_lies_is_not_part_of_its_identity(classifier: Path, tmp_path: Path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(classifier.read_bytes())
    here, there = (
        locate_rule("classifier-confidence", {"checkpoint": str(f), "minimum": 0.5}, facts())
        for f in (classifier, moved)
    )
    assert here.identity() == there.identity()
    moved.write_bytes(moved.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="was changed after the build was planned"):
        there.load()


def test_near_copies_of_a_release_are_rejected(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    records = build(plan(stand_in_recipe, release))
    Manifest("m", "synthetic", "test", "A", "mit", (), {}, tuple(records)).write(release)
    reference = rows(release, 16)
    pixels = np.stack([decode(row["image"]["bytes"]) for row in reference])
    settings = {"reference": str(release), "config": "16", "minimum": 3}
    rule = load("reference-distance", settings, facts(16))
    changed = pixels[:4].astype(np.int64)
    changed[1, :8] += np.where(changed[1, :8] < 128, 2, -2)  # half the pixels: √2 levels away
    noise = np.random.default_rng(0).integers(256, size=(1, 16, 16, 3))
    judged = rule.judge(np.concatenate([changed, noise]).astype(np.uint8), [0] * 5)
    expected = [
        np.sqrt(((image - pixels.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))).min()
        for image in [*changed, noise[0]]
    ]
    assert np.allclose([verdict.score for verdict in judged], expected)
    assert judged[1].score == pytest.approx(2**0.5)
    assert judged[0].reason == f"near copy of {reference[0]['image_id']}"
    assert [verdict.reason is None for verdict in judged] == [False] * 4 + [True]
    with pytest.raises(UserError, match="does not hold images of the stage's 8 px"):
        locate_rule("reference-distance", settings, facts(8))


@pytest.fixture(scope="module")
def checker_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of DeepFloyd IF, of which only the safety checker is there."""
    from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    small |= {"num_hidden_layers": 1, "projection_dim": 4}
    vision = small | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(1)
    checker = IFSafetyChecker(CLIPConfig(vision_config=vision, text_config=small))
    with torch.no_grad():
        checker.p_head.weight.mul_(50)
        checker.w_head.weight.mul_(50)
    folder = tmp_path_factory.mktemp("if")
    (folder / "model_index.json").write_text('{"_class_name": "IFPipeline"}')
    checker.save_pretrained(folder / "safety_checker")
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    processor.save_pretrained(folder / "feature_extractor")
    return folder


def test_the_safety_checker_of_if_rejects_what_its_pipeline_blackens(checker_model: Path):
    from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker
    from safetensors.torch import load_file
    from transformers import CLIPConfig, CLIPImageProcessor

    images = np.random.default_rng(0).integers(256, size=(24, 8, 8, 3), dtype=np.uint8)
    images = images // np.arange(1, 25, dtype=np.uint8)[:, None, None, None]
    checker = IFSafetyChecker(CLIPConfig.from_pretrained(checker_model / "safety_checker")).eval()
    checker.requires_grad_(False)
    checker.load_state_dict(load_file(checker_model / "safety_checker" / "model.safetensors"))
    processor = CLIPImageProcessor.from_pretrained(checker_model / "feature_extractor")
    inputs = processor(list(images), return_tensors="pt").pixel_values
    embedding = checker.vision_model(inputs)[0]
    thresholds = [float(h(embedding).median()) for h in (checker.p_head, checker.w_head)]
    blackened, unsafe, watermark = checker(inputs, images.astype(np.float64) + 1, *thresholds)
    settings = dict(zip(("unsafe", "watermark"), thresholds, strict=True))
    judged = load("safety-checker", settings, facts(8, checker_model)).judge(images, [0] * 24)
    expected = [
        UNSAFE if u else WATERMARK if w else None for u, w in zip(unsafe, watermark, strict=True)
    ]
    assert [verdict.reason for verdict in judged] == expected
    assert {None} < set(expected)
    black = [not image.any() for image in blackened]
    assert black == [verdict.reason is not None for verdict in judged]
