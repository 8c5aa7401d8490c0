"""Options of the commands that extract features and write results."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Folder for the result files.")]
Cache = Annotated[Path, typer.Option(help="Features and reference statistics.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Batch = Annotated[int, typer.Option(help="Images the network sees at once.")]
SomeWorkers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that extract features; by default one a GPU or core."),
]
ExtractionScheduler = Annotated[
    str | None, typer.Option(help="Address of a Dask cluster to extract features on.")
]
