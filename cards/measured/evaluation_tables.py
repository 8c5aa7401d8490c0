"""Tables of the open kinds of result: a row a network, a column a value."""

from collections.abc import Sequence

from cards.drawing.tables import (
    Cell,
    Column,
    Group,
    Row,
    Table,
    decimals_for,
    spread_cell,
    text_cell,
)
from cards.measured.cells import apart_note, percent_cell, runs_note
from cards.measured.rankings import Evaluated, Ranking, Score, differing_settings
from cards.measured.tables import SPREAD
from metrics.evaluation import Evaluation

NAME_COLUMNS = (
    Column("name", "Network", numeric=False, help="and what it learned from, where that is known"),
    Column("arm", "It learned from", numeric=False),
)


def evaluation_table(
    dataset: str, evaluation: Evaluation, rankings: Sequence[Ranking[Evaluated]]
) -> Table:
    """One group a test set and protocol; best by the first value above."""
    keys = value_keys(evaluation, rankings)
    differing = differing_settings(rankings)
    groups = [
        Group(
            f"{ranking.reference.get('name')}, {ranking.reference.get('config')} px",
            tuple(
                Row(_cells(evaluation, row, keys), baseline=row.arm == "real")
                for row in sorted(ranking.rows, key=lambda row: _place(evaluation, row, keys))
            ),
            note=apart_note(ranking.settings, differing),
        )
        for ranking in rankings
    ]
    columns = [_column(evaluation, key, rankings) for key in keys]
    return Table(
        f"{dataset}-{evaluation.kind}",
        evaluation.title,
        (*NAME_COLUMNS, *columns),
        tuple(groups),
        caption=evaluation.caption,
        footnotes=(SPREAD, *_protocols(evaluation, keys, rankings)),
    )


def value_keys(evaluation: Evaluation, rankings: Sequence[Ranking[Evaluated]]) -> list[str]:
    """Those that any row has, in the order of the kind's names; others last."""
    found = {key for ranking in rankings for row in ranking.rows for key in row.scores}
    return [key for key in evaluation.names if key in found] + sorted(found - set(evaluation.names))


def value_label(evaluation: Evaluation, key: str) -> str:
    """What people read of a value; of one without a name its key."""
    name = evaluation.names.get(key)
    return name.label if name else key.replace("_", " ")


def value_direction(evaluation: Evaluation, key: str, stated: str | None) -> str:
    """As the result states it, else as the kind does."""
    name = evaluation.names.get(key)
    return stated or (name.better if name else "")


def is_fraction(evaluation: Evaluation, key: str) -> bool:
    """Whether a value is shown in percent."""
    return key in evaluation.names and evaluation.names[key].unit == "fraction"


def value_cell(evaluation: Evaluation, key: str, score: Score) -> Cell:
    """With its spread: a fraction in percent."""
    if is_fraction(evaluation, key):
        return percent_cell(score)
    digits = decimals_for([score.mean])
    return spread_cell(score.mean, score.std, score.interval, digits, runs_note(score))


def _cells(evaluation: Evaluation, row: Evaluated, keys: Sequence[str]) -> dict[str, Cell]:
    found = {key: value_cell(evaluation, key, row.scores[key]) for key in keys if key in row.scores}
    return {"name": text_cell(row.system), "arm": text_cell(row.arm), **found}


def _place(evaluation: Evaluation, row: Evaluated, keys: Sequence[str]) -> float:
    first = next((key for key in keys if key in row.scores), None)
    if first is None:
        return float("inf")
    lower = value_direction(evaluation, first, row.values[first].better) == "lower"
    return row.scores[first].mean * (1 if lower else -1)


def _column(evaluation: Evaluation, key: str, rankings: Sequence[Ranking[Evaluated]]) -> Column:
    rows = [row for ranking in rankings for row in ranking.rows if key in row.values]
    better = value_direction(evaluation, key, rows[0].values[key].better if rows else None)
    unit = ", %" if is_fraction(evaluation, key) else ""
    return Column(key, value_label(evaluation, key) + unit, better=better)


def _protocols(
    evaluation: Evaluation, keys: Sequence[str], rankings: Sequence[Ranking[Evaluated]]
) -> list[str]:
    """ "Protocol dino-knn: k-NN." of each that settings name."""
    values: dict[str, list[str]] = {}
    for key in keys:
        rows = [row for ranking in rankings for row in ranking.rows if key in row.values]
        settings = (rows[0].values[key].model_extra or {}).get("settings", {})
        if "protocol" in settings:
            values.setdefault(settings["protocol"], []).append(value_label(evaluation, key))
    return [f"Protocol {name}: {', '.join(labels)}." for name, labels in values.items()]
