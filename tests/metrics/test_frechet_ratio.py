"""FDr: distances over that of held-out real images, in several feature spaces."""

from pathlib import Path

import numpy as np
import pytest
from scipy import linalg

from cards.board.board import assemble_board
from cards.measured.result_folder import read_folder
from metrics.score_release import score_release
from metrics.states.frechet import GaussianReference, Moments
from metrics.states.frechet_ratio import Ratio, class_ratio_values, mean_ratio, ratio_values
from metrics.states.per_class import ClassState
from metrics.states.sample import Sample
from release.errors import UserError
from release.results.result import Result, read_result
from tests.sets.colours import CLASSES, MANY, colour_images, untrained, write_colours


def a_sample(n: int, shift: float, seed: int, d: int = 4, classes: int = 2) -> Sample:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(n, d)) * (1 + shift) + shift).astype(np.float32)
    keys = rng.permutation(10 * n)[:n].astype(np.uint64)
    return Sample.of(keys, features, np.arange(n) % classes, n)


def gaussian(features: np.ndarray) -> GaussianReference:
    return GaussianReference.from_moments(Moments.from_features(features))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Heusel et al. 2017, by scipy's root of a matrix."""
    a, b = a.astype(float), b.astype(float)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


def test_it_is_the_ratio_of_two_distances_of_as_many_images() -> None:
    images, held_out, train = (
        a_sample(n, s, i) for i, (n, s) in enumerate([(300, 0.4), (200, 0), (500, 0)])
    )
    value = ratio_values(images, held_out, gaussian(train.features))["fdr"]
    expected = frechet(images.features[:200], train.features) / frechet(
        held_out.features, train.features
    )
    assert value["value"] == pytest.approx(expected, rel=1e-6)
    assert (value["n"], value["images_per_dimension"]) == (200, 50)
    counts = np.bincount(images.labels[:200])
    assert value["labels"]["images"] == {"classes": 2, "least": counts.min(), "most": counts.max()}
    assert value["interval"][0] < value["value"] < value["interval"][1]


def test_several_spaces_are_their_mean_with_buckets_left_out_of_all_at_once() -> None:
    spaces = []
    for seed in (0, 10):
        images, held_out = a_sample(200, 0.3, 1, d=4), a_sample(200, 0, 2, d=4)
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0] * (1 + seed)
        turned = [Sample(s.keys, s.features @ turn, s.labels, s.most) for s in (images, held_out)]
        spaces.append(Ratio.of(*turned, gaussian(a_sample(500, 0, 3).features @ turn)))
    alone, both = mean_ratio(spaces[:1]), mean_ratio(spaces)
    # turned and scaled it is the same space: so are its buckets, and the mean is no surer
    assert both["value"] == pytest.approx(alone["value"], rel=1e-5)
    assert both["interval"] == pytest.approx(alone["interval"], rel=1e-4)
    kept = [Ratio.read(space.content()) for space in spaces]
    assert mean_ratio(kept) == both


def test_the_interval_holds_the_ratio_of_many_images() -> None:
    """The spread of the ratio over fresh draws of both sides is what its interval says."""
    train = gaussian(a_sample(20_000, 0, 99).features)
    found = [
        ratio_values(a_sample(400, 0.5, 2 * i), a_sample(400, 0.2, 2 * i + 1), train)["fdr"]
        for i in range(60)
    ]
    centre = np.mean([value["value"] for value in found])
    held = np.mean([v["interval"][0] <= centre <= v["interval"][1] for v in found])
    assert 0.85 <= held <= 1


def test_classes_with_too_few_images_are_counted_not_measured() -> None:
    images, held_out, train = (
        a_sample(n, s, i) for i, (n, s) in enumerate([(90, 0.4), (80, 0), (200, 0)])
    )
    few = (held_out.labels == 0) | (np.arange(80) < 20)  # of class 1 under 5 a dimension
    held_out = Sample(held_out.keys[few], held_out.features[few], held_out.labels[few], 80)
    state = ClassState.of(train.features, train.keys, train.labels, np.bincount(train.labels))
    value = class_ratio_values(images, held_out, state.total)["class_fdr"]
    (row,) = value["per_class"]
    assert (row["label"], value["classes"], value["refused"]) == (0, 1, 1)
    own = gaussian(train.features[train.labels == 0])
    n = min((images.labels == 0).sum(), (held_out.labels == 0).sum())
    distances = [
        own.distance(Moments.from_features(s.features[s.labels == 0][:n]))
        for s in (images, held_out)
    ]
    assert row["value"] == pytest.approx(distances[0] / distances[1])


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A release and its own real test split, scored in two feature spaces."""
    place = tmp_path_factory.mktemp("fdr")
    write_colours(place / "real", {"train": colour_images(8, 1), "test": colour_images(4, 2)})
    write_colours(place / "made", {"train": colour_images(4, 3, noise=60)}, kind="synthetic")
    names = [f"classifier@{untrained(place / f'{seed}.safetensors', seed)}" for seed in (0, 1)]
    score_release(
        [f"{place}/made:8", f"{place}/real:8:test"],
        f"{place}/real",
        out=place / "results",
        extractor=names,
        metrics="fdr",
        cache=place / "cache",
        workers=1,
    )
    return place


def means(results: Path) -> list[Result]:
    return [read_result(path) for path in (results / "results").glob("*-fdr-2-spaces-*.json")]


def test_a_command_with_several_extractors_writes_their_mean(results) -> None:
    (mean,) = means(results)  # of the test split itself there is none
    each = [read_result(p) for p in (results / "results").glob("made-8-train-classifier*.json")]
    values = [result.values["fdr_test"]["value"] for result in each]
    value = mean.values["fdr_test"]
    assert value["value"] == pytest.approx(np.mean(values))
    assert value["value"] > 1
    assert sorted(space["value"] for space in value["by_space"]) == sorted(values)
    assert value["labels"]["images"] == {"classes": MANY, "least": 4, "most": 4}
    assert value["settings"]["spaces"] == len(mean.protocol["features"]["spaces"]) == 2
    assert (value["n"], value["reference_n"]) == (4 * len(CLASSES), 8 * len(CLASSES))


def test_the_leaderboard_shows_it(results) -> None:
    facet = next(
        f for f in assemble_board(read_folder(results / "results"), []) if f.key == "colours"
    )
    headings = {c.heading for table in facet.tables for c in table.columns}
    assert "FDr over test ↓" in headings
    groups = [group for table in facet.tables for group in table.groups]
    (mean,) = [group for group in groups if " + " in group.title]
    assert "[" in mean.rows[0].cell("fdr_test").text


def test_a_release_without_held_out_images_is_refused_at_once(tmp_path, monkeypatch) -> None:
    write_colours(tmp_path / "real", {"train": colour_images(2, 1)})
    monkeypatch.setattr("metrics.score_release.load_extractor", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match="--real has train"):
        score_release(
            [f"{tmp_path}/real:8"],
            f"{tmp_path}/real",
            metrics="fdr",
            out=tmp_path / "r",
            cache=tmp_path / "c",
        )


@pytest.fixture(scope="module")
def real_sets(tmp_path_factory) -> Path:
    """A real release of three splits; shifted images of its classes in a release of their own."""
    place = tmp_path_factory.mktemp("real-fdr")
    splits = {"train": (8, 1, 20), "test": (4, 2, 20), "validation": (4, 3, 20)}
    write_colours(
        place / "real", {s: colour_images(n, seed, noise=e) for s, (n, seed, e) in splits.items()}
    )
    shifted = {"test": colour_images(4, 4, noise=80)}
    write_colours(place / "shifted", shifted, dataset="colours-v2")
    untrained(place / "net.safetensors")
    return place


def scored(place: Path, *names: str, metrics: str = "fdr") -> list[Result]:
    out = place / f"results-{'-'.join(names)}-{metrics}".replace(":", "-")
    score_release(
        [f"{place}/{name}" for name in names],
        f"{place}/real",
        out=out,
        extractor=[f"classifier@{place}/net.safetensors"],
        metrics=metrics,
        cache=place / "cache",
        workers=1,
    )
    return [read_result(path) for path in sorted(out.glob("*.json"))]


def test_real_images_imported_by_themselves_are_measured(real_sets) -> None:
    """Of the same classes under another name, over the held-out split's own distance."""
    (result,) = scored(real_sets, "shifted:8:test", metrics="fdr,fd")
    value = result.values["fdr_test"]
    (held_out,) = scored(real_sets, "real:8:test", metrics="fd")
    expected = result.values["fd_train"]["value"] / held_out.values["fd_train"]["value"]
    assert value["value"] == pytest.approx(expected, rel=1e-6)
    assert value["value"] > 1
    assert (result.dataset, result.subject["name"]) == ("colours", "shifted")


@pytest.mark.parametrize("metrics", ["fdr", "fdr,fd"])
def test_a_held_out_split_is_measured_over_another(real_sets, metrics) -> None:
    (result,) = scored(real_sets, "real:8:test", metrics=metrics)
    (distance,) = scored(real_sets, "real:8:test", metrics="fd")
    (other,) = scored(real_sets, "real:8:validation", metrics="fd")
    expected = distance.values["fd_train"]["value"] / other.values["fd_train"]["value"]
    assert result.values["fdr_validation"]["value"] == pytest.approx(expected, rel=1e-6)
    assert "fdr_test" not in result.values


def test_a_split_that_ratios_are_taken_of_is_said_to_have_none(real_sets, capsys) -> None:
    (result,) = scored(real_sets, "real:8:train")
    assert result.values == {}
    assert "real:8:train: no fdr, as its distance to itself is 0" in capsys.readouterr().err
    write_colours(
        real_sets / "two" / "real", {"train": colour_images(2, 1), "test": colour_images(2, 2)}
    )
    untrained(real_sets / "two" / "net.safetensors")
    scored(real_sets / "two", "real:8:test")
    assert "real:8:test: no fdr, as it is the only held-out split" in capsys.readouterr().err


def test_real_images_of_other_classes_are_still_refused(real_sets) -> None:
    some = CLASSES[:5]
    write_colours(real_sets / "few", {"test": colour_images(2, 1, some)}, some, "colours-few")
    with pytest.raises(UserError, match="would compare class lists"):
        scored(real_sets, "few:8:test")
