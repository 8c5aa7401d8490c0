"""Generators before and after fine-tuning on the leaderboard."""

import base64

from cards.drawing.tables import (
    Cell,
    Column,
    Group,
    Row,
    Table,
    decimals_for,
    difference_cell,
    spread_cell,
    text_cell,
)
from cards.measured.report_schema import FinetuningReport, Generator, SeedMean
from cards.pages.facet import Picture, Section
from release.errors import UserError

TITLE = "Before and after fine-tuning"
COLUMNS = (
    Column("generator", "Generator", numeric=False),
    Column("fd_train", "FD to train", better="lower"),
    Column("fd_test", "FD to test", better="lower"),
    Column("cas_top1", "CAS top-1, %", better="higher", help="on real test images"),
    Column("seeds", "Sampling seeds", help="one release and one classifier each"),
)


def finetuning_section(report: FinetuningReport, number: int) -> Section:
    """number: tells reports of one data set apart."""
    key = f"{report.dataset}-finetuning-{number}"
    return Section(
        key,
        TITLE,
        tables=(finetuning_table(report, key),),
        pictures=(before_after(report),),
    )


def finetuning_table(report: FinetuningReport, key: str) -> Table:
    """The generators, and how they differ."""

    def rows(generators: dict[str, Generator], *, signed: bool) -> tuple[Row, ...]:
        return tuple(Row(_cells(n, g, signed)) for n, g in generators.items())

    return Table(
        f"{key}-generators",
        TITLE,
        COLUMNS,
        (
            Group(
                f"{report.images_per_release:,} images a release, mean over sampling seeds",
                rows(report.arms, signed=False),
            ),
            Group("Differences, paired by sampling seed", rows(report.differences, signed=True)),
        ),
        caption=f"{report.what[:1].upper()}{report.what[1:]}.",
        footnotes=(f"Square brackets: {report.interval}. {_trainings(report)}",),
    )


def _trainings(report: FinetuningReport) -> str:
    if report.training_seeds == 1:
        return "One training of each generator."
    return f"{report.training_seeds} trainings of each generator, one for each sampling seed."


def _cells(name: str, generator: Generator, signed: bool) -> dict[str, Cell]:
    seeds = len(generator.cas_top1.by_seed)
    return {
        "generator": text_cell(name),
        "fd_train": _cell(generator.fd_train, 1, signed),
        "fd_test": _cell(generator.fd_test, 1, signed),
        "cas_top1": _cell(generator.cas_top1, 100, signed),
        "seeds": Cell(str(seeds), seeds),
    }


def _cell(mean: SeedMean, scale: int, signed: bool) -> Cell:
    value, ends = scale * mean.mean, (scale * mean.interval[0], scale * mean.interval[1])
    digits = 2 if scale > 1 else decimals_for([value])
    if signed:
        return difference_cell(value, ends, digits)
    return spread_cell(value, None, ends, digits, "")


def before_after(report: FinetuningReport) -> Picture:
    """The grid that stands beside the report."""
    try:
        content = report.picture.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{report.picture} is missing: the grid of images before and after stands beside "
            f"{report.path.name}"
        ) from None
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    return Picture("Images before and after", "First images of each class, not chosen.", uri)
