"""Cards and sample grids: every fact from manifest and results, the load contract untouched."""

import base64
import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cards.board.board import STRIP, assemble_board, sample_figure
from cards.card.body import card_body
from cards.drawing.picture_names import WIDEST, label_font, shown_name
from cards.drawing.sample_grid import (
    CELL,
    GAP,
    GROUPS,
    MAX_CLASSES,
    class_groups,
    draw_grid,
    fit,
    read_groups,
    read_samples,
    row_png,
    spread,
)
from cards.drawing.side_by_side import draw_side_by_side, one_of_each
from cards.drawing.tables import MISSING
from cards.measured.result_folder import read_folder
from cards.render_card import load_contract, picture_names, render_card
from release.classes.class_list import ClassEntry
from release.errors import UserError
from release.files.commit import sha256_bytes
from release.images.encoding import encode_image
from release.layout.manifest import Manifest, ShardRecord, read_manifest
from release.layout.parquet import image_features, table_schema
from tests.campaigns.killing import POINTS, hashes, killed_at, temporaries
from tests.cards.tiny_card import (
    CLASSES,
    COLUMNS,
    DAY,
    ORIGIN,
    a_picture,
    a_result,
    a_score,
)
from tests.forked_commands import run
from tests.sets.shapes import encode_table


def render(release: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(["render-card", release, *options])


def body_of(
    release: Path, results: Path | None = None, location: str = "./garments", **options: bool
) -> str:
    pictures = picture_names(read_groups(release))
    return card_body(read_manifest(release), pictures, results, location, DAY, **options)


def test_samples_are_the_first_of_each_class_whatever_the_files_order(release: Path) -> None:
    samples = read_samples(release, per_class=4)
    found = [[tuple(image[0, 0]) for image in row] for row in samples.images]
    assert found == [[(50 + label, index, 0) for index in range(4)] for label in range(3)]
    assert samples.caption.startswith("The first 4 images of each class")


def test_a_picture_has_no_columns_that_no_class_fills(release: Path) -> None:
    samples = read_samples(release, per_class=50)
    count = max(map(len, samples.images))
    assert count < 50
    assert samples.caption.startswith(f"The first {count} images of each class")
    fewer = read_samples(release, per_class=count - 1)
    assert draw_grid(samples).width - draw_grid(fewer).width == CELL + GAP


def test_strips_of_a_page_are_as_wide_whatever_a_class_has(release: Path) -> None:
    """The page stretches them, and one image is not to fill it."""
    assert max(map(len, read_samples(release, per_class=STRIP).images)) < STRIP
    _, figure = sample_figure(release)
    for _, address in figure.rows:
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as strip:
            assert strip.width == STRIP * 17 - 1


def test_releases_side_by_side_show_the_same_classes_in_turn(release: Path, tmp_path: Path) -> None:
    name, dataset, images = one_of_each(release, 7)
    assert (name, dataset) == (read_manifest(release).name, read_manifest(release).dataset)
    first = [(50 + label, index, 0) for index in range(2) for label in range(3)]
    assert [tuple(image[0, 0]) for image in images] == [*first, (50, 2, 0)]
    out = tmp_path / "rows.png"
    draw_side_by_side([str(release), str(release)], out, count=7)
    with Image.open(out) as picture:
        assert picture.height == 2 * (CELL + GAP) + GAP
        left = picture.width - 7 * (CELL + GAP)
        assert picture.getpixel((left, GAP)) == first[0]
    (facet,) = assemble_board(read_folder(tmp_path), [release, release])
    beside = facet.sections[-1].samples[0]
    assert [row for row, _ in beside.rows] == [name, name]


def test_grid_enlarges_whole_pixels_without_blending(release: Path) -> None:
    samples = read_samples(release, per_class=2)
    picture = np.asarray(draw_grid(samples))
    assert picture.shape[0] == 3 * (CELL + GAP) + GAP
    left = picture.shape[1] - 2 * (CELL + GAP)
    first = picture[GAP : GAP + CELL, left : left + CELL]
    assert np.array_equal(first, a_picture(0, 0).repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize("name", ["Zoë", "Жук", "Ωμέγα", "naïve façade", "שלום", "كلب"])
def test_names_in_pictures_have_their_letters(name: str) -> None:
    """Each letter has a picture of its own; a missing one would be the same box for all."""
    font = label_font()
    assert shown_name(ClassEntry(0, "c0", name, name), font) == name
    box = bytes(font.getmask("\ue000"))
    assert all(bytes(font.getmask(letter)) != box for letter in name if letter != " ")


def test_names_without_letters_in_the_font_are_shown_by_their_id() -> None:
    font = label_font()
    assert shown_name(ClassEntry(3, "n02084071", "개", "dog"), font) == "n02084071"
    assert shown_name(ClassEntry(3, "개", "개", "dog"), font) == "class 3"


@pytest.mark.parametrize(
    "name", ["x" * 5000, "שלום " * 200, "two\nlines", "\x1b[2J", "a\u202eb", "", "\t"]
)
def test_no_name_breaks_or_widens_the_picture(release: Path, name: str) -> None:
    samples = read_samples(release, per_class=2)
    classes = tuple(replace(c, name=name) for c in samples.classes)
    picture = draw_grid(replace(samples, classes=classes))
    assert picture.width <= WIDEST + 3 * GAP + 2 * (CELL + GAP)
    assert picture.height == 3 * (CELL + GAP) + GAP


def test_large_images_shrink_and_keep_their_shape() -> None:
    assert fit(np.zeros((300, 200, 3), np.uint8), 96).size == (64, 96)


def test_row_of_a_class_holds_its_images_as_they_are(release: Path, tmp_path: Path) -> None:
    row = read_samples(release, per_class=3).images[1]
    (tmp_path / "row.png").write_bytes(row_png(row, 3))
    with Image.open(tmp_path / "row.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (16, 3 * 17 - 1, 4)
    assert pixels[0, [0, 17, 34], 1].tolist() == [0, 1, 2]


def test_many_classes_are_thinned_at_equal_steps() -> None:
    classes = [ClassEntry(i, f"n{i}", f"{i}", f"{i}") for i in range(1000)]
    assert [c.label for c in spread(classes, 4)] == [0, 250, 500, 750]


def test_a_class_group_is_a_picture_of_its_own(tmp_path: Path) -> None:
    """45 classes with images and one without; two images each, over two files."""
    classes = tuple(ClassEntry(i, f"n{i:02d}", f"class {i}", f"class {i}") for i in range(46))
    many = [many_classes(tmp_path, classes[:45], index) for index in (1, 0)]
    Manifest(
        name="many",
        kind="synthetic",
        dataset="many",
        regime="A",
        license="mit",
        classes=classes,
        origin=ORIGIN,
        shards=tuple(many),
    ).write(tmp_path)
    pictures = picture_names(read_groups(tmp_path, per_class=2))
    assert list(pictures) == ["samples-00.png", "samples-01.png", "samples-02.png"]
    assert [len(samples.classes) for samples in pictures.values()] == [20, 20, 5]
    third = pictures["samples-02.png"]
    assert third.image_ids[0] == ("n40-0", "n40-1")
    assert [tuple(image[0, 0]) for image in third.images[0]] == [(90, 0, 0), (90, 1, 0)]
    body = card_body(read_manifest(tmp_path), pictures, None, "./many", DAY)
    assert "Classes 40 to 44, class 40 to class 44:\n\n![" in body
    assert "1 of the 46 classes have no images yet." in body


def many_classes(release: Path, classes: tuple[ClassEntry, ...], index: int) -> ShardRecord:
    columns: dict[str, list[Any]] = {
        "image": [encode_image(a_picture(c.label, index), "png", synthetic=True) for c in classes],
        "label": [c.label for c in classes],
        "class_id": [c.wnid for c in classes],
        "image_id": [f"{c.wnid}-{index}" for c in classes],
        "index": [index] * len(classes),
    }
    content = encode_table(table_schema(image_features(classes, COLUMNS), classes), columns)
    path = f"16/train-{index}.parquet"
    (release / "16").mkdir(exist_ok=True)
    (release / path).write_bytes(content)
    counts = {c.wnid: 1 for c in classes}
    return ShardRecord(path, len(classes), len(content), sha256_bytes(content), "f" * 64, counts)


def test_only_as_many_groups_as_a_reader_scrolls() -> None:
    """1,000 classes: ten pictures of 20 rows."""
    assert (GROUPS, MAX_CLASSES) == (10, 20)
    classes = [ClassEntry(i, f"n{i}", f"{i}", f"{i}") for i in range(1000)]
    groups = class_groups(classes)
    assert [len(group) for group in groups] == [100] * 10
    assert [c.label for c in spread(groups[1], MAX_CLASSES)][:3] == [100, 105, 110]


@pytest.mark.parametrize(("config", "split"), [("64", "train"), ("16", "test")])
def test_unknown_configuration_or_split_names_what_there_is(
    release: Path, config: str, split: str
) -> None:
    with pytest.raises(UserError, match="known: 16/train"):
        read_samples(release, config, split)


def test_card_keeps_the_load_contract_byte_for_byte(release: Path) -> None:
    before = load_contract(release / "README.md")
    for _ in range(2):
        run = render(release)
        assert run.returncode == 0, run.stderr
        text = (release / "README.md").read_text()
        assert text.startswith(before)
        assert text.count("# garments") == 1
    assert yaml.safe_load(before.strip("-\n"))["configs"][0]["config_name"] == "16"
    assert (release / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_card_states_the_chain_the_counts_and_the_licence(release: Path) -> None:
    body = body_of(release)
    for line in (
        "### 16 px: Tiny",
        "- Generator `pixel-unet`, checkpoint `builtin:tiny-16`, SHA-256",
        f"  `{'c' * 64}`. Source: a test.",
        "- Licence of the model: made-up-1.0; what it says of the images stands [below](#licence).",
        "- 16 px: Tiny, made-up-1.0. Use them.",
        "- Sampler: method dpm-solver++, steps 12.",
        "- Why these settings: a sweep of one.",
        "numpy 2.4.6, torch 2.15.0; cpu test.",
        "release reproduce garments bag-000000 --all-stages",
    ):
        assert f"\n{line}\n" in body
    assert "| `16` | train | 18 | 3 | 6 |" in body
    assert "`mit`. For tests only." in body
    assert "regime B" in body
    assert "release seed 7" in body
    assert read_manifest(release).content_sha256 in body
    assert "What was measured" not in body


def test_snippet_names_the_repository(release: Path) -> None:
    assert 'load_dataset("someone/garments", "16")' in body_of(release, location="someone/garments")


def test_card_of_a_hostile_release_is_text(release: Path) -> None:
    manifest = read_manifest(release)
    told = "<img src=x>\n# heading [x](http://y) \x1b[2J"
    recipe = {**manifest.origin["recipe"], "description": told}
    manifest = replace(manifest, name="a|<b>", origin={**manifest.origin, "recipe": recipe})
    pictures = picture_names(read_groups(release))
    body = card_body(manifest, pictures, None, "./ga'r\"m $(x)", DAY)
    for raw in ("<img", "](http://y", "\n# heading", "<b>", "\x1b"):
        assert raw not in body.replace(f"@misc{{{manifest.name}", "").replace("{a|<b>}", "")
    assert 'load_dataset("./ga\'r\\"m $(x)", "16")' in body
    assert "release verify 'ga'\"'\"'r\"m $(x)'\n" in body


def test_card_shows_every_number_of_its_results(release: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    a_result(release, 0.80).write(results / "0.json")
    a_result(release, 0.84, seed=1).write(results / "1.json")
    real = {"name": "real", "content_sha256": "r", "kind": "real", "regime": None}
    a_result(release, 0.9, **real).write(results / "2.json")
    a_result(release, 0.3, name="other", content_sha256="other").write(results / "3.json")
    body = body_of(release, results, allow_missing=True)
    measured = f"16 | these 18 | 2 | 82.00 ± 2.83 | {MISSING} | 90.00 [88.00, 92.00] | 18 | 3,000"
    assert f"| resnet10t | small | {measured} |" in body
    assert (
        "Largest loss of top-1 against real images alone, theirs in brackets (resnet10t trained on "
        "these 18): Bag 82.0% (90.0%), Ankle boot 72.0% (80.0%), Coat 62.0% (70.0%)." in body
    )
    assert body.count("| resnet10t |") == 1
    assert "Not measured: how far they lie from the real ones (`score-release`)." in body


def test_a_card_without_results_does_not_erase_measurements(release: Path, tmp_path: Path) -> None:
    a_result(release, 0.80).write(tmp_path / "results" / "0.json")
    render_card(str(release), results=tmp_path / "results", allow_missing=True)
    before = (release / "README.md").read_bytes()
    with pytest.raises(UserError, match="give --results again, or --drop-results"):
        render_card(str(release), repo="me/garments")
    assert (release / "README.md").read_bytes() == before
    with pytest.raises(UserError, match="exclude each other"):
        render_card(str(release), results=tmp_path / "results", drop_results=True)
    render_card(str(release), drop_results=True)
    assert b"What was measured" not in (release / "README.md").read_bytes()
    render_card(str(release), repo="me/garments")


def test_card_counts_classifiers_and_settings_in_words(release: Path, tmp_path: Path) -> None:
    first = a_result(release, 1.0)
    other = replace(first, protocol={"epochs": 9})
    for number, result in enumerate((first, other)):
        values = {"top1": {"value": 1.0, "n": 3000, "interval": [0.99, 1.0]}}
        replace(result, values=values).write(tmp_path / "results" / f"{number}.json")
    body = body_of(release, tmp_path / "results", allow_missing=True)
    line = (
        "As the only training images: resnet10t in 2 settings reaches 100.00% top-1 with these 18."
    )
    assert f"\nWorth as training images, as far as it was measured:\n\n- {line}\n" in body
    assert "- Training classifiers" not in body
    first_part = body.split("\n## ")[0]
    assert f"\n**What they are worth as training images.** {line}\n" in first_part
    vit = replace(other, subject={**other.subject, "model": "vit"})
    vit.write(tmp_path / "results" / "1.json")
    body = body_of(release, tmp_path / "results", allow_missing=True)
    assert "images: 2 classifiers, resnet10t to vit, reach 100.00% top-1 with these 18." in body


def test_results_of_another_build_of_the_release_are_refused(release: Path, tmp_path: Path) -> None:
    a_result(release, 0.8, content_sha256="0" * 64).write(tmp_path / "results" / "0.json")
    with pytest.raises(UserError, match=r"is about another garments .*score it again"):
        body_of(release, tmp_path / "results")


def test_card_names_the_classes_that_score_worst(release: Path, tmp_path: Path) -> None:
    a_score(release).write(tmp_path / "results" / "kid.json")
    names = [c.name for c in sorted(CLASSES, key=lambda c: c.label)]
    line = ", ".join(f"{name} {0.3 - 0.1 * i:.3g}" for i, name in enumerate(names))
    body = body_of(release, tmp_path / "results", allow_missing=True)
    assert f"Worst Class KID to test within a class (tiny, `16`): {line}." in body


def test_missing_scores_are_refused(release: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match="run score-release and train-classifier on it first"):
        body_of(release, tmp_path / "results")


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ((), "recipe"),
        ((), "stages"),
        (("recipe",), "seed"),
        (("recipe",), "license_note"),
        (("stages", 0), "checkpoint_sha256"),
        (("stages", 0), "sampler"),
        ((), "environments"),
        (("recipe", "stage", 0), "sampler_source"),
        (("recipe", "stage", 0), "model"),
    ],
)
def test_missing_fact_fails_by_name(release: Path, where: tuple[Any, ...], name: str) -> None:
    origin = json.loads(json.dumps(ORIGIN))
    part = origin
    for key in where:
        part = part[key]
    del part[name]
    manifest = replace(read_manifest(release), origin=origin)
    with pytest.raises(UserError, match=rf"lacks .*\b{name}\b.* no card can be rendered"):
        card_body(manifest, picture_names(read_groups(release)), None, "./garments", DAY)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("shards", 0, "sha256"), "0" * 64),
        (("shards", 0, "per_class", "bag"), 1000),
        (("license",), "cc0-1.0"),
        (("origin", "stages", 0, "sampler", "steps"), 500),
        (("documents", "README.md"), "0" * 64),
    ],
)
def test_tampered_manifest_is_refused_and_readme_left_alone(
    release: Path, where: tuple[Any, ...], value: Any
) -> None:
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    at = content
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    path.write_text(json.dumps(content))
    before = (release / "README.md").read_bytes()
    with pytest.raises(UserError, match="was changed after it was written"):
        render_card(str(release))
    assert (release / "README.md").read_bytes() == before


@pytest.mark.parametrize("text", ["# no contract\n", "---\nnever: closed\n", ""])
def test_readme_without_contract_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(UserError, match="between two lines of ---"):
        load_contract(tmp_path / "README.md")


@pytest.mark.parametrize("point", POINTS)
def test_a_card_that_is_killed_leaves_whole_files_and_a_release_that_is_read(
    release: Path, point: str
) -> None:
    render_card(str(release), published="2026-01-01")
    old = hashes(release)
    render_card(str(release), published="2026-02-02", per_class=3)
    new = hashes(release)
    render_card(str(release), published="2026-01-01")
    assert hashes(release) == old
    number = 1

    def again() -> None:
        render_card(str(release), published="2026-02-02", per_class=3)

    while killed_at(number, point, again):
        found = {n: d for n, d in hashes(release).items() if not n.startswith("lease/")}
        for name, digest in found.items():
            assert digest in (old.get(name), new.get(name)), (number, name)
        assert set(old) <= set(found)
        read_manifest(release)
        again()
        assert hashes(release) == new
        assert not temporaries(release)
        render_card(str(release), published="2026-01-01")
        number += 1
    assert number == 5  # picture, croissant.json, README.md, manifest.json
