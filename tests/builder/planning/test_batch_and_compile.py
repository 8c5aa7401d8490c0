"""How many images networks see at once, and whether they are compiled: chosen, recorded, kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builder import making
from builder.build_dataset import build_dataset
from builder.builds.build import BuildPlan, build_release, plan_build
from builder.builds.planned import planned_release, stated_state
from builder.builds.run import RunSettings
from builder.cluster.cluster import ClusterOptions
from builder.planning import batch_and_compile, gpu_memory
from builder.planning.batch_and_compile import Execution, GpuMemory, Means, Size, as_run
from builder.planning.device_cost import DEFAULT_DEVICE, device_cost
from builder.planning.device_memory import GIB, MemoryNeed, memory_need
from builder.planning.gpu_memory import gpus_here
from builder.planning.recipe import Recipe, load_recipe
from builder.release.reproduce import Release
from builder.release.verify import verify_release
from builder.state import STATE_FILE, SyntheticState, read_state
from cards.card.facts import stage_facts
from cards.card.provenance import stage_provenance
from generation.families import work_of
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.conftest import state_facts
from tests.in_process import InProcess
from tests.models.tiny_denoisers import save_denoiser
from tests.recipe_text import tiny_build

LARGE = GpuMemory(80 * GIB, 79 * GIB)
DIT = load_recipe("imagenet-dit-256").stages[0]


def chosen(stage: Any, size: Size, **means: Any) -> Execution:
    _, found = as_run([stage], (), {}, size, Means(**means))
    return found.get(str(stage.resolution), Execution(stage.batch, stage.compile, ""))


def test_what_a_published_network_needs_follows_from_its_shape() -> None:
    """675 M parameters and half as many bytes in the decoder's; each half of guidance is a row."""
    need = memory_need(DIT)
    work = work_of("dit", DIT.checkpoint, 256)
    assert need is not None
    assert work is not None
    assert work.memory is not None
    assert work.memory.weights == pytest.approx(4 * 675e6, rel=0.01)
    assert need.fixed == pytest.approx(2 * 675e6 + 4 * 49.5e6 + 1.5 * 201e6, rel=0.02)
    unguided = memory_need(
        DIT.model_copy(update={"sampler": DIT.sampler.model_copy(update={"guidance": 1.0})})
    )
    assert unguided is not None
    pixels = 4 * 12 * 256**2
    assert need.image - pixels == pytest.approx(2 * (unguided.image - pixels), rel=1e-6)
    assert memory_need(load_recipe("fashion-mnist").stages[0]) is None


def test_the_batch_is_what_fits_in_as_few_of_one_size_as_a_shard_takes() -> None:
    need = memory_need(DIT)
    assert need is not None
    for gib, rows, batch in ((80, 2000, 250), (80, 100, 100), (80, 257, 129)):
        found = chosen(DIT, Size(rows, rows), gpus=(GpuMemory(gib * GIB, gib * GIB),))
        assert found.batch == batch
        assert "batch by memory" in found.basis
    small = GpuMemory(6 * GIB, 6 * GIB)
    found = chosen(DIT, Size(2000, 2000), gpus=(small,))
    assert 2000 / (found.batch + 1) < np.ceil(2000 / need.most(small.usable)) + 1
    assert need.gib(found.batch) * GIB <= small.usable
    taken = chosen(DIT, Size(2000, 2000), gpus=(LARGE, GpuMemory(80 * GIB, 3 * GIB)))
    assert taken.batch < 250
    shared = chosen(DIT, Size(2000, 2000), gpus=(small,), workers=2)
    assert shared.batch < found.batch
    with pytest.raises(UserError, match=r"needs 1\.7 GiB of GPU memory for one image at a time"):
        chosen(DIT, Size(10, 10), gpus=(GpuMemory(GIB, GIB),))
    assert chosen(DIT, Size(10, 10), gpus=(GpuMemory(GIB, GIB),), batches=(2,)).batch == 2


def test_a_batch_takes_no_longer_than_a_kill_may_cost() -> None:
    """By the counted hours: a thousand steps of a network at 64 px, each guided."""
    base = load_recipe("imagenet-if").stages[0]
    cost = device_cost(base, DEFAULT_DEVICE)
    assert cost is not None
    found = chosen(base, Size(10_000, 10_000), gpus=(LARGE,))
    assert (
        batch_and_compile.BATCH_SECONDS * 0.8
        < found.batch * cost.seconds
        <= batch_and_compile.BATCH_SECONDS
    )


def test_without_a_gpu_and_where_nothing_is_known_the_recipe_decides() -> None:
    own = load_recipe("fashion-mnist").stages[0]
    assert chosen(DIT, Size(2000, 2000)) == Execution(DIT.batch, False, "")
    found = chosen(own, Size(2000, 2000), gpus=(LARGE,))
    assert (found.batch, found.compile) == (own.batch, own.compile)


def test_compiling_begins_where_it_pays() -> None:
    def compiled(images: int, stage: Any = DIT, **means: Any) -> bool:
        return chosen(stage, Size(images, 2000), gpus=(LARGE, LARGE), **means).compile

    assert not compiled(100)
    assert compiled(1_200_000)
    edge = next(n for n in range(100, 10_000, 100) if compiled(n))
    assert compiled(2 * edge)
    assert not compiled(edge, workers=4)
    assert not compiled(1_200_000, compile=False)
    assert compiled(100, compile=True)
    var = load_recipe("imagenet-var-256").stages[0]
    assert not compiled(1_200_000, var)
    assert compiled(100, DIT.model_copy(update={"compile": True}))


def test_batches_are_one_for_all_or_one_for_each_stage() -> None:
    chain = load_recipe("imagenet-if").stages
    stages, found = as_run(chain, (), {}, Size(10, 10), Means(batches=(64, 16, 4)))
    assert [stage.batch for stage in stages] == [64, 16, 4]
    assert {one.basis for one in found.values()} == {"asked for"}
    stages, _ = as_run(chain, (), {}, Size(10, 10), Means(batches=(5,)))
    assert [stage.batch for stage in stages] == [5, 5, 5]
    assert all(new.cost != old.cost for new, old in zip(stages, chain, strict=True))
    with pytest.raises(UserError, match="--batch names 2 batches, the chain has 3 stages"):
        as_run(chain, (), {}, Size(10, 10), Means(batches=(64, 16)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, class_list: Path) -> Path:
    """A recipe of RIN at 16 px, whose shape its checkpoint's folder tells."""
    folder = tmp_path_factory.mktemp("execution")
    save_denoiser(folder / "rin", "rin", ("apple", "pear", "plum"))
    text = tiny_build(class_list, "rin", folder / "rin", "steps = 2")
    (folder / "tiny.toml").write_text(state_facts(text, 1))
    return folder / "tiny.toml"


def planned(recipe: Recipe, release: Path, per_class: int = 4, **means: Any) -> BuildPlan:
    classes = load_classes(recipe.classes)
    return plan_build(recipe, recipe.stages, classes, per_class, release, means=Means(**means))


def test_a_release_says_how_it_was_made_and_grows_as_it_was_begun(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    recipe, release = load_recipe(str(tiny)), tmp_path / "release"
    plan = planned(recipe, release, gpus=(LARGE,))
    assert build_release(plan, RunSettings(), lambda _: None).manifest is not None
    (stage,) = plan.stages
    assert stage.recipe.batch == 8  # a shard's two classes by four
    as_asked = recipe.model_copy(
        update={"stages": (recipe.stages[0].model_copy(update={"batch": 8}),)}
    )
    assert planned(as_asked, tmp_path / "other").stages[0].fingerprint == stage.fingerprint
    assert planned(recipe, tmp_path / "other").stages[0].fingerprint != stage.fingerprint

    manifest = read_manifest(release)
    said = manifest.origin["stages"][0]["execution"]
    assert (said["batch"], said["compile"]) == (8, False)
    assert said["basis"].startswith("batch by memory: ")
    assert verify_release(release, manifest, 1, lambda _: None).problems == ()
    again = Release(release, manifest)
    assert {one.same_bytes for one in again.reproduce(again.draw(3, 0, last_stage=False))} == {True}
    (facts,) = stage_facts(manifest)
    assert facts.execution == said
    activity = stage_provenance(manifest, facts, None)["prov:wasGeneratedBy"]
    told = {one["propertyID"]: one["value"] for one in activity["additionalProperty"]}
    assert told["execution.batch"] == 8

    state = read_state(release, SyntheticState)
    assert state is not None
    assert state == stated_state(manifest, planned_release(manifest))
    for means in ({}, {"gpus": (GpuMemory(24 * GIB, 24 * GIB),)}):
        grown = planned(recipe, release, 6, **means)
        assert grown.state.execution == state.execution
        assert grown.stages[0].fingerprint == stage.fingerprint
    of_manifest = planned_release(manifest).recipe
    assert planned(of_manifest, release).state.execution == state.execution
    with pytest.raises(UserError, match="batch was 8, is 5"):
        planned(recipe, release, batches=(5,))


def test_what_runs_as_its_recipe_says_leaves_no_trace(tiny: Path, tmp_path: Path) -> None:
    from builder.state import write_state

    recipe = load_recipe(str(tiny))
    plan = planned(recipe, tmp_path / "release", batches=(recipe.stages[0].batch,))
    assert plan.state.execution == {}
    tmp_path.joinpath("release").mkdir()
    write_state(tmp_path / "release", plan.state)
    assert "execution" not in json.loads((tmp_path / "release" / STATE_FILE).read_text())
    begun = planned(recipe, tmp_path / "release", gpus=(LARGE,))
    assert begun.stages[0].recipe.batch == recipe.stages[0].batch


def test_a_gpu_of_this_machine_decides_where_the_build_runs_on_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpus_here() == ()
    monkeypatch.setattr(gpu_memory, "visible_gpus", lambda: ["0", "3"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: ((i + 1) * GIB, 9 * GIB))
    assert gpus_here() == (GpuMemory(9 * GIB, GIB), GpuMemory(9 * GIB, 2 * GIB))
    recipe = load_recipe(str(tiny))
    wanted = making.Wanted(recipe, recipe.stages, (), (), 1, batches=(4,))
    here, elsewhere = (
        wanted.means(ClusterOptions(scheduler=address)) for address in (None, "tcp://far:1")
    )
    assert here.memory == GIB
    assert (elsewhere.memory, elsewhere.batches) == (None, (4,))


def test_the_command_takes_a_batch_and_the_dry_run_tells_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    InProcess(monkeypatch)
    out = str(tmp_path / "release")
    assert build_dataset(str(tiny), per_class=4, out=out, batch="5", as_json=True) == 0
    capsys.readouterr()
    execution_told = read_manifest(tmp_path / "release").origin["stages"][0]["execution"]
    assert execution_told == {"batch": 5, "compile": False, "basis": "asked for"}
    build_dataset(str(tiny), per_class=8, out=out, dry_run=True)
    assert "batch: 5; on NVIDIA H100 SXM 80 GB: 8, " in capsys.readouterr().out
    for text in ("none", "0", "4,-1", "1.5", ""):
        with pytest.raises(UserError, match=r"--batch '.*': give a number of images"):
            build_dataset(str(tiny), batch=text)
    with pytest.raises(UserError, match="--batch: of a build"):
        build_dataset(compare=True, res=256, batch="5")


def test_the_share_of_memory_that_is_used_is_the_same_on_every_gpu_of_a_kind() -> None:
    usable = {GpuMemory(80 * GIB, free * GIB).usable for free in (79, 70, 65)}
    assert usable == {batch_and_compile.USED * 80 * GIB}
    assert MemoryNeed(10, 3).most(20) == 3
