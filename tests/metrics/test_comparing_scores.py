"""What `compare-scores` says of a difference: towards what, whether better, whether by chance."""

import json
from pathlib import Path

import pytest

from metrics.compare_scores import compare_scores
from metrics.scoring.comparability import require_comparable
from release.errors import UserError
from release.results.result import Result


def result(path: Path, value: float, half: float | None, kind: str = "scores") -> Path:
    """With one value of a name that is known, and one whose direction the result states."""
    interval = {} if half is None else {"interval": [value - half, value + half]}
    entry = {"value": value, "n": 100, "reference_n": 100, **interval}
    values = {"fd_test": entry, "mine": {**entry, "better": "higher"}, "odd": entry}
    Result(kind, "shapes", {"name": path.stem}, {}, {}, values).write(path)
    return path


@pytest.mark.parametrize(
    ("second", "half", "fd", "mine"),
    [
        (18.0, 0.5, "lower by 2, which is better; statistically significant.", "worse; stat"),
        (21.0, 5.0, "higher by 1, which is worse; not statistically significant", "better; not"),
        (21.0, None, "higher by 1, which is worse; no interval says", "better; no interval"),
        (20.0, 1.0, "the same in both.", "the same in both."),
    ],
)
def test_a_difference_has_a_direction_and_a_verdict(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    second: float,
    half: float | None,
    fd: str,
    mine: str,
):
    paths = [result(tmp_path / "a.json", 20.0, half), result(tmp_path / "b.json", second, half)]
    compare_scores(*paths)
    lines = {line.partition(": ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert fd in lines["fd_test"]
    assert mine in lines["mine"]
    assert "better" not in lines["odd"]
    assert "worse" not in lines["odd"]
    compare_scores(*paths, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [rows[key]["better"] for key in ("fd_test", "mine", "odd")] == ["lower", "higher", None]


def test_results_of_an_open_kind_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [result(tmp_path / f"{n}.json", n, 0.1, "representation") for n in (1, 2)]
    compare_scores(*paths)
    assert "mine: the second is higher by 1, which is better" in capsys.readouterr().out


def test_what_cannot_be_compared_of_evaluations_is_told_by_their_systems() -> None:
    one = evaluation("first", {"k": 20})
    other = evaluation("second", {"k": 10})
    with pytest.raises(UserError, match="knn of first and second cannot be compared"):
        require_comparable([one, other], "knn")


def test_ratios_to_other_held_out_images_are_not_compared() -> None:
    one, other = (
        Result(
            kind="scores",
            dataset="shapes",
            subject={"name": "r"},
            protocol={},
            reference={},
            values={"fdr_test": {"value": 1.0, "n": 9, "held_out_sha256": held}},
            seeds={},
            environment={},
        )
        for held in ("a", "b")
    )
    with pytest.raises(UserError, match="held-out images a against b"):
        require_comparable([one, other], "fdr_test")


def evaluation(system: str, settings: dict[str, int]) -> Result:
    """Of features, without what these tests do not read."""
    return Result(
        kind="representation",
        dataset="shapes",
        subject={"system": system, "network": {}},
        protocol={},
        reference={},
        values={"knn": {"value": 0.5, "n": 9, "settings": settings}},
        seeds={},
        environment={},
    )
