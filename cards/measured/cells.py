"""Cells and words that the tables of measurements share."""

from collections.abc import Iterable, Sequence

from cards.drawing.tables import Cell, Column, Group, decimals_for, spread_cell, text_cell
from cards.measured.rankings import Ranking, Score, Scored
from cards.measured.release_facts import Facts
from cards.measured.score_names import score_name
from cards.measured.settings import Settings
from classifiers.training.result_values import Source
from release.files.commit import sha256_text

METRIC_SETTINGS = "metric settings of "
LONGEST = 40  # characters of a setting that are shown
MOST = 3  # settings that are named; two recipes differ in dozens

MADE_COLUMNS = (
    Column("seconds", "Cost, s an image", better="lower", help="of one worker, all stages"),
    Column("sampler", "Sampler", numeric=False),
)


def made_cells(facts: Facts, sources: Sequence[Source]) -> dict[str, Cell]:
    """Sampler and cost of a set that one release makes alone, where something is known of it."""
    made = facts.get((sources[0].content_sha256, sources[0].config)) if len(sources) == 1 else None
    if made is None:
        return {}
    cells = {"sampler": text_cell(made.sampler)}
    if made.seconds is not None:
        cells["seconds"] = Cell(f"{made.seconds:.3g}", made.seconds, note=made.basis)
    return cells


def made_columns(groups: Iterable[Group]) -> list[Column]:
    """Those of which something is known in any row."""
    known = {key for group in groups for row in group.rows for key in row.cells}
    return [column for column in MADE_COLUMNS if column.key in known]


def percent_cell(score: Score) -> Cell:
    """A share in percent, with its spread."""
    std = None if score.std is None else 100 * score.std
    interval = score.interval and (100 * score.interval[0], 100 * score.interval[1])
    return spread_cell(100 * score.mean, std, interval, 2, runs_note(score))


def runs_note(score: Score) -> str:
    """How many test images, how many runs."""
    n = f"n = {score.n:,}" if score.n else ""
    runs = f"{score.seeds} runs" if score.seeds > 1 else "1 run"
    return ", ".join(part for part in (n, runs) if part)


def score_cells(ranking: Ranking[Scored], row: Scored, keys: Sequence[str]) -> dict[str, Cell]:
    """Scores of one row, with as many decimals as the ranking's largest needs."""
    cells = {}
    for key in keys:
        if key not in row.scores:
            continue
        score = row.scores[key]
        digits = decimals_for([r.scores[key].mean for r in ranking.rows if key in r.scores])
        cells[key] = spread_cell(score.mean, score.std, score.interval, digits, runs_note(score))
    return cells


def names_of(sources: Iterable[Source]) -> dict[tuple[str, str], str]:
    """Shown name by (name, content hash): two releases of one name get their hash behind it."""
    known: dict[str, set[str]] = {}
    pairs = {(s.name, s.content_sha256) for s in sources}
    for name, content in pairs:
        known.setdefault(name, set()).add(content)
    return {(n, c): n if len(known[n]) == 1 else f"{n} ({c[:8]})" for n, c in pairs}


def apart_note(settings: Settings, differing: Sequence[str]) -> str:
    """Why this group is not ranked with the others: what differs, with its own values."""
    if not differing:
        return ""
    shown = ", ".join(
        f"{_setting_words(name)} (here {_short(settings.get(name))})" for name in differing[:MOST]
    )
    more = len(differing) - MOST
    rest = f", and {more} more settings (leaderboard.json has them all)" if more > 0 else ""
    return f"Not ranked with the other groups, which differ from it in: {shown}{rest}"


def _setting_words(name: str) -> str:
    """ "test set content" for "test set.content_sha256"."""
    if name.startswith(METRIC_SETTINGS):
        return f"how {score_name(name.removeprefix(METRIC_SETTINGS))} is measured"
    words = name.removeprefix("protocol.").removesuffix("_sha256")
    return words.replace(".", " ").replace("_", " ")


def _short(value: object) -> str:
    """Hashes by their beginning, long settings by that of their hash."""
    text = "none" if value is None else str(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:12]
    return text if len(text) <= LONGEST else sha256_text(text)[:12]
