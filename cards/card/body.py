"""The body of a dataset card, from the manifest, the result files and the template card.md."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from builder.planning.recipe import Recipe
from builder.release.trust import foreign_modules
from builder.shards.shard import COLUMNS as ROW_COLUMNS
from builder.shards.shard import EXEMPLAR_COLUMN, GUIDE_COLUMN
from cards.card.columns import COLUMNS
from cards.card.facts import (
    REGIMES,
    StageFacts,
    accept_facts,
    citation,
    environments,
    limits,
    require,
    split_facts,
    stage_facts,
)
from cards.card.known_failures import known_failures, not_measured
from cards.card.release_results import About, Results, results_about
from cards.card.uses import uses, worth
from cards.drawing.markdown_text import Verbatim, fenced
from cards.drawing.sample_grid import Samples
from cards.drawing.tables import MISSING, decimals_for, spread_cell
from cards.measured.cells import percent_cell
from cards.measured.evaluation_tables import (
    is_fraction,
    value_cell,
    value_direction,
    value_label,
)
from cards.measured.rankings import Ranking, Score
from cards.measured.score_names import extractor_name, score_name
from cards.pages.page import template_environment
from release.layout.manifest import Manifest
from release.layout.training_views import stated_views

LOCAL = "./"
SNIPPET = """```python
from datasets import load_dataset

images = load_dataset({location}, {config})  # {counts}
```"""


def card_body(
    manifest: Manifest,
    pictures: Mapping[str, Samples],
    results: Path | None,
    location: str,
    published: date,
    *,
    allow_missing: bool = False,
) -> str:
    """All below the YAML. Raises UserError for a fact that is missing.

    pictures: by file name. location: OWNER/NAME on the Hub, or ./FOLDER.
    """
    is_local = location.startswith(LOCAL)
    found = Results()
    if results is not None:
        found = results_about(manifest, results, allow_missing=allow_missing)
    made = _how_made(manifest, pictures) if manifest.kind == "synthetic" else _real(manifest)
    environment = template_environment("markdown")
    environment.globals.update(_formats())
    return environment.get_template("card.md").render(
        manifest=manifest,
        pictures=pictures,
        location=location,
        is_local=is_local,
        folder=location.removeprefix(LOCAL) if is_local else location.split("/")[1],
        snippets=load_snippets(manifest, location),
        splits=split_facts(manifest),
        views=stated_views(manifest),
        limits=limits(manifest),
        trainings=found.trainings,
        scores=found.scores,
        evaluations=found.evaluations,
        protocols=_protocols(found),
        uses=uses(manifest, found),
        worth=worth(manifest, found),
        failures=known_failures(found, made["accepts"]),
        gaps=not_measured(found) if manifest.kind == "synthetic" else [],
        citation=citation(manifest, None if is_local else location, published),
        **made,
    )


def _trust(recipe: dict[str, Any]) -> str:
    """The options by which `release reproduce` may run modules that are not ours."""
    try:
        named = {name: kind for kind, name in foreign_modules(Recipe.model_validate(recipe))}
    except ValueError:  # an early manifest's: what it asks for is told when it is run
        return ""
    return "".join(f" --trust {shlex.quote(name)}" for name in named)


def _columns(stages: Sequence[StageFacts]) -> list[str]:
    """Of the rows of all stages."""
    guide = GUIDE_COLUMN if any(stage.guide for stage in stages) else {}
    exemplars = EXEMPLAR_COLUMN if any(stage.exemplars for stage in stages) else {}
    return [*ROW_COLUMNS, *guide, *exemplars]


def _how_made(manifest: Manifest, pictures: Mapping[str, Samples]) -> dict[str, Any]:
    stages = stage_facts(manifest)
    recipe = require(manifest, manifest.origin, "recipe", "origin")
    told = {
        name: require(manifest, recipe, name, "origin.recipe")
        for name in ("description", "seed", "license_note")
    }
    return {
        **told,
        "stages": stages,
        "trust": _trust(recipe),
        "regimes": REGIMES,
        "accepts": accept_facts(manifest),
        "made_with": environments(manifest),
        "columns": {name: COLUMNS[name] for name in ("image", "label", *_columns(stages))},
        "example": next(ids[0] for samples in pictures.values() for ids in samples.image_ids),
    }


def _real(manifest: Manifest) -> dict[str, Any]:
    for name in ("source", "crop_rule", "tuning_rule"):
        require(manifest, manifest.origin, name, "origin")
    return {"stages": [], "accepts": [], "license_note": ""}


def load_snippets(manifest: Manifest, location: str) -> list[str]:
    """Python that loads each configuration from `location`, with what is in it."""
    return [
        SNIPPET.format(
            location=json.dumps(location, ensure_ascii=False),
            config=json.dumps(config, ensure_ascii=False),
            counts=", ".join(f"{split} {manifest.rows(config, split):,}" for split in splits),
        )
        for config, splits in manifest.splits().items()
    ]


def _protocols(results: Results) -> dict[str, str]:
    """By the protocol's name: all settings that numbers share, and what measured them."""
    lines: dict[str, str] = {}
    every: list[About[Any]] = [*results.trainings, *results.scores]
    every += [about for _, about in results.evaluations]
    for about in every:
        name = about.ranking.key[:12]
        measured = "; measured with " + " and with ".join(about.made_with)
        lines[name] = _settings(about.ranking) + (measured if about.made_with else "")
    return lines


def _settings(ranking: Ranking[Any]) -> str:
    named: Iterable[tuple[str, Any]] = ranking.settings.items()
    return ", ".join(f"{name.removeprefix('protocol.')} {value}" for name, value in named)


def _formats() -> dict[str, Any]:
    """What the template needs to write numbers as the leaderboard does."""

    def number(score: Score) -> str:
        digits = decimals_for([score.mean])
        return spread_cell(score.mean, score.std, score.interval, digits, "").text

    return {
        "percent": lambda score: percent_cell(score).text,
        "number": number,
        "extractor": extractor_name,
        "value_label": value_label,
        "value_text": lambda kind, key, score: value_cell(kind, key, score).text,
        "in_percent": is_fraction,
        "direction": value_direction,
        "score_name": score_name,
        "missing": MISSING,
        "fenced": fenced,
        "verbatim": Verbatim,
        "quoted": shlex.quote,
    }
