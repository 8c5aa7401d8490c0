"""evaluate-robustness: sets of some classes by mask, effective robustness, corruptions, ReaL."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cards.board.board import assemble_board
from cards.measured.result_folder import read_folder
from metrics.evaluate_robustness import evaluate_robustness
from metrics.evaluation import Step, complete
from metrics.features.extractors import load_extractor
from metrics.features.image_lists import open_image_set
from metrics.features.release_features import iterate_features
from metrics.robustness.masked import Masked, class_columns, predicted
from metrics.scoring.comparability import require_comparable
from release.errors import UserError
from release.results.result import Result, read_result
from tests.sets.colours import CLASSES, colour_images, relabelled, untrained, write_colours
from tests.sets.shapes import write_release

SOME = relabelled((CLASSES[20], CLASSES[3], CLASSES[11]))  # in an order of their own


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 classes and shifted images of three of them; four classifiers."""
    place = tmp_path_factory.mktemp("robustness")
    splits = {"train": colour_images(1, 1), "test": colour_images(10, 2)}
    write_colours(place / "standard", splits)
    shifted = {"test": colour_images(20, 3, SOME, noise=60)}
    write_colours(place / "shifted", shifted, SOME, dataset="colours-r")
    for seed in range(4):
        untrained(place / f"net{seed}.safetensors", seed)
    return place


def evaluate(folder: Path, out: Path, test: str = "standard", **options) -> dict[str, Result]:
    evaluate_robustness(
        [str(folder / "net0.safetensors")],
        f"{folder}/{test}:8",
        **{"out": out, "cache": folder / "cache", "workers": 1, **options},
    )
    return {path.name: read_result(path) for path in out.glob("*.json")}


def test_a_masked_prediction_is_the_best_of_the_sets_classes():
    """By hand: the network's best class is none of the set's."""
    columns = class_columns(("a", "b", "c", "d"), ("d", "b"), "made up")
    assert columns.tolist() == [3, 1]
    logits = np.array([[9.0, 1.0, 0.0, 2.0], [0.0, 3.0, 9.0, 2.0], [1.0, 1.0, 1.0, 0.0]])
    assert predicted(logits, columns).tolist() == [0, 1, 1]
    with pytest.raises(UserError, match="does not know class 'e'"):
        class_columns(("a", "b"), ("b", "e"), "made up")
    with pytest.raises(UserError, match="no logits of known classes"):
        class_columns(None, ("b",), "made up")


def test_both_accuracies_are_counted_among_the_sets_classes(folder, tmp_path):
    results = evaluate(folder, tmp_path, shifted=[f"{folder}/shifted:8"])
    result = results["net0-robustness-on-shifted-8-test.json"]
    assert (result.kind, result.dataset, result.reference["n"]) == ("robustness", "colours-r", 60)
    extractor = load_extractor(f"classifier@{folder}/net0.safetensors", "cpu")
    columns = [20, 3, 11]
    for name, release in (("top1", "shifted"), ("standard_top1", "standard")):
        image_set = open_image_set(folder / release, "8", "test")
        (block,) = iterate_features(image_set, extractor, folder / "cache")
        truth = np.array(columns)[block.labels] if release == "shifted" else block.labels
        own = np.isin(truth, columns)
        best = np.array(columns)[block.logits[:, columns].argmax(axis=1)]
        assert result.values[name]["value"] == pytest.approx((best == truth)[own].mean())
        assert result.values[name]["n"] == own.sum()
    standard = results["net0-robustness-on-standard-8-test.json"]
    assert standard.values["top1"]["n"] == 240


def test_effective_robustness_is_shown_with_its_line(folder, tmp_path):
    line = [str(folder / f"net{seed}.safetensors") for seed in (1, 2, 3)]
    options = {"shifted": [f"{folder}/shifted:8"], "real_trained": line}
    value = evaluate(folder, tmp_path, **options)["net0-robustness-on-shifted-8-test.json"].values[
        "effective_robustness"
    ]
    assert value["interval"][0] <= value["value"] <= value["interval"][1]
    assert [own["system"] for own in value["settings"]["real_trained"]] == ["net1", "net2", "net3"]
    facets = {facet.key: facet for facet in assemble_board(read_folder(tmp_path), [])}
    headings = [column.heading for column in facets["colours-r"].tables[0].columns]
    assert "Effective robustness, % ↑" in headings


def test_corruptions_are_resumed_and_severer_is_harder(folder, tmp_path, monkeypatch):
    first = evaluate(folder, tmp_path, corruptions="gaussian_noise")
    value = first["net0-robustness-on-standard-8-test.json"].values["gaussian_noise"]
    assert value["settings"]["constants"] == [0.08, 0.12, 0.18, 0.26, 0.38]
    assert len(value["by_severity"]) == 5
    assert value["value"] == pytest.approx(np.mean(list(value["by_severity"].values())))
    asked = []
    monkeypatch.setattr(
        Masked, "corrupted", lambda _, name: asked.append(name) or np.ones((5, 240), bool)
    )
    second = evaluate(folder, tmp_path, corruptions="gaussian_noise,contrast")
    assert asked == ["contrast"]
    values = second["net0-robustness-on-standard-8-test.json"].values
    assert values["gaussian_noise"] == value
    assert values["contrast"]["value"] == 1.0


def test_corrupted_pixels_are_what_is_judged(folder, monkeypatch):
    """Without any corruption the accuracy is that of the images as they are."""
    monkeypatch.setattr("metrics.robustness.masked.corrupt", lambda image, *_: image)
    extractor = load_extractor(f"classifier@{folder}/net0.safetensors", "cpu", batch=50)
    masked = Masked.of(open_image_set(folder / "standard", "8", "test"), extractor, folder / "none")
    assert (masked.corrupted("contrast") == masked.correct()[0]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"corruptions": "frost"}, "corruption 'frost'"),
        ({"real_trained": ["net1.safetensors"]}, "name two or more"),
        ({"shifted": ["{folder}/standard"]}, "give RELEASE:CONFIG"),
        ({"shifted": ["{folder}/foreign:8"]}, "has class 'n0099'"),
        ({"shifted": ["{folder}/standard:8"]}, "holds the same images as --test standard:8:test"),
        ({"shifted": ["{folder}/again:8"]}, "--shifted again:8:test holds the same images"),
        (
            {"shifted": ["{folder}/shifted:8", "{folder}/shifted:8"]},
            "holds the same images as --shifted shifted:8:test",
        ),
        (
            {"shifted": ["{folder}/shifted:8", "{folder}/other/shifted:8"]},
            "would write one result file",
        ),
        ({"real_labels": Path("none.json")}, "cannot be read"),
        ({"batch": 0}, "--batch 0"),
    ],
)
def test_bad_input_is_told_before_features_are_computed(
    folder, tmp_path, monkeypatch, options, said
):
    foreign = relabelled((CLASSES[0], CLASSES[1]))
    foreign = (foreign[0], type(foreign[1])(1, "n0099", "foreign", "foreign"))
    write_colours(folder / "foreign", {"test": colour_images(2, 1, foreign)}, foreign)
    write_colours(folder / "again", {"test": colour_images(10, 2)}, dataset="renamed")
    write_colours(folder / "other" / "shifted", {"test": colour_images(20, 4, SOME)}, SOME)
    monkeypatch.setattr(
        "metrics.robustness.evaluating.load_extractor", lambda *_: pytest.fail("loaded")
    )
    if "shifted" in options:
        options = {"shifted": [text.format(folder=folder) for text in options["shifted"]]}
    if "real_trained" in options:
        options = {"real_trained": [str(folder / name) for name in options["real_trained"]]}
    with pytest.raises(UserError, match=said):
        evaluate(folder, tmp_path, **options)


def bitmap(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "BMP")
    return sink.getvalue()


def test_the_same_pixels_in_other_files_are_refused_before_a_result(folder, tmp_path):
    images = colour_images(10, 2)
    bitmaps = {"test": [bitmap(pixels) for pixels in images.images]}
    write_release(folder / "bitmaps", {"test": images}, "real", "colours", CLASSES, bitmaps, ("8",))
    with pytest.raises(UserError, match="bitmaps:8:test holds the same images as --test standard"):
        evaluate(folder, tmp_path, shifted=[f"{folder}/bitmaps:8"])
    assert not list(tmp_path.iterdir())


def test_real_labels_of_images_without_numbers_are_refused(folder, tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[0]] * 5))
    with pytest.raises(UserError, match="no number of a validation image"):
        evaluate(folder, tmp_path / "out", real_labels=tmp_path / "real.json")


def test_another_standard_set_or_other_labels_are_measured_anew(folder, tmp_path):
    """In the same folder: the file is of the shifted images, whatever they are compared to."""
    options = {"shifted": [f"{folder}/shifted:8"]}
    kept = evaluate(folder, tmp_path / "out", **options)
    write_colours(folder / "standard2", {"test": colour_images(12, 5)})
    again = evaluate(folder, tmp_path / "out", **options)
    assert again == kept
    name = "net0-robustness-on-shifted-8-test.json"
    other = evaluate(folder, tmp_path / "out", "standard2", **options)[name]
    value = other.values["standard_top1"]
    assert value["n"] == 36
    assert value["settings"] != kept[name].values["standard_top1"]["settings"]
    with pytest.raises(UserError, match="standard_sha256"):
        require_comparable([kept[name], other], "standard_top1")


def test_values_that_another_process_writes_meanwhile_stay(folder, tmp_path):
    (result,) = evaluate(folder, tmp_path, corruptions="contrast").values()
    path, bare = tmp_path / "both.json", replace(result, values={})
    value = {key: result.values["contrast"][key] for key in ("value", "n", "interval")}

    def meanwhile() -> dict[str, object]:
        complete(path, bare, {"contrast": Step(lambda: value, {})}, {})
        return value

    complete(path, bare, {"fog": Step(meanwhile, {})}, {})
    assert set(read_result(path).values) == {"contrast", "fog"}
