"""The paper's tables, as printed: shown beside measured rows, never ranked together with them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from cards.drawing.tables import EMPTY, Cell, Column, Group, Row, Table, text_cell

FOLDER = Path(__file__).parent / "published"
DATASET = "imagenet-1k"
PAPER = "Azizi et al. 2023, arXiv 2304.08466"
TABLES = ("generators", "cas_resnet50", "classifiers", "scaling_resnet50")
PublishedRow = dict[str, str]

SYSTEM_COLUMNS = (
    Column("system", "System", numeric=False),
    Column("fid_train", "FID train", better="lower", help="Fréchet Inception Distance to train"),
    Column("fid_val", "FID val", better="lower", help="Fréchet Inception Distance to validation"),
    Column("is", "Inception Score", better="higher", help="mean ± standard deviation, as printed"),
    Column("top1", "CAS top-1, %", better="higher", help="ResNet-50 trained on generated images"),
    Column("top5", "CAS top-5, %", better="higher", help="ResNet-50 trained on generated images"),
    Column("source", "Published in", numeric=False),
)
CLASSIFIER_COLUMNS = (
    Column("model", "Model", numeric=False),
    Column("input_size", "Input, px"),
    Column("params_m_printed", "Parameters printed, M"),
    Column("params_m_timm", "Parameters in timm, M"),
    Column("real_top1", "Real, %", better="higher"),
    Column("generated_top1", "Generated, %", better="higher"),
    Column("real_plus_generated_top1", "Real + generated, %", better="higher"),
    Column("delta_printed", "Δ, points", better="higher", help="real + generated less real"),
    Column("timm_name", "Name in timm", numeric=False),
)
SCALING_COLUMNS = (
    Column("train_set_m", "Training images, M", help="real plus generated; 1.2 is real only"),
    Column("res256_top1", "256 px top-1, %", better="higher"),
    Column("res1024_top1", "1024 px top-1, %", better="higher"),
)
BASELINE_NOTES = (
    "Each figure is as its source printed it, under that source's own protocol; "
    "they are not numbered as a ranking for that reason.",
    "The fine-tuned Imagen's CAS of 69.24 stands beside a real baseline of 73.09 here and of "
    "76.39 in the paper's table of twelve classifiers: two training recipes.",
    "DiT-XL/2 is shown without guidance; with guidance the same work prints a FID of 2.27.",
    "All systems were trained or fine-tuned on ImageNet's train split (regime B).",
)


def read_published(name: str) -> list[PublishedRow]:
    """The rows of one CSV file, every cell as the text that stands there."""
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def published_tables() -> tuple[Table, ...]:
    """All that the paper prints, in the order of its sections."""
    return (systems_table(), classifiers_table(), scaling_table())


def systems_table() -> Table:
    """generators.csv and cas_resnet50.csv, joined by system and resolution."""
    systems: dict[tuple[str, str], PublishedRow] = {}
    for row in read_published("generators"):
        systems[row["system"], row["resolution"]] = row
    for row in read_published("cas_resnet50"):
        known = systems.get((row["training_data"], row["resolution"]), {})
        source = known.get("source", row["source"])
        if row["source"] not in source:
            source = f"{source}; CAS: {row['source']}"
        systems[row["training_data"], row["resolution"]] = {**known, **row, "source": source}
    resolutions = sorted({key[1] for key in systems}, key=lambda r: int(r or 0))
    return Table(
        "published-systems",
        "Generators, as published",
        SYSTEM_COLUMNS,
        tuple(
            Group(
                f"{r} \N{MULTIPLICATION SIGN} {r} px" if r else "Real images, for comparison",
                tuple(_system_row(*k, row) for k, row in systems.items() if k[1] == r),
            )
            for r in [*[r for r in resolutions if r], *[r for r in resolutions if not r]]
        ),
        caption="FID, Inception Score and Classification Accuracy Score of ImageNet generators.",
        footnotes=BASELINE_NOTES,
        published=True,
    )


def _system_row(system: str, resolution: str, row: PublishedRow) -> Row:
    cells = {
        "system": text_cell(system),
        "fid_train": printed_cell(row.get("fid_train", "")),
        "fid_val": printed_cell(row.get("fid_val", "")),
        "is": printed_cell(row.get("is_mean", ""), row.get("is_std", "")),
        "top1": printed_cell(row.get("top1", "")),
        "top5": printed_cell(row.get("top5", "")),
        "source": text_cell(row["source"]),
    }
    return Row(cells, baseline=not resolution)


def classifiers_table() -> Table:
    """classifiers.csv, one group a family."""
    rows = read_published("classifiers")
    return Table(
        "published-classifiers",
        "Twelve classifiers, as published",
        CLASSIFIER_COLUMNS,
        tuple(
            Group(family, tuple(_plain_row(r, CLASSIFIER_COLUMNS) for r in rows_of))
            for family in dict.fromkeys(r["family"] for r in rows)
            if (rows_of := [r for r in rows if r["family"] == family])
        ),
        caption="ImageNet validation top-1 after training on real images, on generated images "
        f"and on both. {PAPER}.",
        footnotes=(
            "Each model has its own training recipe: compare along a row, not down a column.",
            "Two printed parameter counts are wrong (ResNet-50, ResNet-152).",
        ),
        published=True,
    )


def scaling_table() -> Table:
    """scaling_resnet50.csv."""
    rows = read_published("scaling_resnet50")
    return Table(
        "published-scaling",
        "More generated images, as published",
        SCALING_COLUMNS,
        (Group("ResNet-50 on 1.2 million real images plus generated ones", _scaling_rows(rows)),),
        caption=f"ResNet-50 top-1, mean ± standard deviation as printed. {PAPER}.",
        published=True,
    )


def _scaling_rows(rows: Sequence[PublishedRow]) -> tuple[Row, ...]:
    return tuple(
        Row(
            {
                "train_set_m": printed_cell(row["train_set_m"]),
                "res256_top1": printed_cell(row["res256_top1"], row["res256_std"]),
                "res1024_top1": printed_cell(row["res1024_top1"], row["res1024_std"]),
            },
            baseline=row["train_set_m"] == "1.2",
        )
        for row in rows
    )


def _plain_row(row: PublishedRow, columns: Sequence[Column]) -> Row:
    cells = {
        c.key: printed_cell(row[c.key]) if c.numeric else text_cell(row[c.key]) for c in columns
    }
    return Row(cells)


def printed_cell(text: str, std: str = "") -> Cell:
    """A printed number with its digits as they were printed; empty where none was."""
    if not text:
        return EMPTY
    shown = f"{text} ± {std}" if std else text
    return Cell(shown, float(text), float(std) if std else None)
