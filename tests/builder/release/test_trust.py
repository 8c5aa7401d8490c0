"""Code that the recipe in a stranger's manifest names is not run unless it is trusted by name."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.builds.planned import planned_release
from builder.planning.recipe import Recipe, load_recipe
from builder.release.command import extend, repair, reproduce
from builder.release.repair import _mend_state
from builder.release.trust import require_trust
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.sets.shapes import make_images, write_release

STRANGE = "strangers.module"
RULE = {"rule": STRANGE, "attempts": 3}


def released(folder: Path, **stage: Any) -> Path:
    """A release whose manifest's recipe has `stage`'s fields at its last stage."""
    content = load_recipe("fashion-mnist").model_dump(mode="json", by_alias=True)
    content["stage"][-1] |= stage
    write_release(folder, {"train": make_images(1, 0)}, kind="synthetic")
    origin = {
        "recipe": content,
        "stages": [
            {"resolution": r, "checkpoint_sha256": "c", "fingerprint": "f"} for r in (16, 32)
        ],
        "requests": [{"classes": ["dress"], "per_class": 1}],
    }
    classes = load_classes("fashion-mnist")
    replace(read_manifest(folder), origin=origin, classes=classes).write(folder)
    return folder


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there, and importing it leaves a trace in sys.modules."""
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "__init__.py").write_text("")
    (tmp_path / "strangers" / "module.py").write_text("raise SystemExit('it was run')")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("strange")
@pytest.mark.parametrize(
    ("stage", "kind"), [({"generator": STRANGE}, "generator"), ({"accept": RULE}, "accept rule")]
)
@pytest.mark.parametrize(
    ("command", "arguments"),
    [(repair, {}), (extend, {"per_class": 2}), (reproduce, {"sample": 1})],
)
def test_no_command_imports_what_a_manifest_names(
    tmp_path: Path,
    command: Callable[..., Any],
    arguments: dict[str, Any],
    stage: dict[str, Any],
    kind: str,
):
    release = released(tmp_path / "release", **stage)
    before = sorted(release.rglob("*"))
    with pytest.raises(UserError, match=f"names {kind} {STRANGE}, .*give --trust {STRANGE}"):
        command(str(release), **arguments)
    assert "strangers" not in sys.modules
    assert sorted(release.rglob("*")) == before


@pytest.mark.usefixtures("strange")
def test_a_module_trusted_by_name_is_run(tmp_path: Path):
    release = released(tmp_path / "release", generator=STRANGE)
    manifest = read_manifest(release)
    _mend_state(release, manifest, planned_release(manifest))
    with pytest.raises(SystemExit, match="it was run"):
        extend(str(release), per_class=2, trust=["another.one", STRANGE])


def test_each_module_is_trusted_by_itself(tmp_path: Path):
    release = released(tmp_path / "release", generator="their.generator", accept=RULE)
    with pytest.raises(UserError, match=f"accept rule {STRANGE}"):
        require_trust(read_manifest(release), ["their.generator"])
    require_trust(read_manifest(release), ["their.generator", STRANGE])


def test_a_stage_that_the_release_does_not_have_yet_counts(tmp_path: Path):
    release = released(tmp_path / "release", generator=STRANGE)
    manifest = read_manifest(release)
    only_first = manifest.origin | {"stages": manifest.origin["stages"][:1]}
    with pytest.raises(UserError, match=STRANGE):
        require_trust(replace(manifest, origin=only_first), [])


def test_what_is_ours_needs_no_trust(tmp_path: Path):
    release = released(tmp_path / "release", generator="generation.families.pixel_unet.generator")
    require_trust(read_manifest(release), [])
    require_trust(read_manifest(released(tmp_path / "other")), [])


def test_a_card_prints_the_option_that_its_command_needs():
    from cards.card.body import _trust

    recipe = load_recipe("fashion-mnist")
    stages = [recipe.stages[0], recipe.stages[1].model_copy(update={"generator": STRANGE})]
    strange = Recipe.model_construct(**{**dict(recipe), "stages": tuple(stages)})
    assert _trust(strange.model_dump(mode="json", by_alias=True)) == f" --trust {STRANGE}"
    assert _trust(recipe.model_dump(mode="json", by_alias=True)) == ""
