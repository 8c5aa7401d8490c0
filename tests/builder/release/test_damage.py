"""Files that are read back, damaged in any way: the right result or one line, and nothing harmed.

A property-based campaign over manifests, markers, sidecars, states, recipes, class lists, results
and images: bytes flipped, cut, swapped and put in between, values of JSON replaced by others.
"""

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.verify import verify_release
from builder.state import SyntheticState, read_state
from release.classes.class_list import load_classes
from release.errors import UserError
from release.images.decoding import decode_rgb
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest
from release.results.result import Result, read_result
from tests.conftest import release_bytes
from tests.in_process import InProcess

CAMPAIGN = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SHORT_CAMPAIGN = settings(CAMPAIGN, max_examples=15)  # each reads a whole release
HOSTILE = ["../../x", "/etc/passwd", "", "8", "a/b", "\x1b[2J"]
PLAIN_VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats()),
    *(st.text(max_size=8), st.sampled_from(HOSTILE)),
)
JSON_VALUES = st.recursive(
    PLAIN_VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A function that damages a file's bytes."""
    kind = draw(st.sampled_from(["flip", "cut", "swap", "insert", "repeat"]))
    places = sorted(draw(st.lists(st.floats(0, 1), min_size=3, max_size=3)))
    bit, inserted = draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=6))

    def damage(content: bytes) -> bytes:
        a, b, c = (int(place * len(content)) for place in places)
        if kind == "flip":
            changed = bytearray(content)
            changed[min(a, len(content) - 1)] ^= 1 << bit
            return bytes(changed)
        if kind == "cut":
            return content[:a]
        if kind == "swap":
            return content[:a] + content[b:c] + content[a:b] + content[c:]
        return content[:a] + (inserted if kind == "insert" else content[a:b]) + content[a:]

    return damage


def replaced(content: bytes, value: Any, seed: int) -> bytes:
    """JSON with one of its values, at any depth, replaced."""
    document = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys = inner if isinstance(inner, dict) else range(len(inner))
        for key in keys:
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    walk(document)
    holder, key = random.Random(seed).choice(places)
    holder[key] = value
    return json.dumps(document).encode()


@pytest.fixture(scope="module")
def release(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages of three classes, built in this process."""
    folder = tmp_path_factory.mktemp("damage") / "release"
    recipe = load_recipe(str(stand_in_recipe))
    with pytest.MonkeyPatch.context() as patch:
        InProcess(patch)
        plan = plan_build(recipe, recipe.chain(None), load_classes(recipe.classes), 2, folder)
        build_release(plan, RunSettings(), lambda _: None)
    return folder


def read_all(release: Path) -> None:
    """Every reader of a release, as commands call them; each may end in one line."""
    for read in (
        lambda: read_state(release, SyntheticState),
        lambda: verify_release(release, read_manifest(release), 1, lambda _: None),
        lambda: load_images(release, "8", "train"),
    ):
        with suppress(UserError):
            read()


FILES = {
    "manifest": "manifest.json",
    "state": "build.json",
    "marker": "markers/8/*.json",
    "sidecar": "sidecars/8/*.json",
    "readme": "README.md",
    "shard": "8/*.parquet",
}


def try_on_a_copy(release: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """Damage that file of a copy, read the copy: no other file of it changes."""
    copy = release.parent / "copy"
    shutil.copytree(release, copy, copy_function=os.link)
    try:
        path = sorted(copy.glob(FILES[name]))[0]
        content = path.read_bytes()
        path.unlink()  # the undamaged file has another name
        path.write_bytes(damage(content))
        before = release_bytes(copy)
        read_all(copy)
        assert release_bytes(copy) == before
    finally:
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", FILES)
@SHORT_CAMPAIGN
@given(damage=damages())
def test_damaged_bytes_of_a_release(release: Path, name: str, damage: Callable[[bytes], bytes]):
    try_on_a_copy(release, name, damage)


@pytest.mark.parametrize("name", ["manifest", "state", "marker", "sidecar"])
@SHORT_CAMPAIGN
@given(value=JSON_VALUES, seed=st.integers(0, 1 << 30))
def test_other_values_in_the_json_of_a_release(release: Path, name: str, value: Any, seed: int):
    try_on_a_copy(release, name, lambda content: replaced(content, value, seed))


@CAMPAIGN
@given(damage=damages())
def test_damaged_recipes_and_class_lists(
    stand_in_recipe: Path, class_list: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
):
    recipe, classes = tmp_path / "recipe.toml", tmp_path / "classes.csv"
    recipe.write_bytes(damage(stand_in_recipe.read_bytes()))
    classes.write_bytes(damage(class_list.read_bytes()))
    for read in (lambda: load_recipe(str(recipe)), lambda: load_classes(str(classes))):
        with suppress(UserError):
            read()


@CAMPAIGN
@given(damage=damages(), value=JSON_VALUES, seed=st.integers(0, 1 << 30))
def test_damaged_results_are_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], value: Any, seed: int
):
    path = tmp_path / "result.json"
    result = Result(
        "classifier", "shapes", {"train": "a"}, {"model": "x"}, {"n": 3}, {"top1": {"value": 0.5}}
    )
    result.write(path)
    written = path.read_bytes()
    for content in (damage(written), replaced(written, value, seed)):
        path.write_bytes(content)
        try:
            found = read_result(path)
        except UserError:
            continue
        assert found == result  # the damage was to spaces, or there was none


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@CAMPAIGN
@given(damage=damages())
@example(damage=lambda content: content)
def test_damaged_images_are_read_or_refused(kind: str, damage: Callable[[bytes], bytes]):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    try:
        image = decode_rgb(damage(file.getvalue()))
    except UserError:
        return
    assert image.mode == "RGB"
