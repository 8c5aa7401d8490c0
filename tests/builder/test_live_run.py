"""One run of builds: one release or several, planned once, finished when whole, never mixed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder import build_dataset as command
from builder import dry_run
from builder.build_dataset import build_dataset
from builder.builds import build as build_module
from builder.builds.build import BuildPlan, plan_build
from builder.builds.live_run import live_run
from builder.builds.run import RunSettings, run_builds
from builder.planning.recipe import Recipe, load_recipe
from builder.state import SyntheticState, read_state, write_state
from release.classes.class_list import load_classes
from release.environment import Environment, own_environment
from release.errors import UserError
from release.layout.manifest import MANIFEST_FILE, read_manifest
from tests.in_process import InProcess

PER_CLASS = 4
SETTINGS = RunSettings(mixing_offered=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(monkeypatch)


@pytest.fixture
def recipe(stand_in_recipe: Path) -> Recipe:
    return load_recipe(str(stand_in_recipe))


def plan(recipe: Recipe, release: Path, last: int | None = None) -> BuildPlan:
    classes = load_classes(recipe.classes)
    return plan_build(recipe, recipe.chain(last), classes, PER_CLASS, release, classes)


def points(recipe: Recipe, folder: Path) -> list[BuildPlan]:
    """Two releases that differ in their last stage alone, as a selection has them."""
    found = []
    for steps in (2, 3):
        *first, last = recipe.stages
        sampler = last.sampler.model_copy(update={"steps": steps})
        other = recipe.model_copy(
            update={"stages": (*first, last.model_copy(update={"sampler": sampler}))}
        )
        found.append(plan(other, folder / f"steps-{steps}"))
    return found


def ignore(_: object) -> None:
    pass


def test_points_share_their_parent_and_a_cluster_starts_with_the_first_job(
    here: InProcess, recipe: Recipe, tmp_path: Path
) -> None:
    parent = plan(recipe.lossless(), tmp_path / "parent", 16)
    plans = points(recipe, tmp_path)
    advanced = []
    with live_run(SETTINGS, most=2) as live:
        assert here.opened == 0
        live.build([parent], advanced.append)
        for one in plans:
            live.adopt(parent.release, one)
        live.build(plans, advanced.append)
        assert here.opened == 1
    assert len(here.made) == len({job.path for one in plans for job in one.jobs()})
    for one in plans:
        made_with = [read_manifest(r).origin["environments"] for r in (one.release, parent.release)]
        assert made_with[0] == made_with[1]
        for path in (tmp_path / "parent/16").iterdir():
            assert path.samefile(one.release / "16" / path.name)
    before = list(here.made)
    with live_run(SETTINGS, most=2) as live:  # plans that were made before the releases were
        live.build([parent, *plans], ignore)
    assert (here.made, here.opened) == (before, 1)
    noted = read_state(tmp_path / "steps-2", SyntheticState)
    assert noted is not None
    assert noted.environments == (own_environment(),)


def test_a_release_is_finished_with_its_last_shard_and_a_failure_costs_no_other(
    here: InProcess, recipe: Recipe, tmp_path: Path
) -> None:
    plans = points(recipe, tmp_path)
    here.failing = plans[1].jobs()[-1].path
    shared = [job.path for job in plans[0].jobs()[:-1]]
    with live_run(SETTINGS, most=2) as live:
        live.build(plans[:1], ignore)
        live.adopt(plans[0].release, plans[1])
        with pytest.raises(UserError, match=r"1 shards kept failing; .* in .*steps-3: no luck"):
            live.build(plans[1:], ignore)
        assert (tmp_path / "steps-2" / MANIFEST_FILE).is_file()
        assert not (tmp_path / "steps-3" / MANIFEST_FILE).exists()
        assert list((tmp_path / "steps-3/quarantine").rglob("*.json"))
        here.failing = ""
        live.build(plans[1:], ignore)
    assert read_manifest(tmp_path / "steps-3").rows("32", "train") == 3 * PER_CLASS
    assert not (tmp_path / "steps-3/quarantine").exists()
    assert len(here.made) == len(set(here.made))
    assert set(shared) & set(here.made)


def test_what_is_whole_is_finished_when_the_run_is_killed(
    here: InProcess, recipe: Recipe, tmp_path: Path
) -> None:
    other = recipe.model_copy(update={"seed": 5})
    plans = [plan(recipe, tmp_path / "first"), plan(other, tmp_path / "second")]
    here.left = len(plans[0].jobs()) + 1
    with live_run(SETTINGS, most=2) as live, pytest.raises(KeyboardInterrupt):
        live.build(plans, ignore)
    assert read_manifest(tmp_path / "first").rows("32", "train") == 3 * PER_CLASS
    assert not (tmp_path / "second" / MANIFEST_FILE).exists()
    here.left = float("inf")
    with live_run(SETTINGS, most=2) as live:
        live.build(plans, ignore)
    assert len(here.made) == len(set(here.made))
    assert read_manifest(tmp_path / "second").rows("32", "train") == 3 * PER_CLASS


def test_the_same_shard_in_two_releases_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    plans = [plan(recipe, tmp_path / name) for name in ("one", "two")]
    with pytest.raises(ValueError, match="share their parent"):
        run_builds([one.release_jobs() for one in plans], SETTINGS, ignore)


@pytest.mark.parametrize("mixed", ["source", "target"])
def test_shards_of_another_environment_are_neither_adopted_nor_grown(
    here: InProcess, recipe: Recipe, tmp_path: Path, mixed: str
) -> None:
    parent, point = plan(recipe.lossless(), tmp_path / "parent", 16), points(recipe, tmp_path)[0]
    with live_run(SETTINGS, most=1) as live:
        live.build([parent], ignore)
        changed = parent if mixed == "source" else point
        there = own_environment()
        other = Environment(there.device, (("torch", "2.0.0"), *there.versions[1:]))
        write_state(changed.release, replace(changed.state, environments=(other,)))
        made = list(here.made)
        with pytest.raises(UserError, match=r"was not made .* where it was begun or name") as error:
            live.adopt(parent.release, point)
    assert "--allow-mixed" not in str(error.value)  # no option of a selection's command
    assert here.made == made
    assert not (point.release / "16").exists()


def test_a_build_loads_its_classes_and_plans_its_blocks_once(
    here: InProcess,  # noqa: ARG001
    stand_in_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()

    def count(module: object, name: str) -> None:
        function: Callable[..., object] = getattr(module, name)

        def counted(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(module, name, counted)

    for module in (build_module, dry_run):
        for name in ("plan_blocks", "plan_stages", "plan_shards"):
            count(module, name)
    count(build_module, "load_classes")
    count(command, "load_classes")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    once = dict.fromkeys(("load_classes", "plan_blocks", "plan_stages", "plan_shards"), 1)
    for dry in (True, False):
        calls.clear()
        out = str(tmp_path / "out")
        code = build_dataset(str(stand_in_recipe), per_class=2, out=out, dry_run=dry, as_json=True)
        assert (code, calls) == (0, once)
