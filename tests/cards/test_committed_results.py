"""The figures committed under results/ are what their predictions and result files say."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cards.measured.report_schema import FinetuningReport, report_model
from classifiers.study.report_model import StudyReport
from classifiers.training.result_values import ClassifierValues
from metrics.scoring.result_values import ScoredValue
from metrics.selection.report_model import SelectionReport
from release.results.result import read_result

ROOT = Path(__file__).parents[2]
FASHION = ROOT / "results" / "fashion-mnist"


def guesses(predictions: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the test images, and the first guess of each; int[N] both."""
    table = pq.read_table(FASHION / predictions)
    return table["label"].to_numpy(), np.array([five[0] for five in table["top5"].to_pylist()])


def top1(predictions: str) -> float:
    """Share of test images whose first guess is their label."""
    labels, first = guesses(predictions)
    return float(np.mean(first == labels))


def of_three(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of three seeds' values, and its interval by Student's t of two degrees of freedom."""
    half = 4.302652729749464 * np.std(values, ddof=1) / np.sqrt(3)
    return np.mean(values), np.mean(values) - half, np.mean(values) + half


NOW = "embedded-cascade-now"  # folder of its results; the first one's lie beside it
CASCADES = {".": ("| the first |", 0.95), NOW: ("| that of [now](", 0.969)}  # row, least CAS


@pytest.mark.parametrize("folder", CASCADES)
def test_cas_is_what_the_predictions_give(folder: str) -> None:
    cas = json.loads((FASHION / folder / "cas.json").read_text())
    files = cas["predictions"]
    share = {arm: [top1(f"{folder}/{name}") for name in files[arm]] for arm in ("cas", "real")}
    assert len(share["cas"]) == len(share["real"]) == len(cas["seeds"]) == 3
    ratios = np.divide(share["cas"], share["real"])
    assert cas["cas_over_real"] == pytest.approx(
        np.mean(share["cas"]) / np.mean(share["real"]), abs=1e-12
    )
    assert cas["interval_over_seeds"] == pytest.approx(of_three(ratios)[1:])
    real_top1 = np.mean([top1(f"{folder}/{name}") for name in files["real_top1"]])
    assert cas["real_top1"] == pytest.approx(real_top1, abs=1e-12)
    assert cas["cas_over_real"] >= CASCADES[folder][1]
    assert cas["real_top1"] >= 0.92


@pytest.mark.parametrize("folder", CASCADES)
def test_cas_is_of_the_embedded_cascade_that_the_documents_name(folder: str) -> None:
    """Whose hashes they give beside its figures."""
    cas = json.loads((FASHION / folder / "cas.json").read_text())
    assert cas["generated"]["images"] == cas["n"] == 60_000
    document = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    (row,) = (line for line in document.splitlines() if line.startswith(CASCADES[folder][0]))
    for stage in cas["stages"]:
        assert f"`{stage['checkpoint_sha256'][:12]}`" in row
    for name in cas["predictions"]["cas"]:
        result = read_result((FASHION / folder / name).with_suffix(".json"))
        assert result.subject["train"] == [cas["generated"]]


def test_the_documents_say_what_accepted_images_are_worth() -> None:
    accepted = json.loads((FASHION / NOW / "accepted.json").read_text())
    files = accepted["predictions"]
    share = {arm: [top1(f"{NOW}/{name}") for name in files[arm]] for arm in ("cas", "real")}
    value, low, high = of_three(np.divide(share["cas"], share["real"]))
    assert accepted["cas_over_real"] == pytest.approx(
        np.mean(share["cas"]) / np.mean(share["real"]), abs=1e-12
    )
    assert accepted["interval_over_seeds"] == pytest.approx((low, high))
    assert 0.97 <= accepted["cas_over_real"] == pytest.approx(value, abs=1e-3)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    mean, std = 100 * np.mean(share["cas"]), 100 * np.std(share["cas"], ddof=1)
    assert f"rejects {mean:.1f}%, so {value:.3f} |" in readme
    assert f"; {low:.3f} to {high:.3f} |" in readme
    text = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    (kept,) = {
        read_result((FASHION / NOW / name).with_suffix(".json")).subject["train"][0]["images"]
        for name in files["cas"]
    }
    assert f"| {kept:,} | {mean:.2f} ± {std:.2f} | 3 |" in text
    assert f"{value:.3f} ({low:.3f} to {high:.3f}), which is" in text
    for plain, chosen, said in (
        ("cas-60000", "cas-accepted-60000", "points of accuracy more"),
        ("tuning-10000", "tuning-accepted-10000", "points more"),
    ):
        pairs = [
            [top1(f"{NOW}/{arm}-seed{s}.parquet") for s in range(3)] for arm in (plain, chosen)
        ]
        gain, least, most = of_three(100 * np.subtract(pairs[1], pairs[0]))
        words = " ".join(text.split())
        assert f"{gain:.1f} {said} (\N{MINUS SIGN}{-least:.1f} to {most:.1f})" in words
    assert f"updates, {100 * top1(f'{NOW}/judge.parquet'):.1f}% on the tuning" in text


def test_the_documents_say_what_its_images_are_worth() -> None:
    cas = json.loads((FASHION / NOW / "cas.json").read_text())
    low, high = cas["interval_over_seeds"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"so {cas['cas_over_real']:.3f} of it" in readme
    assert f"{100 * cas['cas']['mean']:.1f}% accuracy" in readme
    assert f"| {low:.3f} to {high:.3f}; " in readme
    text = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    assert f"{cas['cas_over_real']:.3f} ({low:.3f} to {high:.3f}" in text
    for arm in ("cas", "real"):
        mean, std = 100 * cas[arm]["mean"], 100 * cas[arm]["std"]
        assert f"| 60,000 | {mean:.2f} ± {std:.2f} | 3 |" in text
    pairs = {
        arm: [guesses(f"{NOW}/{name}") for name in cas["predictions"][arm]]
        for arm in ("cas", "real")
    }
    shirt, t_shirt = 6, 0
    said = {arm: np.mean([np.mean(first == shirt) for _, first in pairs[arm]]) for arm in pairs}
    assert f"({said['cas']:.1%} of the test images, {said['real']:.1%} of\n" in text
    right = {
        arm: np.mean([np.mean(first[labels == t_shirt] == t_shirt) for labels, first in pairs[arm]])
        for arm in pairs
    }
    assert f"T-shirts lose most, {100 * (right['real'] - right['cas']):.1f} points" in text


def test_the_embedded_cascade_lies_where_the_documents_say() -> None:
    """Its distance to train, extrapolated from 20,000 images."""
    (file,) = (FASHION / NOW).glob("*-train-*.json")
    result = read_result(file)
    distance = result.values["fd_infinity_train"]
    assert (result.subject["images"], distance["n"]) == (20_000, 20_000)
    assert distance["value"] < 100
    low, high = distance["interval"]
    for document in ("README.md", "docs/selection.md"):
        text = (ROOT / document).read_text(encoding="utf-8").replace("*", "")
        assert f"{distance['value']:.0f} ({low:.0f} to {high:.0f})" in text


@pytest.mark.parametrize(
    ("study", "trainings"), [("study", 264), ("study-long", 30), ("study-ways", 60)]
)
def test_study_says_what_its_trainings_reached(study: str, trainings: int) -> None:
    folder = FASHION / study
    report = json.loads((folder / "report.json").read_text())
    arms = [tuple(row["results"]) for row in report["rows"]]
    shared = [row for row in report["rows"] if arms.count(tuple(row["results"])) > 1]
    assert {row["arm"] for row in shared} <= {"real"}  # of models that differ in mixing alone
    runs = [name for results in set(arms) for name in results]
    assert len(runs) == len(set(runs)) == len(list(folder.glob("runs/**/*.json"))) == trainings
    for row in report["rows"]:
        results = [read_result(folder / name) for name in row["results"]]
        reached = {str(r.seeds["classifier"]): r.values["top1"]["value"] for r in results}
        assert reached == pytest.approx(row["top1"]["by_seed"])
        assert row["top1"]["mean"] == pytest.approx(np.mean(list(reached.values())))
        assert {r.reference["split"] for r in results} == {"test"}


def test_the_documents_say_which_way_is_best() -> None:
    """Each way's accuracy, and its difference to real images alone with the interval over seeds."""
    rows = json.loads((FASHION / "study-ways/report.json").read_text())["rows"]
    text = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    told = text[text.index("### Which way is best") : text.index("## Classifiers by hand")]
    told = told.replace("*", "").replace("\N{MINUS SIGN}", "-")
    real = {row["size"]: row for row in rows if row["arm"] == "real"}  # all ways share it
    long = json.loads((FASHION / "study-long/report.json").read_text())["rows"]
    longer = {"100": next(row for row in long if (row["arm"], row["size"]) == ("real", "100"))}
    gains = {}
    for row in rows:
        size, base = row["size"], real[row["size"]]
        points = gain(row, base)
        top1 = f"{100 * row['top1']['mean']:.1f}"
        if row["arm"] == "real":
            assert f"| none: real images alone | {top1} |" in told
        elif "repeated" in row["arm"]:
            assert row["steps"] == 2 * base["steps"]
            longer[size] = row
        else:
            assert row["steps"] == base["steps"] == {"100": 1000, "500": 2000, "all": 7500}[size]
            gains[size, row["model"], row["generated"]] = points
            assert f"| {top1} | {told_as(points)} |" in told, (size, row["model"], row["arm"])
    for size, row in longer.items():
        assert told_as(gain(row, real[size])) in told
    half = next(row for row in rows if row["model"] == "half-a-batch" and row["arm"] != "real")
    assert "{:.1f} points more ({:.1f} to {:.1f})".format(*gain(half, real["100"], "top5")) in told
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\N{MINUS SIGN}", "-")
    for size in real:
        best = max((points for (of, *_), points in gains.items() if of == size), key=lambda p: p[0])
        assert "{:.1f} to {:.1f}".format(*best[1:]) in readme


def told_as(points: tuple[float, float, float]) -> str:
    """A difference in points with its interval, as the documents have it."""
    return "{:+.1f} ({:.1f} to {:.1f})".format(*points)


def gain(
    row: dict[str, Any], real: dict[str, Any], value: str = "top1"
) -> tuple[float, float, float]:
    """In points, paired by seed."""
    pair = [np.array(list(of[value]["by_seed"].values())) for of in (row, real)]
    return of_three(100 * (pair[0] - pair[1]))


def test_finetuning_says_what_its_releases_reached() -> None:
    folder = FASHION / "finetuning"
    report = json.loads((folder / "finetuning.json").read_text())
    for arm, values in report["arms"].items():
        releases = set()
        for seed in range(report["sampling_seeds"]):
            name = f"release-{arm}-seed{seed}-32-train-efficientnet-lite0-64.json"
            scores = read_result(folder / "results" / name)
            cas = read_result(folder / "results" / f"cas-{arm}-seed{seed}.json")
            (trained_on,) = cas.subject["train"]
            assert trained_on["content_sha256"] == scores.subject["content_sha256"]
            releases.add(trained_on["content_sha256"])
            for split in ("train", "test"):
                measured = scores.values[f"fd_{split}"]["value"]
                assert values[f"fd_{split}"]["by_seed"][seed] == pytest.approx(measured)
            assert values["cas_top1"]["by_seed"][seed] == cas.values["top1"]["value"]
        assert len(releases) == report["training_seeds"] == 3
    gain = report["differences"]["fine-tuned less stand-in"]["cas_top1"]
    pairs = [report["arms"][arm]["cas_top1"]["by_seed"] for arm in ("fine-tuned", "stand-in")]
    assert gain["by_seed"] == pytest.approx(np.subtract(*pairs))


REPORTS = [
    path
    for name in ("report.json", "result.json", "finetuning.json")
    for path in sorted(FASHION.rglob(name))
]


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.parent.name)
def test_reports_are_what_would_be_written_and_their_kind_is_known(path: Path) -> None:
    """Also of those that were written before they said it: the rest of them stays as it was."""
    content = json.loads(path.read_text())
    model = report_model(content)
    assert model is not None
    kind = content.get("kind") or {StudyReport: "study", FinetuningReport: "finetuning"}[model]
    with_kind = {"kind": kind, **content}
    assert report_model(with_kind) is model
    report = model.model_validate(with_kind)
    assert report.kind == kind
    if model is not FinetuningReport:  # which holds more than the page shows: a benchmark writes it
        written = {k: v for k, v in report.content().items() if k in content}
        assert report.content().keys() == with_kind.keys()
        text = json.dumps(written, indent=1, sort_keys=model is SelectionReport)
        assert text + "\n" == path.read_text()


def test_values_of_results_are_what_would_be_written() -> None:
    """By the models beside train-classifier and score-release, which the leaderboard reads by."""
    kinds: Counter[str] = Counter()
    for path in FASHION.rglob("*.json"):
        result = json.loads(path.read_text())
        if "protocol_sha256" not in result or result.get("kind") not in ("classifier", "scores"):
            continue
        kinds[result["kind"]] += 1
        values = result["values"]
        if result["kind"] == "classifier":
            written = ClassifierValues.model_validate(values).content()
        else:
            written = {n: ScoredValue.model_validate(v).content() for n, v in values.items()}
        assert json.dumps(written, sort_keys=True) == json.dumps(values, sort_keys=True), path
    assert kinds["classifier"] > 300
    assert kinds["scores"] > 10


def test_other_documents_are_no_reports() -> None:
    state = {"kind": "sampler-selection", "per_class": 1}  # build.json of a selection
    for content in (state, {"kind": "scores"}, {"study": {}, "rows": []}, [], None, "text"):
        assert report_model(content) is None
    assert report_model({"kind": "other", "study": {}, "rows": [], "findings": []}) is None
