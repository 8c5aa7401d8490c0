"""A stage in fp8: recipe, fingerprint, manifest, card, refusals. The GPU is taken to be there."""

from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builder.builds.build import BuildPlan, build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.reproduce import Release
from builder.release.verify import verify_release
from builder.shards.shard import load_generator
from cards.card.body import card_body
from cards.card.facts import stage_facts
from cards.drawing.sample_grid import read_groups
from cards.render_card import picture_names
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.forked_commands import run
from tests.in_process import InProcess
from tests.models.tiny_models import save_flux2_klein

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
SOURCE = "the model's own page"
RECIPE = """
name = "eighth"
description = "a transformer in fp8"
classes = "{classes}"
dataset = "test"
regime = "A"
license = "other"

[[stage]]
resolution = 16
generator = "diffusers"
checkpoint = "{folder}/flux2"
batch = 3
precision = "fp8"
sampler = {{ method = "native", steps = 1, guidance = 1.0 }}
sampler_source = "none"

[stage.model]
name = "tiny"
license = "none"
images = "Nothing is said of them."
source = "this test"
fp8 = "{source}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, class_list: Path) -> Path:
    """A tiny FLUX.2 and fp8.toml."""
    folder = tmp_path_factory.mktemp("fp8")
    save_flux2_klein(folder / "flux2")
    text = RECIPE.format(classes=class_list, folder=folder, source=SOURCE)
    (folder / "fp8.toml").write_text(text)
    return folder


def planned(folder: Path, release: Path, change: tuple[str, str] = ("", "")) -> BuildPlan:
    changed = release.parent / "changed.toml"
    changed.write_text((folder / "fp8.toml").read_text().replace(*change))
    recipe = load_recipe(str(changed))
    return plan_build(recipe, recipe.stages, load_classes(recipe.classes), 2, release)


def test_manifest_and_card_say_it_and_images_are_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("builder.planning.checkpoints.fp8_problem", lambda: None)
    load_generator.cache_clear()
    InProcess(monkeypatch)
    plan = planned(folder, tmp_path / "release")
    assert build_release(plan, RunSettings(), lambda _: None).manifest is not None
    manifest = read_manifest(plan.release)
    assert manifest.origin["stages"][0]["precision"] == "fp8"
    assert stage_facts(manifest)[0].precision == "fp8"
    assert verify_release(plan.release, manifest, 1, lambda _: None).problems == ()
    (file,) = (tmp_path / "release" / "16").glob("*.parquet")
    image_id = pq.read_table(file)["image_id"][3].as_py()
    again = Release(plan.release, manifest)
    (found,) = again.reproduce([again.find(image_id)])
    assert found.same_bytes
    pictures = picture_names(read_groups(plan.release))
    card = card_body(manifest, pictures, None, "./release", date(2026, 1, 1))
    assert f"- The network's blocks run in fp8. Its authors publish it so: {SOURCE}." in card
    plain = planned(folder, tmp_path / "other", ('precision = "fp8"\n', ""))
    assert plain.stages[0].fingerprint != plan.stages[0].fingerprint
    with pytest.raises(UserError, match="stage 16: precision was fp8, is None"):
        planned(folder, tmp_path / "release", ('precision = "fp8"\n', ""))


def test_what_authors_do_not_publish_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is for models whose authors publish them so: say where"):
        planned(folder, tmp_path / "release", (f'fp8 = "{SOURCE}"\n', ""))
    with pytest.raises(UserError, match=r"precision: Input should be 'fp8'"):
        planned(folder, tmp_path / "release", ('"fp8"\nsampler', '"fp4"\nsampler'))


def test_without_such_a_gpu_a_command_ends_in_one_line(folder: Path, tmp_path: Path) -> None:
    options = ["--recipe", folder / "fp8.toml", "--res", "16", "--per-class", "2"]
    refused = run(["build-dataset", *options, "--out", tmp_path / "release"])
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        'error: the stage at 16 px has precision = "fp8", which needs a GPU of compute capability '
        "8.9 or more, of which there is none here\n"
    )
    assert not (tmp_path / "release").exists()
    told = run(["build-dataset", *options, "--out", tmp_path / "release", "--dry-run"])
    assert told.returncode == 0, told.stderr
    assert f"    precision: fp8, as its authors publish it: {SOURCE}\n" in told.stdout
    assert "time unknown: no batch of it can be sampled here (the stage at 16 px has" in told.stdout
