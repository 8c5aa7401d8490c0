"""Tables of what was measured: classifiers by training set, distances by release."""

from collections.abc import Sequence
from dataclasses import replace

from cards.drawing.tables import (
    EMPTY,
    Cell,
    Column,
    Group,
    Row,
    Table,
    count_cell,
    spread_cell,
    text_cell,
)
from cards.measured.against_real import baseline_of, ratio_to
from cards.measured.cells import (
    apart_note,
    made_cells,
    made_columns,
    names_of,
    percent_cell,
    score_cells,
)
from cards.measured.rankings import Ranking, Scored, Training, differing_settings
from cards.measured.release_facts import Facts
from cards.measured.score_names import extractor_name, in_order, score_column
from cards.measured.settings import Settings
from classifiers.training.result_values import Source

ON_TEST = "on real test images; CAS if generated, unless another classifier helped"
TRAINING_COLUMNS = (
    Column("rank", "Rank", help="among training sets of generated images only"),
    Column("name", "Training set", numeric=False),
    Column("top1", "Top-1, %", better="higher", help=ON_TEST),
    Column("top5", "Top-5, %", better="higher", help=ON_TEST),
    Column("seeds", "Runs", help="training runs with different seeds"),
    Column("real_top1", "Real only, %", better="higher", help="same recipe on real images"),
    Column("ratio", "Of real", better="higher", help="top-1 over the real-only top-1"),
    Column("arm", "Images are", numeric=False),
    Column("regime", "Regime", numeric=False, help="what the generator saw of the real set"),
    Column("config", "Size, px"),
    Column("images", "Images"),
    Column("checked", "Checked", numeric=False, help="against the predictions beside the results"),
)
SOURCE_COLUMNS = (
    Column("name", "Release", numeric=False),
    Column("kind", "Images are", numeric=False),
    Column("regime", "Regime", numeric=False, help="what the generator saw of the real set"),
    Column("config", "Size, px"),
    Column("images", "Images"),
)
NO_RATIO = Cell("not shown", note="so few runs so far apart that the interval reaches 0")
JOINED = ("fd_train", "fd_validation", "fd_test", "inception_score")  # shown beside the accuracies
REGIMES = (
    "Regime A: the generator never saw the real set. B: it was trained or fine-tuned on it. "
    "C: it is conditioned on real images while sampling."
)
REAL_ONLY = (
    "Real only: the same recipe on as many real images, or on the number in brackets; where real "
    "images had generated ones added, on those real images alone. Of real: square brackets are the "
    "95% interval over the seeds that both have."
)
CHECKED = (
    "Checked: the accuracies were counted again from the predictions beside the result files; not "
    "checked: there are none, so that the file's word stands alone."
)
SPREAD = (
    "± is the standard deviation over runs; square brackets are the 95% interval of a single run."
)


def training_table(
    dataset: str,
    rankings: Sequence[Ranking[Training]],
    scores: Sequence[Ranking[Scored]],
    facts: Facts,
) -> Table:
    """One group a (model, recipe, protocol, test set); scores of the same releases beside."""
    names = names_of(source for r in rankings for row in r.rows for source in row.sources)
    joined = _joined_ranking(rankings, scores)
    keys = [key for key in _score_keys([joined] if joined else []) if key in JOINED]
    differing = differing_settings(rankings)
    groups = []
    for ranking in rankings:
        rows = sorted(ranking.rows, key=lambda row: -row.scores["top1"].mean)
        ranks = {id(r): i for i, r in enumerate((r for r in rows if r.arm == "generated"), 1)}
        cells = [
            {
                **_training_cells(ranking, row, names),
                **_joined_cells(joined, row, keys),
                **made_cells(facts, row.sources),
            }
            | ({"rank": count_cell(ranks[id(row)])} if id(row) in ranks else {})
            for row in rows
        ]
        groups.append(
            Group(
                f"{ranking.settings['model']}, recipe {ranking.recipe}, "
                f"tested on {rows[0].scores['top1'].n:,} real images",
                tuple(Row(c, r.arm == "real") for c, r in zip(cells, rows, strict=True)),
                note=apart_note(ranking.settings, differing),
            )
        )
    caption = "Classifiers trained on each set, all tested on the same real test images."
    footnotes = [SPREAD, REAL_ONLY, REGIMES, CHECKED]
    if joined:
        footnotes.append(
            f"FD and Inception-style score are those of {_scores_title(joined.settings)}; their "
            "intervals, and releases scored otherwise, stand in the table of distances."
        )
    return Table(
        f"{dataset}-classifiers",
        "Which training set is worth most",
        (*TRAINING_COLUMNS, *_score_columns(scores, keys), *made_columns(groups)),
        tuple(groups),
        caption=caption,
        footnotes=tuple(footnotes),
    )


def _training_cells(
    ranking: Ranking[Training], row: Training, names: dict[tuple[str, str], str]
) -> dict[str, Cell]:
    top1 = row.scores["top1"]
    name = training_name(row, names)
    regimes = sorted({s.regime for s in row.sources if s.regime})
    configs = list(dict.fromkeys(s.config for s in row.sources))
    content = ", ".join(f"{s.content_sha256[:12]} {s.config}/{s.split}" for s in row.sources)
    cells = {
        "name": Cell(name, name, note=content),
        "arm": text_cell(row.arm),
        "regime": text_cell(", ".join(regimes)),
        "config": Cell(", ".join(configs), int(configs[0]) if configs[0].isdigit() else configs[0]),
        "images": count_cell(row.images),
        "checked": text_cell(_checked(row)),
        "top1": percent_cell(top1),
        "seeds": count_cell(top1.seeds),
    }
    if "top5" in row.scores:
        cells["top5"] = percent_cell(row.scores["top5"])
    baseline = baseline_of(ranking, row)
    if baseline is not None and row.arm != "real":
        real = baseline.scores["top1"]
        same = baseline.images == row.images
        text = f"{100 * real.mean:.2f}" + ("" if same else f" ({baseline.images:,})")
        note = f"{baseline.images:,} real images, {real.seeds} runs"
        cells["real_top1"] = Cell(text, 100 * real.mean, note=note)
        ratio = ratio_to(real, top1)
        cells["ratio"] = (
            NO_RATIO if ratio is None else spread_cell(ratio[0], None, ratio[1], 3, note)
        )
    return cells


def _checked(row: Training) -> str:
    """Of how many runs the accuracy was counted again from the predictions."""
    runs = len(row.files)
    if row.checked in (0, runs):
        return "yes" if row.checked else "not checked"
    return f"{row.checked} of {runs} runs"


def scores_table(dataset: str, rankings: Sequence[Ranking[Scored]], facts: Facts) -> Table:
    """One group a (extractor, protocol, number of images)."""
    names = names_of(row.source for r in rankings for row in r.rows)
    keys = _score_keys(rankings)
    differing = differing_settings(rankings)
    groups = tuple(
        Group(
            _scores_title(r.settings),
            tuple(
                Row(
                    {
                        **_source_cells(row.source, names),
                        **score_cells(r, row, keys),
                        **made_cells(facts, [row.source]),
                    },
                    baseline=row.source.kind == "real",
                )
                for row in sorted(r.rows, key=lambda row: _first_score(row, keys))
            ),
            note=apart_note(r.settings, differing),
        )
        for r in rankings
    )
    return Table(
        f"{dataset}-scores",
        "Distance to the real images",
        (*SOURCE_COLUMNS, *_score_columns(rankings, keys), *made_columns(groups)),
        groups,
        caption="Fréchet distance (FD) and Inception-style score on the features named.",
        footnotes=(SPREAD, REGIMES),
    )


def _first_score(row: Scored, keys: Sequence[str]) -> float:
    known = [row.scores[key].mean for key in keys if key in row.scores]
    return known[0] if known else float("inf")


def _source_cells(source: Source, names: dict[tuple[str, str], str]) -> dict[str, Cell]:
    split = "" if source.split == "train" else f", {source.split}"
    name = names[source.name, source.content_sha256] + split
    config = int(source.config) if source.config.isdigit() else source.config
    return {
        "name": Cell(
            name, name, note=f"{source.content_sha256[:12]} {source.config}/{source.split}"
        ),
        "kind": text_cell("real" if source.kind == "real" else "generated"),
        "regime": text_cell(source.regime or ""),
        "config": Cell(source.config, config),
        "images": count_cell(source.images),
    }


def _joined_ranking(
    rankings: Sequence[Ranking[Training]], scores: Sequence[Ranking[Scored]]
) -> Ranking[Scored] | None:
    """The ranking of distances that covers most of the training sets; None if none does."""
    rows = [row for ranking in rankings for row in ranking.rows]
    counts = [sum(find_scored(r, row) is not None for row in rows) for r in scores]
    return scores[counts.index(max(counts))] if any(counts) else None


def find_scored(ranking: Ranking[Scored], row: Training) -> Scored | None:
    """The scores of exactly the images that `row` was trained on."""
    if len(row.sources) != 1:
        return None
    return next((s for s in ranking.rows if s.source == row.sources[0]), None)


def _joined_cells(
    joined: Ranking[Scored] | None, row: Training, keys: Sequence[str]
) -> dict[str, Cell]:
    scored = find_scored(joined, row) if joined else None
    if joined is None or scored is None:
        return dict.fromkeys(keys, EMPTY)
    cells = score_cells(joined, scored, keys)
    return {key: replace(cell, text=cell.text.split(" ")[0]) for key, cell in cells.items()}


def _score_columns(rankings: Sequence[Ranking[Scored]], keys: Sequence[str]) -> list[Column]:
    """With the direction that a result states of its value, if any does."""
    stated = {
        key: value.better
        for ranking in rankings
        for row in ranking.rows
        for key, value in row.values.items()
        if value.better
    }
    return [score_column(key, stated.get(key)) for key in keys]


def _score_keys(rankings: Sequence[Ranking[Scored]]) -> list[str]:
    return in_order(key for r in rankings for row in r.rows for key in row.scores)


def _scores_title(settings: Settings) -> str:
    return f"{extractor_name(settings)}, {settings['images']:,} images"


def training_name(row: Training, names: dict[tuple[str, str], str]) -> str:
    """Its releases; of a mixture how many images of each, and which an epoch visits repeatedly."""
    return " + ".join(
        names[s.name, s.content_sha256] + _in_brackets(s, mixed=len(row.sources) > 1)
        for s in row.sources
    )


def _in_brackets(source: Source, *, mixed: bool) -> str:
    facts = [f"{source.images:,}"] if mixed else []
    if source.weight != 1:
        facts.append(f"visited {source.weight:g} times")
    return f" ({', '.join(facts)})" if facts else ""
