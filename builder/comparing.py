"""What `build-dataset --compare` prints: the recipes that reach a resolution, cheapest first."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.planning.device_cost import DEFAULT_DEVICE, Device, device_cost
from builder.planning.model_facts import PublishedScore
from builder.planning.recipe import BUILTIN, Recipe, StageRecipe, load_recipe
from release.classes.class_list import load_classes, select_classes
from release.commands.terminal import table_cell
from release.commands.toml_recipes import recipe_names_in
from release.errors import UserError
from release.layout.origin import REGIMES
from release.results.result import Result, read_result

TRAINING_RUNS = "runs/"  # where finetune-generator writes what a recipe of ours awaits
EMBEDDED = "builtin:"
MOST_COLUMNS = 500
RATE = re.compile(r"(?P<amount>\d+(\.\d+)?)( (?P<currency>[A-Za-z]{3}))?")


@dataclass(frozen=True)
class Rate:
    """What an hour of the device is rented at."""

    amount: float
    currency: str

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Of "1.80" or "1.80 EUR"; UserError for anything else."""
        found = RATE.fullmatch(text)
        if found is None:
            raise UserError(f"--rate {text!r}: give an amount an hour, such as 1.80 or '1.80 EUR'")
        return cls(float(found["amount"]), found["currency"] or "")


@dataclass(frozen=True)
class MeasuredCas:
    """Top-1 on real images after training on so many of the recipe's alone: the mean of `runs`."""

    value: float
    classifier: str
    images: int
    runs: int


@dataclass(frozen=True)
class Offer:
    """What a recipe takes to make the images, and what is known of them.

    device_hours, money: None where a stage's cost is not known, or no rate is given. published: of
    the last stage, as its source states it first; another protocol may lie behind each. weights:
    "embedded", "public", "gated" where a licence is to be accepted on the Hub first, or "to train"
    where a stage awaits a training by finetune-generator.
    """

    recipe: str
    images: int
    device_hours: float | None
    money: float | None
    hardware: tuple[str, ...]
    weights: str
    license: str
    regime: str
    published: PublishedScore | None
    cas: MeasuredCas | None

    @property
    def rank(self) -> tuple[float, str]:
        """Cheapest first; where no cost is stated, last."""
        return (math.inf if self.device_hours is None else self.device_hours, self.recipe)


def print_comparison(
    resolution: int | None,
    per_class: int,
    classes: str | None,
    own_recipe: str | None,
    rate: str | None,
    results: Path | None,
    as_json: bool,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """own_recipe: a file to compare with the built-in ones. results: a folder of result files."""
    if resolution is None:
        raise UserError("--compare needs --res: the resolution that the images shall have")
    price = None if rate is None else Rate.parse(rate)
    measured = [] if results is None else _read_results(results)
    recipes = _recipes(own_recipe)
    offers = compare(recipes, resolution, per_class, classes, price, measured, device)
    if as_json:
        print(json.dumps([_as_json(offer) for offer in offers], indent=2))
    else:
        _print_table(offers, resolution, price, with_cas=results is not None)


def compare(
    recipes: Sequence[Recipe],
    resolution: int,
    per_class: int,
    classes: str | None,
    rate: Rate | None,
    results: Sequence[Result],
    device: Device = DEFAULT_DEVICE,
) -> list[Offer]:
    """An offer of each recipe that reaches `resolution` and knows the classes, cheapest first.

    UserError, with the resolutions there are, if there is none.
    """
    known = {stage.resolution for recipe in recipes for stage in recipe.stages}
    if resolution not in known:
        raise UserError(
            f"no recipe reaches --res {resolution}; there are {', '.join(map(str, sorted(known)))}"
        )
    offers = []
    for recipe in recipes:
        count = _count(recipe, classes)
        if count and resolution in {stage.resolution for stage in recipe.stages}:
            images = count * per_class
            offers.append(_offer(recipe, resolution, images, rate, results, device))
    if not offers:
        raise UserError(f"--classes {classes}: no recipe that reaches --res {resolution} has them")
    return sorted(offers, key=lambda offer: offer.rank)


def _recipes(own: str | None) -> list[Recipe]:
    """The built-in ones and one of the user's."""
    names = recipe_names_in(BUILTIN)
    return [load_recipe(name) for name in (*names, *([own] if own and own not in names else []))]


def _count(recipe: Recipe, classes: str | None) -> int:
    """How many classes the recipe would make; 0 if its list lacks one of those asked for."""
    everything = load_classes(recipe.classes)
    if classes is None:
        return len(everything)
    try:
        return len(select_classes(everything, classes))
    except UserError:
        return 0


def _offer(
    recipe: Recipe,
    resolution: int,
    images: int,
    rate: Rate | None,
    results: Sequence[Result],
    device: Device,
) -> Offer:
    chain = recipe.chain(resolution)
    costs = [device_cost(stage, device) for stage in chain]
    known = [cost for cost in costs if cost is not None]
    seconds = sum(cost.seconds for cost in known)
    hours = images * seconds / 3600 if len(known) == len(chain) else None
    return Offer(
        recipe=recipe.name,
        images=images,
        device_hours=hours,
        money=None if rate is None or hours is None else hours * rate.amount,
        hardware=tuple(dict.fromkeys(cost.hardware for cost in known)),
        weights=_weights(chain),
        license=recipe.license,
        regime=recipe.regime,
        published=next(iter(chain[-1].published), None),
        cas=_measured_cas(recipe, resolution, results),
    )


def _weights(chain: Sequence[StageRecipe]) -> str:
    if any(stage.checkpoint.startswith(TRAINING_RUNS) for stage in chain):
        return "to train"
    if any(stage.model is not None and "(gated)" in stage.model.license for stage in chain):
        return "gated"
    return "embedded" if all(s.checkpoint.startswith(EMBEDDED) for s in chain) else "public"


def _measured_cas(recipe: Recipe, resolution: int, results: Sequence[Result]) -> MeasuredCas | None:
    """Of the trainings on most images of the recipe alone, in a release as build-dataset names it.

    One protocol's: of several, the one that was run most often. A result knows its release by the
    folder's name.
    """
    names = {f"{recipe.name}-{stage.resolution}" for stage in recipe.stages} | {recipe.name}
    runs: dict[tuple[int, str, str], list[float]] = {}
    for result in results:
        trained_on = result.subject.get("train", [])
        if result.kind == "classifier" and result.values.get("cas") and len(trained_on) == 1:
            source = trained_on[0]
            if source["name"] in names and source["config"] == str(resolution):
                key = (source["images"], str(result.subject["recipe"]), result.protocol_sha256)
                runs.setdefault(key, []).append(result.values["top1"]["value"])
    if not runs:
        return None
    (images, classifier, _), values = max(runs.items(), key=lambda run: (run[0][0], len(run[1])))
    return MeasuredCas(sum(values) / len(values), classifier, images, len(values))


def _read_results(folder: Path) -> list[Result]:
    """Every result file of `folder`; other files are passed over."""
    if not folder.is_dir():
        raise UserError(f"--results {folder} is no folder")
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            found.append(read_result(path))
        except UserError:
            continue
    return found


def _as_json(offer: Offer) -> dict[str, Any]:
    published = offer.published and offer.published.model_dump()
    return {**asdict(offer), "published": published, "regime_means": REGIMES[offer.regime]}


def _print_table(
    offers: Sequence[Offer], resolution: int, rate: Rate | None, with_cas: bool
) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    counts = sorted({offer.images for offer in offers})
    images = " or ".join(f"{count:,}" for count in counts)
    print(f"{images} images at {resolution} px, cheapest first")
    notes: dict[str, str] = {}
    price = [] if rate is None else [rate.currency or "price"]
    table = Table(box=None, pad_edge=False)
    names = ("recipe", "hours", *price, "weights", "licence", "regime", "FID")
    for name in (*names, *(["CAS"] * with_cas)):
        numbers = name in ("hours", *price)
        table.add_column(name, no_wrap=True, justify="right" if numbers else "left")
    for offer in offers:
        table.add_row(*_cells(offer, rate, with_cas, notes))
    console = Console()
    wide = Measurement.get(console, console.options.update_width(MOST_COLUMNS), table).maximum
    Console(width=max(console.width, wide)).print(table)  # a name cut short is of no use
    for line in _remarks(offers, notes, with_cas):
        print(line)


def _cells(offer: Offer, rate: Rate | None, with_cas: bool, notes: dict[str, str]) -> Iterator[Any]:
    yield table_cell(offer.recipe)
    yield "not stated" if offer.device_hours is None else f"{offer.device_hours:,.0f}"
    if rate is not None:
        yield "" if offer.money is None else f"{offer.money:,.0f}"
    yield offer.weights
    yield table_cell(offer.license)
    yield offer.regime
    yield "" if offer.published is None else _noted_fid(offer.published, notes)
    if with_cas:
        yield "" if offer.cas is None else _noted_cas(offer.cas, notes)


def _noted_fid(score: PublishedScore, notes: dict[str, str]) -> str:
    """With the number of its note: settings differ from source to source."""
    if score.fid is None:
        return ""
    return f"{score.fid:g} {_noted(f'{score.settings} ({score.source})', notes)}"


def _noted_cas(cas: MeasuredCas, notes: dict[str, str]) -> str:
    runs = "one run" if cas.runs == 1 else f"mean of {cas.runs} runs"
    note = f"{cas.classifier}, {cas.images:,} images, {runs}"
    return f"{cas.value:.3f} {_noted(note, notes)}"


def _noted(note: str, notes: dict[str, str]) -> str:
    return rf"\[{notes.setdefault(note, str(len(notes) + 1))}]"


def _remarks(offers: Sequence[Offer], notes: dict[str, str], with_cas: bool) -> Iterator[str]:
    devices = sorted({device for offer in offers for device in offer.hardware})
    if devices:
        yield f"hours: device-hours, not measured, of {'; '.join(devices)}"
    for regime in sorted({offer.regime for offer in offers}):
        yield f"regime {regime}: {REGIMES[regime]}"
    if notes:
        yield "FID: as published, against ImageNet's train split unless the note says otherwise"
    for note, number in notes.items():
        yield f"[{number}] {note}"
    if with_cas:
        yield "CAS: top-1 on real images after training on generated ones, from --results"
    yield "all about one: build-dataset --recipe NAME --dry-run"
