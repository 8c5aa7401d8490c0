"""Options that several commands share, each told once."""

from pathlib import Path
from typing import Annotated

import typer

STATE_SECONDS = 60.0  # between the states that an interrupted training goes on from

Json = Annotated[bool, typer.Option("--json", help="One JSON document, no progress.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes; by default one a GPU, else one a core.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a Dask cluster that runs already: tcp://… or tls://…"),
]
SchedulerFile = Annotated[
    Path | None, typer.Option(help="The file in which that scheduler left its address.")
]
TlsCa = Annotated[
    Path | None, typer.Option(help="With --scheduler: the certificate authority (PEM).")
]
TlsCert = Annotated[
    Path | None, typer.Option(help="With --scheduler: this client's certificate (PEM).")
]
TlsKey = Annotated[Path | None, typer.Option(help="With --scheduler: this client's key (PEM).")]
StateEvery = Annotated[
    float, typer.Option(min=0, help="Seconds between the states an interrupted run goes on from.")
]
