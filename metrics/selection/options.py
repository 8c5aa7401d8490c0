"""Options that both selection commands have."""

from pathlib import Path
from typing import Annotated

import typer

from release.commands.named_files import require_folder
from release.errors import UserError

SPLIT = "tuning"  # the one to select on

Real = Annotated[Path, typer.Option(help="The real release; its tuning split is the judge.")]
ExtractorName = Annotated[str, typer.Option(help="See score-release.")]
Cache = Annotated[Path, typer.Option(help="Features and reference statistics.")]
Device = Annotated[str, typer.Option(help="Of the extractor: auto, cpu, cuda …")]
SomeWorkers = Annotated[
    int | None, typer.Option(min=1, help="Processes; by default one a GPU, else one a core.")
]
Split = Annotated[str, typer.Option(help="tuning; any other is refused.")]
Test = Annotated[str | None, typer.Option(help="Refused.", hidden=True)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Measure the cost, stop.")]


def require_places(out: Path, cache: Path, device: str) -> None:
    """UserError, before anything is built, for what could not be written or used at the end."""
    require_folder(out, "--out")
    require_folder(cache, "--cache")
    from generation.networks.placement import chosen_device

    chosen_device(device)


def require_tuning(split: str) -> None:
    """UserError for any split but the one to select on."""
    if split != SPLIT:
        raise UserError(
            f"split {split!r} is refused: settings are selected on '{SPLIT}', so that 'test' can "
            "still be reported; score the chosen recipe on it once, with score-release"
        )
