"""Every value that score-release writes has a name and a direction where people read it."""

import inspect
import json
import re
from pathlib import Path

import pytest

from cards.measured.score_names import in_order, score_column, score_name, score_unit
from metrics.scoring import metric_list
from metrics.scoring.directions import score_direction, score_split
from metrics.scoring.metric_list import value_names
from metrics.states import agreement, copies, frechet_ratio, per_class, two_sample
from metrics.states.manifold import ManifoldScores

RESULTS = Path(__file__).parents[2] / "results"
WITHOUT_DIRECTION = {"nearest"}  # a distance to training images: neither near nor far is better


def spelled_names() -> set[str]:
    """Of every metric, as its code spells them."""
    names = {"fd", "fd_infinity", "sfid", "sfid_infinity"}  # of one function, by its name
    names |= set(ManifoldScores.__dataclass_fields__)
    for module, name in (
        (metric_list, "inception_score_values"),
        (metric_list, "kid_values"),
        (metric_list, "cmmd_values"),
        (metric_list, "vendi_values"),
        (agreement, "agreement_values"),
        (copies, "copy_values"),
        (per_class, "class_values"),
        (two_sample, "two_sample_values"),
        (frechet_ratio, "ratio_values"),
        (frechet_ratio, "class_ratio_values"),
    ):
        source = inspect.getsource(getattr(module, name))
        names |= set(re.findall(r'(?:return|=) \{\s*"(\w+)":', source))
        names |= set(re.findall(r'(?:values\[|_mean_over_classes\()"(\w+)"', source))
    return names - {"image", "images", "labels", "value"} | {
        "inception_score_splits",
        "inception_score_adm",
    }


def test_every_metric_has_a_name_a_unit_and_a_direction() -> None:
    names = spelled_names()
    assert {"agreement", "copies", "class_fd", "class_kid", "nearest", "vendi", "kid"} <= names
    known = value_names()
    assert names == set(known)
    undirected = {name for name in names if not known[name].better}
    assert undirected == WITHOUT_DIRECTION


def test_every_value_of_a_committed_result_is_known() -> None:
    keys = {
        key
        for path in RESULTS.rglob("*.json")
        if isinstance(content := json.loads(path.read_text()), dict)
        and content.get("kind") == "scores"
        for key in content["values"]
    }
    assert keys
    assert {score_split(key)[0] for key in keys} <= set(value_names())


@pytest.mark.parametrize(
    ("key", "name", "direction", "unit"),
    [
        ("fd_train", "FD to train", "lower", "number"),
        ("copies_train", "Near copies of train", "lower", "fraction"),
        ("agreement", "Label agreement", "higher", "fraction"),
        ("class_fd_test", "Class FD to test", "lower", "number"),
        ("fd_validation", "FD to validation", "lower", "number"),  # what ImageNet has
        ("inception_score_splits", "Inception-style score, mean of splits", "higher", "number"),
        ("copies_tuning", "Near copies of tuning", "lower", "fraction"),
        ("fd_reference_adm_train", "FD to reference adm_train", "lower", "number"),
        ("glow_test", "glow test", "", "number"),
        ("_train", " train", "", "number"),
    ],
)
def test_names_directions_and_units(key: str, name: str, direction: str, unit: str) -> None:
    assert (score_name(key), score_direction(key), score_unit(key)) == (name, direction, unit)


def test_what_a_result_states_of_a_direction_comes_first() -> None:
    assert score_column("glow_test", "higher").better == "higher"
    assert score_column("glow_test").heading == "glow test"


def test_unknown_values_stand_last() -> None:
    assert in_order(["glow", "kid_test", "fd_test", "fd_train"]) == [
        *("fd_train", "fd_test", "kid_test", "glow")
    ]
