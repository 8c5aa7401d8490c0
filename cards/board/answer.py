"""The board's question, answered in a sentence for one data set."""

from collections.abc import Sequence
from dataclasses import dataclass

from cards.measured.against_real import Ends, baseline_of, ratio_to, verdict
from cards.measured.cells import names_of
from cards.measured.rankings import Ranking, Score, Training
from cards.measured.tables import training_name
from classifiers.study.report_model import Arm, StudyReport

NOTHING = "No classifier was trained on generated images alone here."
NO_BASELINE = (
    "Classifiers were trained on generated images alone, but none by the same recipe on real ones: "
    "train one to see what the generated images are worth."
)
ELSEWHERE = "What was selected or fine-tuned here stands below; no training set is ranked."
PRINTED = "Nothing was measured on it here: the paper's figures, as printed."


@dataclass(frozen=True)
class Best:
    """The best generated set of one ranking, beside real images; classifier: model and recipe."""

    classifier: str
    row: Training
    real: Training


def answer(
    title: str,
    rankings: Sequence[Ranking[Training]],
    studies: Sequence[StudyReport],
    *,
    elsewhere: bool = False,
) -> str:
    """Of the ranking with most runs, the best set that has real images beside it; or of a study.

    elsewhere: whether other reports on the data set stand below.
    """
    found = [best for ranking in rankings if (best := _best(ranking))]
    if found:
        names = names_of(s for r in rankings for row in r.rows for s in row.sources)
        return _sentence(title, max(found, key=_standing), names)
    arms = [pair for study in studies for pair in _arms(study)]
    if not arms:
        alone = any(row.arm == "generated" for ranking in rankings for row in ranking.rows)
        if alone:
            return NO_BASELINE
        return ELSEWHERE if elsewhere else NOTHING
    generated, real = max(arms, key=lambda pair: (len(pair[0].seeds), pair[0].top1.mean))
    return (
        f"On {title} {generated.label} gives {generated.model} {100 * generated.top1.mean:.2f}% "
        f"top-1 on real test images, real images alone {100 * real.top1.mean:.2f}%."
    )


def answering_first(rankings: Sequence[Ranking[Training]]) -> list[Ranking[Training]]:
    """The ranking that the answer is of, then the others as they were."""

    def place(ranking: Ranking[Training]) -> tuple[int, float]:
        best = _best(ranking)
        return _standing(best) if best else (0, 0.0)

    first = max(rankings, key=place, default=None)
    return sorted(rankings, key=lambda ranking: ranking is not first)


def _standing(best: Best) -> tuple[int, float]:
    top1 = best.row.scores["top1"]
    return top1.seeds, top1.mean


def _best(ranking: Ranking[Training]) -> Best | None:
    rows = [row for row in ranking.rows if row.is_cas]
    best = max(rows, key=lambda row: row.scores["top1"].mean, default=None)
    real = None if best is None else baseline_of(ranking, best)
    if best is None or real is None:
        return None
    classifier = f"{ranking.settings['model']} ({ranking.recipe})"
    return Best(classifier, best, real)


def _sentence(title: str, best: Best, names: dict[tuple[str, str], str]) -> str:
    ours, real = best.row.scores["top1"], best.real.scores["top1"]
    share = _share(ratio_to(real, ours))
    if verdict(real, ours) == "no clear difference":
        share += ": no statistically significant difference"
    return (
        f"On {title} the best set of generated images, {training_name(best.row, names)} "
        f"({best.row.images:,} images), "
        f"gives {best.classifier} {_top1(ours)} on real test images; "
        f"{best.real.images:,} real images give {_top1(real)}{share}."
    )


def _share(ratio: tuple[float, Ends | None] | None) -> str:
    if ratio is None:
        return ""
    value, ends = ratio
    return f", so the ratio is {value:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def _top1(score: Score) -> str:
    runs = f"{score.seeds} runs" if score.seeds > 1 else "1 run"
    return f"{100 * score.mean:.2f}% top-1 ({runs})"


def _arms(study: StudyReport) -> list[tuple[Arm, Arm]]:
    """Generated images alone, and the real arm beside them."""
    pairs = []
    for arms in study.groups.values():
        real = next((arm for arm in arms if arm.kind == "real"), None)
        pairs += [(arm, real) for arm in arms if real is not None and arm.kind == "generated"]
    return pairs
