"""The transfer study: arms fine-tuned and probed, compared with real images seed by seed."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from metrics.evaluate_representation import evaluate_representation
from release.results.result import read_result
from release.results.statistics import student_interval
from tests.conftest import ROOT
from tests.sets.colours import CLASSES, colour_images, relabelled, untrained, write_colours

OWN = relabelled(CLASSES[::8])
SEEDS = (0, 1)
STUDY = runpy.run_path(str(ROOT / "benchmarks/studies/transfer_summary.py"))
ARMS, summary, markdown = (STUDY[name] for name in ("ARMS", "summary", "markdown"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two seeds of each arm, as transfer.sh names and evaluates them."""
    place = tmp_path_factory.mktemp("transfer")
    splits = {s: colour_images(n, n, OWN, noise=200) for s, n in (("train", 10), ("test", 8))}
    write_colours(place / "hues-real", splits, OWN, dataset="hues")
    (place / "runs").mkdir()
    for number, arm in enumerate(ARMS):
        for seed in SEEDS:
            untrained(place / "runs" / f"labels-{arm}-seed{seed}.safetensors", 10 * number + seed)
    evaluate_representation(
        [str(place / "runs")],
        [f"{place}/hues-real:8"],
        out=place / "results",
        cache=place / "cache",
        workers=1,
        evaluations="knn,fine_tuning",
        tuning_steps=3,
        tuning_rates="0.05",
    )
    return place / "results"


@pytest.mark.parametrize("value", ["knn", "fine_tuning"])
def test_arms_are_compared_with_real_images_within_each_seed(results: Path, value: str) -> None:
    (table,) = summary(results)
    assert (table["set"], table["objective"], table["n"]) == ("hues-8", "labels", 24)
    top1 = {
        (arm, seed): read_result(results / f"labels-{arm}-seed{seed}-on-hues-8.json").values[value]
        for arm in ARMS
        for seed in SEEDS
    }
    found = table["values"][value]
    for arm in ARMS:
        gains = [top1[arm, seed]["value"] - top1["real", seed]["value"] for seed in SEEDS]
        assert found[arm]["less_real"] == pytest.approx(np.mean(gains))
        expected = student_interval(np.array(gains))
        assert found[arm]["less_real_interval"] == pytest.approx(expected)
    assert len({own["value"] for own in top1.values()}) > 1


def test_fine_tuning_stands_beside_the_frozen_evaluations(results: Path) -> None:
    rows = markdown(summary(results)).splitlines()
    assert [row.split(" | ")[0] for row in rows if row.startswith(("| k", "| F"))] == [
        "| k-NN",
        "| Fine-tuned",
    ]
