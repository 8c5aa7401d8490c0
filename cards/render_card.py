"""The command `render-card`: the README of a release, from its manifest and result files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.commit import sha256_file, write_atomically
from builder.manifest import Manifest, read_manifest
from generation.command import run_command
from generation.errors import UserError
from generation.storage import ReleasePath, read_text, release_name, release_path

if TYPE_CHECKING:
    from cards.result_schema import ClassValue
    from cards.sample_grid import Samples

README = "README.md"
PICTURE = "samples.png"
FENCE = "---\n"
SNIPPET = """```python
from datasets import load_dataset
images = load_dataset("{location}", "{config}")  # {counts}
```"""
LOWEST = 5  # classes named as the worst


def render_card(
    release: Annotated[str, typer.Argument(help="folder or URL of a release")],
    results: Annotated[
        Path | None, typer.Option(help="folder of result files; those about this release are shown")
    ] = None,
    repo: Annotated[
        str | None, typer.Option(help="owner/name on the Hub, for the loading snippets")
    ] = None,
    per_class: Annotated[int, typer.Option(help="images of each class in the picture")] = 10,
    json_: Annotated[bool, typer.Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write the body of a release's README.md and its picture; the YAML on top stays as it is.

    render-card releases/fashion-mnist-32 --results results
    """
    from cards.sample_grid import draw_grid, png_bytes, read_samples

    if per_class < 1:
        raise UserError(f"--per-class must be at least 1, not {per_class}")
    folder = release_path(release)
    manifest = read_manifest(folder)
    contract = load_contract(folder / README)
    samples = read_samples(folder, per_class=per_class)
    body = card_body(manifest, samples, results, repo or f"./{release_name(folder)}")
    write_atomically(folder / PICTURE, png_bytes(draw_grid(samples)))
    write_atomically(folder / README, (contract + body).encode())
    written = {name: sha256_file(folder / name) for name in (README, PICTURE)}
    replace(manifest, documents=manifest.documents | written).write(folder)
    if json_:
        print(json.dumps({"release": str(folder), "sha256": written}))
    else:
        print("\n".join(str(folder / name) for name in written))


def load_contract(readme: ReleasePath) -> str:
    """The YAML at the top of a release's README, fences included, as the builder wrote it."""
    try:
        text = read_text(readme)
    except FileNotFoundError:
        raise UserError(f"{readme} is missing; build-dataset writes it, run it again") from None
    end = text.find("\n" + FENCE, len(FENCE) - 1)
    if not text.startswith(FENCE) or end < 0:
        raise UserError(f"{readme} does not start with YAML between two lines of ---")
    return text[: end + 1 + len(FENCE)]


def card_body(manifest: Manifest, samples: "Samples", results: Path | None, location: str) -> str:
    """All below the YAML. Raises UserError for a fact that is missing."""
    from cards.card_facts import (
        accept_facts,
        limits,
        model_lines,
        require,
        split_facts,
        stage_facts,
    )
    from cards.page import template_environment
    from cards.release_results import results_about

    trainings, scores = results_about(manifest, results) if results else ([], [])
    facts: dict[str, Any] = {
        "stages": [],
        "models": [],
        "accepts": [],
        "description": "",
        "seed": None,
    }
    facts["license_note"] = ""
    if manifest.kind == "synthetic":
        recipe = require(manifest, manifest.origin, "recipe", "origin")
        facts["stages"] = stage_facts(manifest)
        facts["accepts"] = accept_facts(manifest)
        facts["models"] = model_lines(manifest)
        for name in ("description", "seed", "license_note"):
            facts[name] = require(manifest, recipe, name, "origin.recipe")
    else:
        for name in ("source", "crop_rule", "tuning_rule"):
            require(manifest, manifest.origin, name, "origin")
    environment = template_environment(autoescape=False)
    environment.globals.update(_formats())
    return environment.get_template("card.md").render(
        manifest=manifest,
        samples=samples,
        picture=PICTURE,
        location=location,
        snippets=load_snippets(manifest, location),
        splits=split_facts(manifest),
        limits=limits(manifest),
        trainings=trainings,
        scores=scores,
        **facts,
    )


def load_snippets(manifest: Manifest, location: str) -> list[str]:
    """Python that loads each configuration from `location`, with what is in it."""
    return [
        SNIPPET.format(
            location=location,
            config=config,
            counts=", ".join(f"{split} {manifest.rows(config, split):,}" for split in splits),
        )
        for config, splits in manifest.splits().items()
    ]


def _formats() -> dict[str, Any]:
    """What the template needs to write numbers as the leaderboard does."""
    from cards.measured import Score, Training
    from cards.measured_tables import extractor_name, percent_cell, score_name
    from cards.tables import MISSING, decimals_for, spread_cell

    def number(score: Score) -> str:
        digits = decimals_for([score.mean])
        return spread_cell(score.mean, score.std, score.interval, digits, "").text

    def lowest(row: Training) -> list[Any]:
        return sorted(row.per_class, key=lambda c: (c.top1, c.wnid))[:LOWEST]

    def worst(key: str, rows: "Sequence[ClassValue]") -> str:
        share = key.startswith("agreement")
        ordered = sorted(rows, key=lambda c: (c.value if share else -c.value, c.wnid))
        return ", ".join(f"{c.name} {c.value:.3g}" for c in ordered[:LOWEST])

    return {
        "worst": worst,
        "percent": lambda score: percent_cell(score).text,
        "number": number,
        "lowest": lowest,
        "extractor": extractor_name,
        "score_name": score_name,
        "missing": MISSING,
    }


def main() -> None:
    """Console entry point."""
    run_command(render_card)


if __name__ == "__main__":
    main()
