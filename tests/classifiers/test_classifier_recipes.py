"""The built-in classifier recipes: the paper's twelve at their size, and what may be changed."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import cards
from classifiers.recipes.recipe import ClassifierRecipe, load_recipe, recipe_names
from classifiers.training.loop import train
from generation.networks.timm_classifier import build_model, require_fitting
from release.errors import UserError
from release.layout.image_sets import LabelledImages

with (Path(cards.__file__).parent / "board/published/classifiers.csv").open() as file:
    PAPER = list(csv.DictReader(file))
SIZES = {"190": 192}  # the paper's 190 exists in no release
SMALL = sorted(n for n in recipe_names() if not n.startswith("imagenet-"))


def recipe_of(row: dict[str, str]) -> ClassifierRecipe:
    """The recipe of one row of the paper's table."""
    size = SIZES.get(row["input_size"], int(row["input_size"]))
    recipes = [load_recipe(name) for name in recipe_names() if name.startswith("imagenet-")]
    (found,) = [r for r in recipes if (r.model, r.resolution) == (row["timm_name"], size)]
    return found


def reduced(recipe: ClassifierRecipe) -> ClassifierRecipe:
    """The same network on small images, in small batches."""
    changes = ["batch=2", "resolution=64"]
    if "patch" in recipe.model:
        changes += ["resolution=32"]
    return load_recipe(recipe.name, changes)


@pytest.mark.parametrize("row", PAPER, ids=lambda row: f"{row['model']}-{row['input_size']}")
def test_paper_row_at_its_size(row: dict[str, str]) -> None:
    recipe = recipe_of(row)
    with torch.device("meta"):  # shapes without numbers
        model = build_model(recipe, 1000)
        images = torch.zeros(2, 3, recipe.resolution, recipe.resolution)
    logits = model(images)
    assert logits.shape == (2, 1000)
    logits.sum().backward()
    parameters = list(model.parameters())
    assert all(p.grad is not None for p in parameters if p.requires_grad)
    count = sum(p.numel() for p in parameters) / 1e6
    assert round(count, 2) == float(row["params_m_timm"])
    assert recipe.sources
    assert row["real_top1"] in recipe.expected
    assert "GPU hours" in recipe.cost


@pytest.mark.parametrize(
    "name",
    ["imagenet-resnet50", "imagenet-resnetrs50-160", "imagenet-vit-s16", "imagenet-deit-s"],
)
def test_a_recipe_of_each_family_trains_on_small_images(name: str) -> None:
    recipe = reduced(load_recipe(name))
    model = train(recipe, noise(recipe), 0, steps=1)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_small_recipe_trains(name: str) -> None:
    recipe = load_recipe(name, ["batch=4"])
    assert recipe.name == name
    assert isinstance(train(recipe, noise(recipe), 0, steps=1), torch.nn.Module)


def noise(recipe: ClassifierRecipe) -> LabelledImages:
    size = (2, recipe.resolution, recipe.resolution, 3)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return LabelledImages(images, np.arange(2), ("a", "b"), ("x", "y"), ("x", "y"))


def test_settings_from_the_command_line_and_from_a_file(tmp_path: Path) -> None:
    base = load_recipe("imagenet-deit-s")
    changes = ["epochs=10", "augmentation.mixup = 0.2", "model=deit_tiny_patch16_224"]
    changed = load_recipe("imagenet-deit-s", changes)
    assert (changed.epochs, changed.model) == (10, "deit_tiny_patch16_224")
    assert changed.augmentation == base.augmentation.model_copy(update={"mixup": 0.2})
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "imagenet-deit-s"\nname = "mine"\nepochs = 10\nmodel = "deit_tiny_patch16_224"\n'
        "[augmentation]\nmixup = 0.2"
    )
    assert load_recipe(str(path)) == changed.model_copy(update={"name": "mine"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", "give NAME=VALUE"),
        ("epochs=-1", "^--set epochs=-1: epochs: Input should be greater than 0, not -1$"),
        ("epoch=3", "^--set epoch=3: unknown setting 'epoch'; known: .*, epochs, "),
        (
            "augmentation.flp=1",
            "augmentation: unknown setting 'flp'; known: blur, border, .*, flip, ",
        ),
        ("augmentation.resized_crop=[0.5, 0.1]", "smaller one first"),
        ("augmentation.rand_augment=wild", "rand_augment"),
    ],
)
def test_wrong_setting_is_named(change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("imagenet-resnet50", [change])


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("small-vit-32", "model_args.patch_size=0", "model_args: integer division"),
        ("small-vit-32", "model_args.num_heads=7", "model_args: .*num_heads"),
        ("small-vit-32", "model_args.drop_rate=2.0", "model_args: dropout probability"),
        ("fashion-mnist-small", "model_args.what=1", "model_args: .*'what'"),
        ("small-vit-32", "model_args.act_layer=nope", "model_args: .*nope"),
        ("small-resnet-32", "model_args.layers=[1,2]", "takes no images .*layer3"),
        ("small-resnet-32", "model_args.num_classes=3", "something else than a classifier of 10"),
        ("small-resnet-32", "model_args.features_only=true", "something else than a classifier"),
        ("small-vit-32", "model_args.img_size=64", "takes no images of 32 px .*64.*model_args$"),
    ],
)
def test_model_that_does_not_fit_is_one_line(recipe: str, change: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^classifier recipe {recipe}: .*{message}"):
        require_fitting(load_recipe(recipe, [change]), 10)


def test_models_of_one_size_are_built_for_the_recipes() -> None:
    recipe = load_recipe("imagenet-deit-s", ["resolution=64"])
    require_fitting(recipe, 10)
    assert build_model(recipe, 10).pos_embed.shape[1] == 1 + 4 * 4


def test_every_recipe_says_what_to_expect_and_what_it_takes() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.expected, name
        assert recipe.cost, name
        assert recipe.sources, name
    assert "Real-only top-1, %: 76.39 in Azizi" in load_recipe("imagenet-resnet50").expected


def test_settings_that_do_not_fit_each_other_are_named_with_their_recipe() -> None:
    expected = "^classifier recipe fashion-mnist-small --set augmentation.shift=40: augmentation.sh"
    with pytest.raises(UserError, match=expected):
        load_recipe("fashion-mnist-small", ["augmentation.shift=40"])


def test_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(f'base = "{path}"')
    with pytest.raises(UserError, match="is not the name of another recipe"):
        load_recipe(str(path))


def test_fixed_positions_stay_and_a_convolutional_network_has_none() -> None:
    recipe = reduced(load_recipe("imagenet-vit-s16"))
    before = build_model(recipe, 2).pos_embed
    trained = train(recipe, noise(recipe), 0, steps=1)
    assert torch.equal(trained.pos_embed, before)
    assert before[0, 1:].std() > 0.3
    with pytest.raises(UserError, match="has no position embedding"):
        build_model(load_recipe("fashion-mnist-small", ["position=sincos"]), 2)
