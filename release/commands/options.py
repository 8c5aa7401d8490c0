"""Options that several commands share, each told once."""

from pathlib import Path
from typing import Annotated

import typer

from release.errors import UserError

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


def parse_seeds(seeds: str) -> tuple[int, ...]:
    """Whole numbers of a comma-separated list, in the order given; UserError if one is twice."""
    fields = [field.strip() for field in seeds.split(",")]
    if not all(field.isdecimal() for field in fields):
        raise UserError(f"--seeds {seeds!r}: give whole numbers, comma-separated, such as 0,1,2")
    numbers = tuple(map(int, fields))
    if double := [number for number in numbers if numbers.count(number) > 1]:
        raise UserError(f"--seeds {seeds!r}: {double[0]} is there twice; give each seed once")
    return numbers
