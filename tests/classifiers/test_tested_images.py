"""What a classifier was tested on is told by pixels and classes, whatever release held them."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cards.measured.rankings import classifier_rankings, score_rankings
from cards.measured.result_schema import parse_result
from classifiers.data import image_data
from classifiers.data.image_data import read_testing, source_sha256
from classifiers.data.sources import open_source
from classifiers.training.experiment import run_experiment
from classifiers.training.task import Task
from metrics.scoring.comparability import require_comparable
from release.errors import UserError
from release.layout.image_sets import LabelledImages, images_sha256, pixels_sha256
from release.layout.manifest import read_manifest
from release.results.result import Result
from release.streaming.encoded import EncodedImages
from tests.cards.made_up_results import a_classifier_result, a_scores_result, a_source
from tests.sets import shapes
from tests.sets.shapes import SIZE, changed, make_images
from tests.sets.small_releases import random_images, write_release

TINY = changed(batch=8)
VALUE = "test_images_sha256"


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    return write_release(tmp_path / "generated", {"train": [random_images(1, 16)]})


def real(folder: Path, test: np.ndarray, *, by_content: bool = True) -> Path:
    return write_release(folder, {"test": [test]}, kind="real", by_content=by_content)


def imported_anew(folder: Path, test: np.ndarray) -> Path:
    """In other files and another order, beside another view and another split."""
    splits = {"test": [test[20:], test[:20]], "train": [random_images(7, 12)]}
    write_release(folder, {"test": [random_images(8, 4, 32)]}, kind="real")
    view = read_manifest(folder)
    write_release(folder, splits, kind="real", by_content=True)
    manifest = read_manifest(folder)
    replace(manifest, shards=manifest.shards + view.shards).write(folder)
    return folder


def result_on(generated: Path, test: Path, out: Path, seed: int) -> Result:
    experiment = Task(TINY, (str(generated),), str(test), steps=1).read()
    result = run_experiment(experiment, seed, out, lambda _: nullcontext(lambda _: None))
    assert result is not None
    return result


def groups(*results: Result) -> list[int]:
    """How many runs stand in each ranking."""
    parsed = [parse_result(Path(f"{i}.json"), result) for i, result in enumerate(results)]
    rankings = classifier_rankings(parsed)
    return [sum(row.scores["top1"].seeds for row in ranking.rows) for ranking in rankings]


def test_the_same_test_images_of_two_releases_are_ranked_together(
    generated: Path, tmp_path: Path
) -> None:
    """Two releases that differ in name, files, order, views and splits; other ones stand apart."""
    test = random_images(2, 40)
    releases = [real(tmp_path / "one", test), imported_anew(tmp_path / "elsewhere" / "two", test)]
    one, two = (result_on(generated, r, tmp_path / f"{i}.json", i) for i, r in enumerate(releases))
    assert one.reference["content_sha256"] != two.reference["content_sha256"]
    assert one.reference["name"] != two.reference["name"]
    assert one.values[VALUE] == two.values[VALUE]
    assert groups(one, two) == [2]
    require_comparable([one, two], "top1")
    other = test.copy()
    other[0, 0, 0, 0] ^= 1
    for number, release in enumerate(
        [
            real(tmp_path / "pixels" / "one", other),
            real(tmp_path / "classes" / "one", test, by_content=False),
        ]
    ):
        apart = result_on(generated, release, tmp_path / f"apart-{number}.json", 2)
        assert groups(one, apart) == [1, 1]
        with pytest.raises(UserError, match="reference images_sha256"):
            require_comparable([one, apart], "top1")


def test_processes_of_one_machine_share_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits for one of them need not for four; a control group's limit counts."""
    release = shapes.write_release(tmp_path / "real", {"test": make_images(50, 3)})
    source = open_source(f"{release}:{SIZE}:test", SIZE)
    needed = image_data.COPIES * source.images * TINY.resolution**2 * 3
    for processes, free, room in ((1, needed, True), (4, needed, False), (4, 4 * needed, True)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        monkeypatch.setattr(image_data, "memory_at_hand", lambda free=free: free)
        assert image_data.fits(TINY, [source]) is room


def test_images_are_identified_as_they_are_stored_however_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, in the recipe's view of another size, and read one by one."""
    made = make_images(50, 3)
    for times in (1, 2):
        side = times * SIZE
        stored = replace(made, images=made.images.repeat(times, axis=1).repeat(times, axis=2))
        folder = tmp_path / str(side)
        release = shapes.write_release(folder, {"test": stored}, configs=(str(side),))
        source = open_source(f"{release}:{side}:test", SIZE)
        in_memory = read_testing(TINY, source, lambda _: None)
        assert isinstance(in_memory, LabelledImages)
        with monkeypatch.context() as patch:
            patch.setattr(image_data, "fits", lambda *_: False)
            one_by_one = read_testing(TINY, source, lambda _: None)
        assert isinstance(one_by_one, EncodedImages)
        class_ids = [stored.class_ids[label] for label in stored.labels]
        expected = images_sha256(map(pixels_sha256, stored.images), class_ids)
        for data in (in_memory, one_by_one):
            assert source_sha256(source, data, 2) == expected


def made_up(seed: int, release: str, images: str | None) -> Result:
    """Tested on a release of that name and content."""
    result = a_classifier_result([a_source("good", 1000)], 0.8, seed)
    reference = result.reference | {"name": release, "content_sha256": f"{release}-content"}
    values = result.values | ({} if images is None else {VALUE: images})
    return replace(result, reference=reference, values=values)


def test_results_of_before_are_known_by_those_that_name_the_same_release() -> None:
    before, known, elsewhere = made_up(0, "a", None), made_up(1, "a", "x"), made_up(2, "b", "x")
    assert groups(before, known, elsewhere) == [3]
    assert groups(elsewhere, before, known) == [3]
    assert groups(before, elsewhere) == [1, 1]  # nothing says that the two releases agree
    assert groups(before, made_up(1, "a", None), made_up(2, "c", None)) == [2, 1]
    require_comparable([before, known, elsewhere], "top1")
    with pytest.raises(UserError, match="cannot be compared: reference"):
        require_comparable([before, elsewhere], "top1")


def test_another_configuration_of_the_release_tells_nothing() -> None:
    before, known = made_up(0, "a", None), made_up(1, "a", "x")
    other = replace(known, reference=known.reference | {"config": "16"})
    assert groups(before, other) == [1, 1]


def test_a_release_stated_with_two_identities_tells_nothing() -> None:
    assert groups(made_up(0, "a", None), made_up(1, "a", "x"), made_up(2, "a", "y")) == [1, 1, 1]


def test_scores_against_the_same_images_are_ranked_together_under_other_names() -> None:
    scored = [
        replace(
            a_scores_result(a_source(subject, 1000), 20.0),
            reference={"name": name, "content_sha256": content, "config": "32"},
        )
        for subject, name, content in (("a", "one", "x"), ("b", "two", "x"), ("c", "one", "y"))
    ]
    parsed = [parse_result(Path(f"{i}.json"), result) for i, result in enumerate(scored)]
    assert [len(ranking.rows) for ranking in score_rankings(parsed)] == [2, 1]
