"""`build-dataset --compare`: what the recipes that reach a resolution take."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from builder.build_dataset import build_dataset
from builder.comparing import Rate, compare, print_comparison
from builder.planning.recipe import BUILTIN, Recipe, load_recipe
from release.commands.toml_recipes import recipe_names_in
from release.errors import UserError
from release.results.result import Result
from tests.conftest import ROOT, STAND_IN_RECIPE, run

COST = 'cost = {{ seconds = {}, hardware = "a card", memory_gib = 1, source = "a test" }}\n'


@pytest.fixture
def recipe(class_list: Path, tmp_path: Path) -> Recipe:
    """Three stages of 1, 2 and 4 seconds an image for three classes."""
    text = STAND_IN_RECIPE.format(classes=class_list)
    for seconds in (1, 2, 4):
        text = text.replace("batch = ", COST.format(seconds) + "batch  = ", 1)
    (tmp_path / "priced.toml").write_text(text.replace('"stand-in"', '"priced"'))
    return load_recipe(str(tmp_path / "priced.toml"))


def cas(name: str, images: int, value: float, batch: int = 1) -> Result:
    source = {"name": name, "config": "16", "images": images}
    return Result(
        kind="classifier",
        dataset="test",
        subject={"train": [source], "recipe": "small"},
        protocol={"batch": batch},
        reference={},
        values={"cas": True, "top1": {"value": value}},
    )


def test_hours_are_of_all_stages_up_to_the_resolution(recipe: Recipe) -> None:
    (offer,) = compare([recipe], 16, 1200, None, Rate.parse("1.50 EUR"), [])
    assert offer.images == 3 * 1200
    assert offer.device_hours == pytest.approx(3 * 1200 * (1 + 2) / 3600)
    assert offer.money == pytest.approx(1.5 * 3)
    assert (offer.hardware, offer.weights, offer.cas) == (("a card",), "public", None)


def test_the_cheapest_comes_first_and_what_states_no_cost_last(recipe: Recipe) -> None:
    stages = tuple(s.model_copy(update={"cost": None}) for s in recipe.stages)
    unknown = recipe.model_copy(update={"name": "a", "stages": stages})
    dearer = tuple(
        s.model_copy(update={"cost": s.cost and s.cost.model_copy(update={"seconds": 9.0})})
        for s in recipe.stages
    )
    dear = recipe.model_copy(update={"name": "b", "stages": dearer})
    offers = compare([unknown, dear, recipe], 32, 1, None, None, [])
    assert [offer.recipe for offer in offers] == ["priced", "b", "a"]
    assert offers[-1].device_hours is None


def test_only_recipes_that_reach_the_resolution_and_know_the_classes(recipe: Recipe) -> None:
    recipes = [load_recipe(name) for name in recipe_names_in(BUILTIN)]
    offers = compare(recipes, 1024, 1, None, None, [])
    assert {offer.recipe for offer in offers} >= {"imagenet-if", "imagenet-sana", "imagenet-pixart"}
    assert all(offer.images == 1000 for offer in offers)
    (named,) = compare([*recipes, recipe], 16, 2, "c0", None, [])
    assert (named.recipe, named.images) == ("priced", 2)
    with pytest.raises(UserError, match="no recipe reaches --res 33; there are 16, 32, 64, 128"):
        compare(recipes, 33, 1, None, None, [])
    with pytest.raises(UserError, match="no recipe that reaches --res 64 has them"):
        compare(recipes, 64, 1, "no-such-class", None, [])


def test_weights_are_embedded_public_or_to_be_trained() -> None:
    recipes = [load_recipe(name) for name in recipe_names_in(BUILTIN)]
    found = {
        o.recipe: o.weights for r in (32, 64, 256) for o in compare(recipes, r, 1, None, None, [])
    }
    assert found["fashion-mnist"] == "embedded"
    assert found["imagenet-dit-256"] == "public"
    assert found["imagenet-if"] == "gated"
    assert found["imagenet-rin-256"] == "to train"


def test_cas_is_of_one_protocol_on_the_most_images(recipe: Recipe) -> None:
    results = [
        cas("priced-32", 100, 0.9),
        cas("priced-32", 600, 0.5),
        cas("priced", 600, 0.7),
        cas("priced-32", 600, 0.1, batch=2),
        cas("another-32", 900, 0.8),
        replace(cas("priced-32", 900, 0.8), kind="scores"),
    ]
    (offer,) = compare([recipe], 16, 1, None, None, results)
    assert offer.cas is not None
    assert offer.cas.value == pytest.approx(0.6)
    assert (offer.cas.images, offer.cas.runs) == (600, 2)


def test_the_table_notes_what_its_numbers_are_of(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cas("priced-32", 600, 0.51234).write(tmp_path / "results/cas.json")
    (tmp_path / "results/note.json").write_text("{}")
    own = tmp_path / "priced.toml"
    assert load_recipe(str(own)) == recipe
    print_comparison(16, 1200, "c0", str(own), "2 EUR", tmp_path / "results", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1,200 images at 16 px, cheapest first"
    assert lines[1].split() == [
        "recipe",
        "hours",
        "EUR",
        "weights",
        "licence",
        "regime",
        "FID",
        "CAS",
    ]
    assert lines[2].split() == ["priced", "1", "2", "public", "mit", "A", "0.512", "[1]"]
    assert "[1] small, 600 images, one run" in lines
    print_comparison(256, 1200, None, None, None, None, as_json=False)
    printed = capsys.readouterr().out
    assert "imagenet-simple-diffusion-uvit-256" in printed  # not cut short
    assert "] guidance 1.5, 250 DDPM steps, 50,000 images (Peebles & Xie 2023)" in printed
    print_comparison(256, 1200, None, None, None, None, as_json=True)
    offers = json.loads(capsys.readouterr().out)
    hours = [offer["device_hours"] for offer in offers]
    assert hours == sorted(hours)


def test_the_readme_tells_what_is_printed() -> None:
    rows = re.findall(
        r"^\| `(imagenet-[\w-]+)`[^|]*\| ([\d,]+) \|[^|]+\| ([AB]) \|$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    recipes = [load_recipe(name) for name in recipe_names_in(BUILTIN)]
    offers = compare(recipes, 1024, 1200, None, None, [])
    assert rows == [(o.recipe, f"{o.device_hours:,.0f}", o.regime) for o in offers]


@pytest.mark.parametrize("text", ["", "free", "-1", "1,80", "1.80 euros", "nan"])
def test_a_rate_is_an_amount_and_perhaps_a_currency(text: str) -> None:
    with pytest.raises(UserError, match="give an amount an hour"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compare": True}, "--compare needs --res"),
        ({"rate": "1"}, "^--rate: of a comparison, with --compare; leave it out$"),
        ({"gpu": "h100"}, "^--gpu: of a plan, with --compare or --dry-run; leave it out$"),
        ({"utilisation": 0.4, "real": "pictures"}, "^--utilisation: of a build"),
        ({"compare": True, "res": 16, "gpu": "h900"}, "GPU 'h900'.*a100-40, a100-80, h100"),
        ({"dry_run": True, "utilisation": 1.5}, "--utilisation 1.5: give a share of the peak"),
        ({"compare": True, "real": "fashion-mnist"}, "^--compare: of a build; --real imports all"),
        ({"dry_run": True, "per_class": 5, "real": "pictures"}, "^--per-class, --dry-run: of a"),
        ({"classes": "a", "recipe": "b", "real": "pictures"}, "^--recipe, --classes: of a build"),
        ({"rate": "1", "real": "pictures"}, "^--rate: of a build"),
        ({"views": "8", "crop": "pad"}, "^--views, --crop: of an import, with --real; leave them"),
        (
            {"compare": True, "res": 16, "results": Path("no/such")},
            "--results no/such is no folder",
        ),
        ({"compare": True, "res": 16, "per_class": 0}, "--per-class 0: give at least 1"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_dataset(**options)


def test_as_a_command() -> None:
    shown = run(["build-dataset", "--res", "1024", "--per-class", "1200", "--compare"])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "1,200,000 images at 1024 px" in shown.stdout
