"""A study's report for people to read."""

from collections import Counter
from collections.abc import Sequence

from classifiers.study.answer import answer
from classifiers.study.report_model import (
    Accuracy,
    Arm,
    Comparison,
    Difference,
    Finding,
    StudiedClass,
    StudiedClasses,
    StudyReport,
)
from classifiers.study.study_file import SEED

Answer = Finding | Comparison
MOST_NAMES = 10  # classes named in each direction: an ImageNet of them is not for reading
Group = tuple[str, int, str]  # model, resolution, size: what arms are compared within
CAVEAT = (
    "Each answer stands by itself, at 95%: none is corrected for how many there are. Finding 4 "
    "holds the largest k against the best smaller one, chosen on the same test images, which leans "
    'towards "reproduced".'
)
TAUGHT = (
    "Arms with generated images also learn what the real arm's classifier of the same seed says of "
    "each image."
)
CHANGE = "difference | over seeds | over images"
ARMS = f"""
| training set | regime | images an epoch | steps | top-1, % | top-5, % | {CHANGE} |
|---|---|--:|--:|--:|--:|--:|--:|--:|"""
ANSWERS = f"""
| classifier | real a class | training set | against | {CHANGE} | answer |
|---|---|---|---|--:|--:|--:|---|"""


def markdown(report: StudyReport) -> str:
    """Its arms, the paper's findings, comparisons that the paper lacks, classes."""
    test, study = report.test, report.study
    lines = [
        f"# Study {study.name}",
        "",
        study.description.strip(),
        "",
        f"Top-1 on {test.n:,} real images of {test.name} ({test.split}), mean ± standard "
        f"deviation over seeds {', '.join(map(str, report.seeds))}; the last step of each "
        "training. Difference to the real arm in points: paired by seed, with Student's 95% "
        "interval over seeds and over test images.",
        *_of_generators(report),
        "",
        *(f"- {line}" for line in answer(report)),
    ]
    groups: dict[Group, list[Arm]] = {}
    for row in report.rows:
        groups.setdefault(row.group, []).append(row)
    for (model, resolution, size), rows in groups.items():
        lines += [
            "",
            f"## {report.classifier(model)} at {resolution} px, {size} real images of each class",
        ]
        if any(row.teachers for row in rows):
            lines += ["", TAUGHT]
        lines += [ARMS, *map(_arm_row, rows)]
    lines += ["", "## Findings of Azizi et al. 2023", "", CAVEAT]
    lines += _answer_tables(report.findings)
    lines += ["", "## Comparisons that the paper lacks"]
    lines += _answer_tables(report.comparisons)
    lines += ["", "## Classes", "", *_class_lines(report.classes)]
    return "\n".join([*lines, ""])


def _of_generators(report: StudyReport) -> list[str]:
    """What the intervals over seeds cover beside the classifiers' seeds."""
    sets = [
        made["name"]
        for made in (report.study.model_extra or {}).get("generated", ())
        if SEED in made["release"]
    ]
    if not sets:
        return []
    return [
        f"Each seed trains on images of a generator seed of its own (set {', '.join(sets)}), so "
        "the intervals over seeds cover the generator's chance, too."
    ]


def _arm_row(row: Arm) -> str:
    change = row.difference
    cells = [
        row.arm,
        ", ".join(row.regimes),
        f"{row.images:,}",
        f"{row.steps:,}",
        _percent(row.top1),
        _percent(row.top5) if row.top5 else "",
        *(_change(change.value, change) if change else ["", "", ""]),
    ]
    return "| " + " | ".join(cells) + " |"


def _percent(score: Accuracy) -> str:
    spread = "" if score.std is None else f" ± {100 * score.std:.2f}"
    return f"{100 * score.mean:.2f}{spread}"


def _change(value: float, intervals: Difference | Answer) -> list[str]:
    return [f"{100 * value:+.2f}"] + [
        "" if ends is None else f"{100 * ends[0]:+.2f} to {100 * ends[1]:+.2f}"
        for ends in (intervals.over_seeds, intervals.over_images)
    ]


def _answer_tables(found: Sequence[Answer]) -> list[str]:
    """A table a question and budget, its answers counted above."""
    lines = []
    for question, budget in dict.fromkeys((row.asked, row.budget) for row in found):
        own = [row for row in found if (row.asked, row.budget) == (question, budget)]
        counts = Counter(row.answer for row in own).most_common()
        counted = ", ".join(f"{answer} in {count}" for answer, count in counts)
        title = f"### {question}, equal {budget}"
        lines += ["", title, "", f"Of {len(own)}: {counted}.", ANSWERS]
        lines += map(_answer_row, own)
    return lines


def _answer_row(row: Answer) -> str:
    cells = [
        f"{row.model} at {row.resolution} px",
        row.size or "",
        row.arm or "",
        row.against or "",
        *_change(row.difference, row),
        row.answer,
    ]
    return "| " + " | ".join(cells) + " |"


def _class_lines(reports: Sequence[StudiedClasses]) -> list[str]:
    """The comparisons in which a class differs significantly."""
    telling = [report for report in reports if report.helped or report.harmed]
    lines = [
        f"Of {len(reports)} comparisons {len(telling)} have a class that is helped or harmed; by "
        "how many points:",
        "",
    ]
    for report in telling:
        effect = report.ambiguity_of_names
        rho = ""
        if effect is not None and effect.spearman is not None:
            rho = f"; names: rho {effect.spearman:+.2f}"
        lines.append(
            f"- {report.model} at {report.resolution} px, {report.size} a class, "
            f"{report.arm} against {report.against}: {_named(report.rows)}{rho}"
        )
    return lines


def _named(rows: Sequence[StudiedClass]) -> str:
    """The classes that are harmed and helped, the most changed first; how many more."""
    parts = []
    for verdict in ("harmed", "helped"):
        own = [row for row in rows if row.verdict == verdict]
        own.sort(key=lambda row: -abs(row.gain))
        names = [f"{row.name} {100 * row.gain:+.1f}" for row in own[:MOST_NAMES]]
        more = f" and {len(own) - MOST_NAMES:,} more" if len(own) > MOST_NAMES else ""
        if own:
            parts.append(f"{verdict} {', '.join(names)}{more}")
    return "; ".join(parts)
