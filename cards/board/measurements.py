"""What stands in result files, as rows of data: accuracies, scores, and what an image cost."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cards.measured.cells import names_of
from cards.measured.evaluation_tables import is_fraction, value_direction
from cards.measured.rankings import Evaluated, Ranking, Score, Scored, Training
from cards.measured.release_facts import Facts
from cards.measured.score_names import extractor_name, score_unit
from cards.measured.tables import training_name
from cards.pages.board_data import Measurement, RankingFacts
from classifiers.training.result_values import Source
from metrics.evaluation import Evaluation
from metrics.scoring.directions import score_direction, score_split
from release.results.statistics import CONFIDENCE, student_interval

Fields = dict[str, Any]


def training_measurements(
    rankings: Sequence[Ranking[Training]], facts: Facts, folder: Path
) -> list[Measurement]:
    """Top-1 and top-5 of every training set, and the cost of an image of it. folder: of results."""
    names = names_of(source for r in rankings for row in r.rows for source in row.sources)
    found = []
    for ranking in rankings:
        for row in ranking.rows:
            about = _shared(ranking, row.sources, row.files, folder) | {
                "system": training_name(row, names),
                "images_are": row.arm,
                "model": ranking.settings["model"],
                "recipe": ranking.recipe,
                "split": ranking.reference.get("split"),
                "checked": row.checked == len(row.files),
            }
            for metric, score in row.scores.items():
                what: Fields = {"metric": metric, "unit": "fraction", "direction": "higher"}
                found.append(Measurement(**about, **what, **_spread(score)))
            found += _cost(about, facts, row.sources)
    return found


def score_measurements(
    rankings: Sequence[Ranking[Scored]], facts: Facts, folder: Path
) -> list[Measurement]:
    """Every score of every release, and the cost of an image of it."""
    names = names_of(row.source for r in rankings for row in r.rows)
    found = []
    for ranking in rankings:
        for row in ranking.rows:
            source = row.source
            about = _shared(ranking, [source], row.files, folder) | {
                "system": names[source.name, source.content_sha256],
                "images_are": "real" if source.kind == "real" else "generated",
                "model": extractor_name(ranking.settings),
            }
            for key, score in row.scores.items():
                metric, split = score_split(key)
                what: Fields = {
                    "metric": metric,
                    "split": split,
                    "unit": score_unit(key),
                    "direction": score_direction(key, row.values[key].better) or None,
                }
                found.append(Measurement(**about, **what, **_spread(score)))
            found += _cost(about, facts, [source])
    return found


def evaluation_measurements(
    evaluation: Evaluation, rankings: Sequence[Ranking[Evaluated]], folder: Path
) -> list[Measurement]:
    """Every value of every network, of one open kind."""
    found = []
    for ranking in rankings:
        for row in ranking.rows:
            about = _shared(ranking, row.sources, row.files, folder) | {
                "system": row.system,
                "images_are": row.arm or None,
                "split": ranking.reference.get("split"),
            }
            if not row.sources:
                about |= {"content_sha256": None, "config": None, "images": None}
            for key, score in row.scores.items():
                what: Fields = {
                    "metric": key,
                    "unit": "fraction" if is_fraction(evaluation, key) else "number",
                    "direction": value_direction(evaluation, key, row.values[key].better) or None,
                }
                found.append(Measurement(**about, **what, **_spread(score)))
    return found


def ranking_facts(rankings: Iterable[Ranking[Any]]) -> list[RankingFacts]:
    """The settings that the rows of each share."""
    return [RankingFacts(ranking=r.key, dataset=r.dataset, settings=r.settings) for r in rankings]


def _shared(
    ranking: Ranking[Any], sources: Sequence[Source], files: Iterable[Path], folder: Path
) -> Fields:
    """What all rows of one system in one ranking have in common."""
    regimes = sorted({s.regime for s in sources if s.regime})
    return {
        "dataset": ranking.dataset,
        "origin": "result",
        "ranking": ranking.key,
        "content_sha256": "+".join(s.content_sha256 for s in sources),
        "regime": "+".join(regimes) or None,
        "config": "+".join(dict.fromkeys(s.config for s in sources)),
        "images": round(sum(s.weight * s.images for s in sources)),
        "reference": ranking.reference.get("name"),
        "reference_sha256": ranking.settings.get("test set.images_sha256")
        or ranking.reference.get("content_sha256"),
        "protocol_sha256": ranking.protocol_sha256,
        "result_files": tuple(sorted(f.relative_to(folder).as_posix() for f in files)),
    }


def _spread(score: Score) -> Fields:
    """Value, deviation and interval: of one run over images, of several over seeds."""
    import numpy as np

    interval, over = score.interval, "images"
    if score.seeds > 1:
        ends = student_interval(np.array(list(score.by_seeds.values())))
        interval, over = (ends[0], ends[1]) if ends else None, "seeds"
    return {
        "value": score.mean,
        "std": score.std,
        "n": score.n,
        "seeds": score.seeds,
        **interval_fields(interval, over),
    }


def interval_fields(interval: tuple[float, float] | None, over: str) -> Fields:
    """Nothing where there is no interval."""
    if interval is None:
        return {}
    low, high = interval
    return {"low": low, "high": high, "confidence": CONFIDENCE, "interval_over": over}


def _cost(about: Fields, facts: Facts, sources: Sequence[Source]) -> list[Measurement]:
    """Seconds of one worker for an image, of a set that one release makes alone."""
    made = facts.get((sources[0].content_sha256, sources[0].config)) if len(sources) == 1 else None
    if made is None or made.seconds is None:
        return []
    kept = {k: v for k, v in about.items() if k not in ("split", "checked", "model", "recipe")}
    what: Fields = {"metric": "seconds_per_image", "unit": "seconds", "direction": "lower"}
    return [Measurement(**kept, **what, value=made.seconds)]
