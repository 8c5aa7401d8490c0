"""The leaderboard's content: one facet a data set, each with its tables, views and samples."""

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from cards.board.agreement import agreements
from cards.board.answer import PRINTED, answer, answering_first
from cards.board.finetuning import finetuning_section
from cards.board.measurements import (
    evaluation_measurements,
    ranking_facts,
    score_measurements,
    training_measurements,
)
from cards.board.published import DATASET, published_tables
from cards.board.report_measurements import (
    finetuning_measurements,
    published_measurements,
    selection_measurements,
    study_measurements,
)
from cards.board.selection import selection_section
from cards.board.studies import study_section
from cards.board.views import class_views, distance_views, published_views
from cards.drawing.sample_grid import read_samples, row_png
from cards.drawing.side_by_side import one_of_each
from cards.measured.evaluation_tables import evaluation_table
from cards.measured.rankings import (
    Ranking,
    Scored,
    Training,
    classifier_rankings,
    evaluation_rankings,
    score_rankings,
)
from cards.measured.release_facts import Facts, release_facts
from cards.measured.result_folder import ResultFolder
from cards.measured.tables import scores_table, training_table
from cards.pages.board_data import Measurement
from cards.pages.facet import Facet, SampleFigure, Section
from metrics.evaluations import EVALUATIONS
from release.files.storage import ReleasePath

TITLES = {DATASET: "ImageNet-1k", "fashion-mnist": "Fashion-MNIST", "digits": "Digits"}
STRIP = 10  # images of a class side by side; wide as ten if fewer: the page stretches a strip
BESIDE = 20  # images of a release in a row beside others


def assemble_board(
    results: ResultFolder, releases: Sequence[ReleasePath], *, published: bool = False
) -> tuple[Facet, ...]:
    """Facets of what was measured, by name, those that classifiers were trained for first;
    ImageNet-1k's, with the published figures, last.

    It is there if something was measured on ImageNet-1k, if nothing was at all, or if `published`.
    """
    facts = release_facts(releases, results.manifests)
    figures = _figures(releases)
    known = results.datasets | set(figures)
    trained = {r.result.dataset for r in results.measurements if r.result.kind == "classifier"}
    trained |= {study.dataset for study in results.studies}
    datasets = sorted(known - {DATASET}, key=lambda name: (name not in trained, name))
    if published or DATASET in known or not known:
        datasets.append(DATASET)
    return tuple(_facet(name, results, facts, figures.get(name, [])) for name in datasets)


def _facet(
    name: str, results: ResultFolder, facts: Facts, figures: Sequence[SampleFigure]
) -> Facet:
    own = [r for r in results.measurements if r.result.dataset == name]
    trainings, scores = answering_first(classifier_rankings(own)), score_rankings(own)
    every = {kind: evaluation_rankings(own, kind) for kind in EVALUATIONS}
    evaluated = {kind: found for kind, found in every.items() if found}
    published = name == DATASET
    sections = [
        *_measured_sections(name, trainings, scores, facts),
        *(
            Section(
                f"{name}-{kind}",
                EVALUATIONS[kind].title,
                tables=(evaluation_table(name, EVALUATIONS[kind], found),),
            )
            for kind, found in evaluated.items()
        ),
        *_report_sections(name, results),
        *([_published_section()] if published else []),
        *_sample_sections(name, figures),
    ]
    title = TITLES.get(name, name)
    studies = [r for r in results.studies if r.dataset == name]
    elsewhere = any(r.dataset == name for r in results.selections)
    elsewhere |= any(r.dataset == name for r in results.finetunings)
    said = answer(title, trainings, studies, elsewhere=elsewhere)
    return Facet(
        name,
        title,
        _told_apart(section for section in sections if section.tables or section.samples),
        answer=PRINTED if published and name not in results.datasets else said,
        measurements=(
            *training_measurements(trainings, facts, results.folder),
            *score_measurements(scores, facts, results.folder),
            *(
                row
                for kind, found in evaluated.items()
                for row in evaluation_measurements(EVALUATIONS[kind], found, results.folder)
            ),
            *_report_measurements(name, results),
            *(published_measurements() if published else ()),
        ),
        rankings=tuple(ranking_facts([*trainings, *scores, *chain(*evaluated.values())])),
    )


def _measured_sections(
    dataset: str,
    trainings: Sequence[Ranking[Training]],
    scores: Sequence[Ranking[Scored]],
    facts: Facts,
) -> list[Section]:
    found = agreements(trainings, scores)
    told = tuple(f"{a.settings}. {a.correlation}" for a in found if a.correlation)
    table = training_table(dataset, trainings, scores, facts) if trainings else None
    ranked = Section(
        f"{dataset}-training",
        "Which training set is worth most",
        tables=(replace(table, footnotes=(*table.footnotes, *told)),) if table else (),
        views=tuple(distance_views(dataset, found)),
        class_views=tuple(class_views(trainings)),
    )
    distances = Section(
        f"{dataset}-distance",
        "Distance to the real images",
        tables=(scores_table(dataset, scores, facts),) if scores else (),
    )
    return [ranked, distances]


def _told_apart(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Sections of one title, such as two sweeps of one stage, are numbered."""
    kept = list(sections)
    counts = Counter(section.title for section in kept)
    seen: Counter[str] = Counter()
    for place, section in enumerate(kept):
        if counts[section.title] > 1:
            seen[section.title] += 1
            number = f"{seen[section.title]} of {counts[section.title]}"
            kept[place] = replace(section, title=f"{section.title} ({number})")
    return tuple(kept)


def _report_measurements(dataset: str, results: ResultFolder) -> list[Measurement]:
    folder = results.folder
    rows = [row for r in results.studies for row in study_measurements(r, folder)]
    rows += [row for r in results.selections for row in selection_measurements(r, folder)]
    rows += [row for r in results.finetunings for row in finetuning_measurements(r, folder)]
    return [row for row in rows if row.dataset == dataset]


def _report_sections(dataset: str, results: ResultFolder) -> list[Section]:
    return [
        *(study_section(r, i) for i, r in enumerate(results.studies) if r.dataset == dataset),
        *(
            selection_section(r, i)
            for i, r in enumerate(results.selections)
            if r.dataset == dataset
        ),
        *(
            finetuning_section(r, i)
            for i, r in enumerate(results.finetunings)
            if r.dataset == dataset
        ),
    ]


def _published_section() -> Section:
    return Section(
        "published",
        "What the paper prints",
        tables=published_tables(),
        views=tuple(published_views()),
    )


def _sample_sections(dataset: str, figures: Sequence[SampleFigure]) -> list[Section]:
    if not figures:
        return []
    return [Section(f"{dataset}-samples", "Images", samples=tuple(figures))]


def _figures(releases: Sequence[ReleasePath]) -> dict[str, list[SampleFigure]]:
    """By data set: releases side by side where there are several, then each with its classes."""
    figures: dict[str, list[SampleFigure]] = {}
    shown: dict[str, list[ReleasePath]] = {}
    for release in releases:
        dataset, figure = sample_figure(release)
        figures.setdefault(dataset, []).append(figure)
        shown.setdefault(dataset, []).append(release)
    for dataset, several in shown.items():
        if len(several) > 1:
            figures[dataset].insert(0, _side_by_side(several))
    return figures


def _side_by_side(releases: Sequence[ReleasePath]) -> SampleFigure:
    rows = [one_of_each(release, BESIDE) for release in releases]
    return SampleFigure(
        title="Releases side by side",
        caption="The first image of each class, then the second of each, not chosen by eye.",
        side=max(image.shape[0] for _, _, images in rows for image in images),
        rows=tuple((name, _data_uri(row_png(images, BESIDE))) for name, _, images in rows),
    )


def sample_figure(release: ReleasePath, config: str | None = None) -> tuple[str, SampleFigure]:
    """Data set of the release, and its first images of each class, by default the largest."""
    samples = read_samples(release, config, per_class=STRIP)
    rows = [(c.name, row) for c, row in zip(samples.classes, samples.images, strict=True) if row]
    figure = SampleFigure(
        title=f"{samples.release} at {samples.config} px",
        caption=samples.caption,
        side=max(image.shape[0] for _, row in rows for image in row),
        rows=tuple((name, _data_uri(row_png(row, STRIP))) for name, row in rows),
    )
    return samples.dataset, figure


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
