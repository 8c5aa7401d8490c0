"""The measured board of results/fashion-mnist/systems: its tables follow from its predictions."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from release.results.result import read_result
from release.results.statistics import rank_interval
from tests.cards.test_committed_results import of_three, top1
from tests.conftest import ROOT

SYSTEMS = ROOT / "results/fashion-mnist/systems"
MEASURED = sorted(file.parent.name for file in SYSTEMS.glob("*/measured.json"))
ARMS = {  # of a system's predictions, and of those of real images alone beside them
    "cas": "real-1000-a-class",
    "real-1000-and-generated": "real-1000",
    "real-60000-and-generated": "real-60000",
}
REFERENCE_STEP = 0.73  # seconds, as docs/generators.md says
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS += ["eleven", "twelve", "thirteen", "all"]
TABLE, _, COSTS = (SYSTEMS / "systems.md").read_text(encoding="utf-8").rpartition("\n\n")


def shares(system: str, arm: str) -> np.ndarray:
    """Accuracy in % of each classifier seed, of its predictions."""
    folder = f"systems/{system}"
    return 100 * np.array([top1(f"{folder}/{arm}-seed{seed}.parquet") for seed in range(3)])


def row(table: str, title: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def shown(value: float, places: int = 2, sign: str = "+") -> str:
    """As documents write it."""
    return f"{value:{sign}.{places}f}".replace("-", "\N{MINUS SIGN}")


def mean(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


def step_seconds(training: dict[str, Any]) -> float:
    """Of processor time; the first systems' were measured by themselves, the later ones' beside the
    reference."""
    if "cost" not in training:
        return float(training["seconds_a_step"])
    return float(training["cost"]["ratio"]) * REFERENCE_STEP


def test_real_images_alone_are_what_the_predictions_give() -> None:
    cas, *others = (mean(shares("real-alone", arm)) for arm in ARMS.values())
    assert row(TABLE, "real images alone")[5:] == [cas, "1", *others]


@pytest.mark.parametrize("system", MEASURED)
def test_a_systems_row_is_what_its_predictions_give(system: str) -> None:
    facts = json.loads((SYSTEMS / system / "measured.json").read_text())
    found = [shares(system, arm) for arm in ARMS]
    value, low, high = of_three(found[0] / shares("real-alone", ARMS["cas"]))
    _, distance, further, precision, recall, *cells = row(TABLE, facts["title"])
    over = f"{value:.3f} ({low:.3f} to {high:.3f})"
    assert cells == [mean(found[0]), over, *map(mean, found[1:])]
    (file,) = (SYSTEMS / system).glob("*-train-*.json")
    values = read_result(file).values
    for said, name in ((distance, "fd_train"), (further, "fd_infinity_train")):
        low, high = values[name]["interval"]
        assert said == f"{values[name]['value']:,.0f} ({low:,.0f} to {high:,.0f})"
    for said, name in ((precision, "precision_train"), (recall, "recall_train")):
        assert said == f"{values[name]['value']:.2f}"


@pytest.mark.parametrize("system", MEASURED)
def test_a_systems_classifiers_learned_from_its_own_release(system: str) -> None:
    """And all make as many updates as the classifiers of real images alone beside them."""
    (file,) = (SYSTEMS / system).glob("*-train-*.json")
    scored = read_result(file).subject
    for arm, alone in ARMS.items():
        for seed in range(3):
            made, real = (
                read_result(SYSTEMS / f"{folder}/{name}-seed{seed}.json")
                for folder, name in ((system, arm), ("real-alone", alone))
            )
            *_, generated = made.subject["train"]
            assert generated["content_sha256"] == scored["content_sha256"]
            assert made.values["steps"] == real.values["steps"]
            assert (made.protocol, made.reference) == (real.protocol, real.reference)


@pytest.mark.parametrize("system", MEASURED)
def test_a_system_was_trained_for_the_budget(system: str) -> None:
    facts = json.loads((SYSTEMS / system / "measured.json").read_text())
    trainings = facts["trainings"]
    assert sum(training["seconds"] for training in trainings) == 2400
    for training in trainings:
        step = step_seconds(training)
        assert training["steps"] * step == pytest.approx(training["seconds"], abs=step)
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in facts["weights_sha256"].values())
    steps = " + ".join(f"{training['steps']:,}" for training in trainings)
    assert row(COSTS, facts["title"])[2] == steps


def test_no_result_names_a_place_of_the_machine_that_made_it() -> None:
    """But for the bad inputs, which are made up."""
    found = (ROOT / "results").rglob("*.*")
    files = [f for f in found if f.suffix in (".json", ".md", ".toml")]
    files = [f for f in files if "bad-inputs" not in f.parts]
    assert len(files) > 300
    absolute = re.compile(r'"/(?:[^"/\s]+/){2,}')
    assert [str(f) for f in files if absolute.search(f.read_text(encoding="utf-8"))] == []


def test_the_document_says_what_they_cost_beside_real_images() -> None:
    beside = [arm for arm in ARMS if arm != "cas"]
    gains = [
        of_three(shares(system, arm) - shares("real-alone", ARMS[arm]))
        for system in MEASURED
        for arm in beside
    ]
    values = [value for value, _, _ in gains]
    lost = sum(high < 0 for _, _, high in gains)
    assert not any(low > 0 for _, low, _ in gains)
    text = " ".join((ROOT / "docs/generators.md").read_text(encoding="utf-8").split())
    assert f"change accuracy by {shown(min(values), 1)} to {shown(max(values), 1)} points" in text
    assert f"seeds in {lost} of the {len(gains)} cases, a gain in none" in text


def test_the_document_has_the_table() -> None:
    text = (ROOT / "docs/generators.md").read_text(encoding="utf-8")
    _, _, table = TABLE.partition("\n\n")
    assert table.strip() in text
    assert f"Measured so far, {NUMBERS[len(MEASURED)]} of the fourteen" in text
    scores = {
        name: (read_result(next((SYSTEMS / name).glob("*-train-*.json"))), shares(name, "cas"))
        for name in MEASURED
    }
    distances = [result.values["fd_train"]["value"] for result, _ in scores.values()]
    rho = float(spearmanr(distances, [cas.mean() for _, cas in scores.values()]).statistic)
    low, high = rank_interval(rho, len(scores)) or (math.nan, math.nan)
    said = (
        f"{shown(rho)} ({shown(low)} to {shown(high, sign='')}) over these {NUMBERS[len(scores)]}"
    )
    assert f"The rank correlation of distance and CAS is {said}" in " ".join(text.split())


def test_the_readme_says_what_the_best_and_the_worst_are_worth() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = (text for text in readme.splitlines() if "generators.md#the-measured-board" in text)
    alone = shares("real-alone", ARMS["cas"])
    found = sorted((of_three(shares(system, "cas") / alone), system) for system in MEASURED)
    for (value, low, high), system in (found[0], found[-1]):
        title = json.loads((SYSTEMS / system / "measured.json").read_text())["title"]
        assert f"{title} {value:.3f}" in line
        assert f"{low:.3f} to {high:.3f}" in line
    assert f"| {NUMBERS[len(MEASURED)].capitalize()} of fourteen so far" in line
