"""The page of a trial: the answer, what was compared, the images, the commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cards.board.board import sample_figure
from cards.board.studies import study_section
from cards.pages.facet import Facet, Section
from cards.pages.page import render_html
from cards.trial.log import StepLog
from cards.trial.plan import Found, Plan
from cards.trial.steps import Step, path_line
from cards.trial.verdict import Verdict
from classifiers.study.report_model import StudyReport
from release.files.commit import write_atomically
from release.files.storage import release_path
from release.images.crop_rules import CropRule

SQUARES: dict[CropRule, str] = {
    "center-crop": "Of each image the central square was taken (--crop center-crop).",
    "pad": "Each image was made square by black borders (--crop pad).",
}


@dataclass(frozen=True)
class ShownCommand:
    """A command of the trial; seconds: in words."""

    title: str
    line: str
    seconds: str


@dataclass(frozen=True)
class ShownTrial:
    """What the page says beside its tables. path: the line that the commands need in a shell that
    does not find them."""

    dataset: str
    sentences: tuple[str, ...]
    facts: str
    path: str | None
    commands: tuple[ShownCommand, ...]


def write_page(
    out: Path,
    found: Found,
    plan: Plan,
    report: StudyReport,
    answer: Verdict,
    steps: Sequence[Step],
    log: StepLog,
) -> Path:
    """OUT/index.html, one file that loads nothing from elsewhere."""
    figures = [
        sample_figure(release_path(str(out / name)), str(plan.resolution))[1]
        for name in ("generated", "real")
    ]
    facet = Facet(
        "trial",
        found.dataset,
        (
            Section("trial-images", "Generated and real images", samples=tuple(figures)),
            study_section(report, 0),
        ),
    )
    commands = tuple(
        ShownCommand(step.title, step.runnable, f"{log.total(step):,.0f} s") for step in steps
    )
    told = facts(found, report, plan.asked.crop)
    shown = ShownTrial(found.dataset, answer.sentences, told, path_line(), commands)
    path = out / "index.html"
    write_atomically(path, render_html([facet], "trial.html", trial=shown).encode())
    return path


def facts(found: Found, report: StudyReport, crop: CropRule | None = None) -> str:
    """What the images are, how many of them were trained on where it was not all, and how they were
    made square where it was asked for."""
    size = report.rows[0].size
    told = [f"{found}.", *([] if size == "all" else [f"Of each class {size} were trained on."])]
    return " ".join([*told, *([] if crop is None else [SQUARES[crop]])])
