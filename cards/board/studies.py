"""A study on the leaderboard: its arms, its classifiers, its scaling curves and its classes."""

from collections.abc import Sequence
from typing import Any

from cards.board.published import DATASET, PAPER, PublishedRow, printed_cell, read_published
from cards.board.views import published_gain_view
from cards.drawing.charts import CONTROL, gain_chart
from cards.drawing.tables import (
    EMPTY,
    Cell,
    Column,
    Group,
    Row,
    Table,
    count_cell,
    difference_cell,
    signed,
    spread_cell,
    text_cell,
)
from cards.measured.class_changes import RULE, TOO_FEW, class_changes
from cards.measured.tables import REGIMES
from cards.pages.facet import ClassView, Section, View
from classifiers.recipes.recipe import load_recipe, recipe_names
from classifiers.study.report_model import (
    Accuracy,
    Arm,
    Comparison,
    Difference,
    Finding,
    StudyReport,
)
from classifiers.training.class_verdicts import FEWEST_SEEDS

ARM_COLUMNS = (
    Column("arm", "Training set", numeric=False),
    Column("top1", "Top-1, %", better="higher", help="on real test images, last training step"),
    Column("top5", "Top-5, %", better="higher", help="on real test images, last training step"),
    Column("difference", "Difference to real, points", better="higher", help="paired by seed"),
    Column("over_images", "over test images", numeric=False, help="95% interval of the difference"),
    Column("regime", "Regime", numeric=False, help="what the generator saw of the real set"),
    Column("images", "Images an epoch"),
    Column("steps", "Updates", help="optimiser steps"),
    Column("seeds", "Runs", help="training runs with different seeds"),
)
MODEL_COLUMNS = (
    Column("model", "Classifier", numeric=False),
    Column("resolution", "Input, px"),
    Column("real_images", "Real images of each class", numeric=False),
    Column("generated", "Generated set", numeric=False),
    Column("real_top1", "Real, %", better="higher"),
    Column("generated_top1", "Generated, %", better="higher", help="as many as there are real"),
    Column("both_top1", "Real + generated, %", better="higher", help="as many again as real"),
    Column("difference", "Δ, points", better="higher", help="real + generated less real"),
)
PAPER_COLUMNS = (
    Column("paper_real", "Paper: real, %", better="higher"),
    Column("paper_generated", "Paper: generated, %", better="higher"),
    Column("paper_both", "Paper: both, %", better="higher"),
    Column("paper_delta", "Paper: Δ, points", better="higher"),
)
INTERVALS = (
    "± is the standard deviation over runs; square brackets are 95% intervals: of a difference "
    "over seeds (Student's, paired), and in a column of its own over test images."
)
SIGNIFICANT = (
    "A difference is statistically significant if both its intervals, over seeds and over test "
    "images, exclude 0, so with one seed none is. A class is helped or harmed if two tests, one "
    "over seeds and one over test images, both say so, corrected over all classes to a false "
    "discovery rate of 5%."
)
FINDINGS = (
    f"{PAPER}, asked on ImageNet what generated images add to real ones. Finding 2: alone they "
    "stay below real ones, added to them they help. Finding 4: too many of them hurt. Here it is "
    "asked whether these images do the same."
)


def study_section(study: StudyReport, number: int) -> Section:
    """number: tells studies of one data set apart."""
    key = f"{study.dataset}-study-{number}"
    models = classifiers_table(study, key)
    return Section(
        key,
        f"Study {study.study.name}: does it help, how much, for which classes",
        tables=(arms_table(study, key), *([models] if models.rows else [])),
        views=tuple(gain_views(study, key)),
        class_views=tuple(study_class_views(study)),
    )


def group_words(study: StudyReport, group: tuple[str, int, str]) -> str:
    """ "fashion-mnist-small at 32 px, 100 real images of each class"."""
    model, resolution, size = group
    images = "all real images" if size == "all" else f"{size} real images of each class"
    return f"{study.classifier(model)} at {resolution} px, {images}"


def arms_table(study: StudyReport, key: str) -> Table:
    """Every arm, one group a classifier and number of real images."""
    test = study.test
    return Table(
        f"{key}-arms",
        f"Study {study.study.name}: training sets",
        tuple(c for c in ARM_COLUMNS if c.key != "top5" or any(arm.top5 for arm in study.rows)),
        tuple(
            Group(
                group_words(study, group),
                tuple(Row(_arm_cells(arm), arm.kind == "real") for arm in arms),
            )
            for group, arms in study.groups.items()
        ),
        caption=f"{study.study.description.strip()} Tested on {test.n:,} real images of "
        f"{test.name} ({test.split}).",
        footnotes=(
            INTERVALS,
            *([REGIMES] if any(arm.regimes for arm in study.rows) else []),
            SIGNIFICANT,
            *([FINDINGS] if study.findings else []),
            *_answer_lines(study),
        ),
    )


def _arm_cells(arm: Arm) -> dict[str, Cell]:
    cells = {
        "arm": text_cell(arm.label),
        "top1": accuracy_cell(arm.top1),
        "regime": text_cell(", ".join(arm.regimes)),
        "images": count_cell(arm.images),
        "steps": count_cell(arm.steps),
        "seeds": count_cell(len(arm.seeds)),
    }
    if arm.top5 is not None:
        cells["top5"] = accuracy_cell(arm.top5)
    if arm.difference is not None:
        cells["difference"] = points_cell(arm.difference)
        cells["over_images"] = _interval_cell(arm.difference)
    return cells


def accuracy_cell(accuracy: Accuracy) -> Cell:
    """In percent."""
    std = None if accuracy.std is None else 100 * accuracy.std
    interval = accuracy.interval and (100 * accuracy.interval[0], 100 * accuracy.interval[1])
    return spread_cell(100 * accuracy.mean, std, interval, 2, f"n = {accuracy.n:,}")


def points_cell(difference: Difference) -> Cell:
    """In points, with its interval over seeds."""
    ends = difference.over_seeds and (
        100 * difference.over_seeds[0],
        100 * difference.over_seeds[1],
    )
    return difference_cell(100 * difference.value, ends, 2)


def _interval_cell(difference: Difference) -> Cell:
    if difference.over_images is None:
        return EMPTY
    low, high = (100 * end for end in difference.over_images)
    text = f"[{signed(low, 2)}, {signed(high, 2)}]"
    return Cell(text, text, interval=(low, high))


def _answer_lines(study: StudyReport) -> list[str]:
    """Each question of the study, its answers counted, with the range of their differences."""
    found: list[tuple[str, Finding | Comparison]] = [
        *(
            (f"Azizi et al. 2023, finding {f.finding}, {_equal(f.budget)}", f)
            for f in study.findings
        ),
        *((f"{c.question}, {_equal(c.budget)}", c) for c in study.comparisons),
    ]
    questions: dict[str, dict[str, list[float]]] = {}
    for question, one in found:
        answers = questions.setdefault(question, {})
        answers.setdefault(one.answer, []).append(100 * one.difference)
    return [f"{question}: {_counted(answers)}." for question, answers in questions.items()]


def _equal(budget: str) -> str:
    return f"equal {'updates' if budget == 'steps' else 'epochs'}"


def _counted(answers: dict[str, list[float]]) -> str:
    cases = sum(map(len, answers.values()))
    if cases == 1:
        ((answer, (gain,)),) = answers.items()
        return f"{answer} ({signed(gain, 2)} points)"
    return "; ".join(
        f"{answer} in {len(gains)} of {cases} cases "
        f"({signed(min(gains), 2)} to {signed(max(gains), 2)} points)"
        for answer, gains in answers.items()
    )


def classifiers_table(study: StudyReport, key: str) -> Table:
    """Each classifier on real, generated and both; on ImageNet beside the paper's twelve."""
    rows = [
        Row(
            _classifier_cells(study, arms, generated) | _paper_cells(study, arms[0]),
        )
        for arms in study.groups.values()
        for generated in dict.fromkeys(arm.generated for arm in study.rows if arm.generated)
        if _both(arms, generated) is not None
    ]
    return Table(
        f"{key}-models",
        f"Study {study.study.name}: classifiers on real images, on generated ones and on both",
        (*MODEL_COLUMNS, *(PAPER_COLUMNS if study.dataset == DATASET else ())),
        (Group("As many generated images as real ones, equal epochs", tuple(rows)),)
        if rows
        else (),
        caption="Azizi et al. 2023 asked it of each classifier: what do generated images add?",
        footnotes=("Each classifier has its own training recipe: compare along a row.", INTERVALS),
    )


def _find(arms: Sequence[Arm], kind: str, generated: str | None) -> Arm | None:
    wanted = (kind, generated, "epochs")
    return next(
        (
            arm
            for arm in arms
            if (arm.kind, arm.generated, arm.budget) == wanted and arm.times in (0.0, 1.0)
        ),
        None,
    )


def _both(arms: Sequence[Arm], generated: str) -> Arm | None:
    return _find(arms, "real+generated", generated)


def _classifier_cells(study: StudyReport, arms: Sequence[Arm], generated: str) -> dict[str, Cell]:
    both, alone = _both(arms, generated), _find(arms, "generated", generated)
    real = _find(arms, "real", None)
    found = {"real_top1": real, "generated_top1": alone, "both_top1": both}
    cells = {name: accuracy_cell(arm.top1) for name, arm in found.items() if arm is not None}
    if both is not None and both.difference is not None:
        cells["difference"] = points_cell(both.difference)
    return cells | {
        "model": text_cell(study.classifier(arms[0].model)),
        "resolution": count_cell(arms[0].resolution),
        "real_images": text_cell(arms[0].size),
        "generated": text_cell(generated),
    }


def _paper_cells(study: StudyReport, arm: Arm) -> dict[str, Cell]:
    """What the paper prints of the same network at the same input size."""
    printed = published_classifier(arm.model) if study.dataset == DATASET else None
    if printed is None:
        return {}
    return {
        "paper_real": printed_cell(printed["real_top1"]),
        "paper_generated": printed_cell(printed["generated_top1"]),
        "paper_both": printed_cell(printed["real_plus_generated_top1"]),
        "paper_delta": printed_cell(printed["delta_printed"]),
    }


def published_classifier(recipe: str) -> PublishedRow | None:
    """The paper's row of a built-in classifier recipe, None if it has none.

    The paper prints 190 px for ResNet-RS-101's second row; its recipe takes 192.
    """
    if recipe not in recipe_names():
        return None
    model = load_recipe(recipe)
    rows = [r for r in read_published("classifiers") if r["timm_name"] == model.model]
    return min(
        (r for r in rows if abs(int(r["input_size"]) - model.resolution) <= 2),
        key=lambda r: abs(int(r["input_size"]) - model.resolution),
        default=None,
    )


def gain_views(study: StudyReport, key: str) -> list[View]:
    """What k generated images for each real one add, a chart a classifier and size; the paper's."""
    views = []
    for number, (group, arms) in enumerate(study.groups.items()):
        points = [p for arm in arms if (p := _gain_point(arm))]
        if len({p["times"] for p in points}) < 2:
            continue
        starts = {(p["series"], p["budget"]) for p in points}
        zero = {"times": 0, "gain": 0.0, "low": 0.0, "high": 0.0}
        points += [{"series": s, "budget": b, **zero} for s, b in sorted(starts)]
        views.append(
            View(
                f"{key}-gain-{number}",
                f"More generated images: {group_words(study, group)}",
                "Top-1 less that of real images alone; bars are 95% intervals over seeds. The "
                "control visits the real images as often as both together.",
                gain_chart(sorted(points, key=lambda p: p["times"])),
            )
        )
    return [*views[:1], published_gain_view(key), *views[1:]] if views else []


def _gain_point(arm: Arm) -> dict[str, Any] | None:
    if arm.kind not in ("real+generated", "real-repeated") or arm.difference is None:
        return None
    gain, ends = arm.difference.value, arm.difference.over_seeds
    low, high = ends or (gain, gain)
    return {
        "series": f"+ k \N{MULTIPLICATION SIGN} {arm.generated}" if arm.generated else CONTROL,
        "budget": _equal(arm.budget),
        "times": arm.times,
        "gain": 100 * gain,
        "low": 100 * low,
        "high": 100 * high,
    }


def study_class_views(study: StudyReport) -> list[ClassView]:
    """Each arm against the real one, or its control, of the same classifier and size."""
    arms = {(*arm.group, arm.arm): arm for arm in study.rows}
    views = []
    for report in study.classes:
        group = (report.model, report.resolution, report.size)
        own, against = arms[*group, report.arm], arms[*group, report.against]
        tested = min(len(own.seeds), len(against.seeds)) >= FEWEST_SEEDS
        changes = class_changes(
            [(r.wnid, r.name, r.n, r.baseline, r.other, r.verdict) for r in report.rows]
        )
        views.append(
            ClassView(
                f"{own.label} against {against.label}: {group_words(study, group)}",
                f"{against.label}, by the same classifier",
                RULE if tested else f"{RULE} {TOO_FEW}",
                changes,
                tested,
            )
        )
    return views
