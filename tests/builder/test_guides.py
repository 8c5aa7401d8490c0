"""A stage guided by a second, weaker network: recipe, plan, rows, manifest, cost, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from builder.builds.build import BuildPlan, build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.checkpoints import load_networks
from builder.planning.device_cost import DEFAULT_DEVICE, device_cost
from builder.planning.recipe import Recipe, load_recipe
from builder.release.reproduce import Release
from builder.release.verify import verify_release
from builder.shards.shard import COLUMNS, load_generator
from cards.card.facts import StageFacts
from cards.card.provenance import stage_provenance
from generation.families import generator_source, guided_source
from generation.families.pixel_unet.checkpoint import load_checkpoint, save_checkpoint
from generation.families.pixel_unet.sampling import guided_denoiser
from generation.generator import ImageBatch
from generation.networks.flops import Work
from metrics.selection.selection import require_tuning_unseen
from metrics.selection.sweep import parse_grid, sweep_points
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.in_process import InProcess
from tests.models.tiny_network import tiny_network

PROMPTS = ("apple", "pear", "plum", "")
RECIPE = """
name = "guided"
description = "a network and its guide"
classes = "{classes}"
dataset = "test"
regime = "B"
license = "other"

[[stage]]
resolution = 8
generator = "pixel-unet"
checkpoint = "{folder}/strong"
batch = 3
sampler = {{ method = "ddim", steps = 3, guidance = 1.8 }}

[stage.guide]
checkpoint = "{folder}/weak"
"""


def save(folder: Path, seed: int, **stage: Any) -> None:
    network = tiny_network(**{"prompts": PROMPTS, "channels": 3} | stage)
    torch.manual_seed(seed)
    for parameter in network.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_checkpoint(network, folder, torch.float16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, class_list: Path) -> Path:
    """Two networks and guided.toml, whose stage is guided by the second."""
    folder = tmp_path_factory.mktemp("guides")
    save(folder / "strong", 1)
    save(folder / "weak", 2)
    (folder / "guided.toml").write_text(RECIPE.format(classes=class_list, folder=folder))
    return folder


def recipe_of(folder: Path) -> Recipe:
    return load_recipe(str(folder / "guided.toml"))


def planned(recipe: Recipe, release: Path) -> BuildPlan:
    return plan_build(recipe, recipe.stages, load_classes(recipe.classes), 2, release)


@pytest.fixture
def built(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildPlan:
    InProcess(monkeypatch)
    plan = planned(recipe_of(folder), tmp_path / "release")
    assert build_release(plan, RunSettings(), lambda _: None).manifest is not None
    return plan


def test_rows_and_manifest_name_the_guide_and_images_are_made_again(
    folder: Path, built: BuildPlan
) -> None:
    release = Path(str(built.release))
    hashes = [generator_source("pixel-unet").sha256(folder / name) for name in ("strong", "weak")]
    (file,) = (release / "8").glob("*.parquet")
    table = pq.read_table(file)
    assert set(table.column_names) == {"image", "label", "guide_sha256", *COLUMNS}
    rows = table.to_pylist()
    named = {(row["checkpoint_sha256"], row["guide_sha256"]) for row in rows}
    assert named == {tuple(hashes)}
    manifest = read_manifest(release)
    (stage,) = manifest.origin["stages"]
    assert stage["guide"] == {"checkpoint": f"{folder}/weak", "sha256": hashes[1]}
    assert verify_release(built.release, manifest, 1, lambda _: None).problems == ()
    again = Release(built.release, manifest)
    found = list(again.reproduce([again.find(rows[4]["image_id"])]))
    assert [one.same_bytes for one in found] == [True]


def test_an_image_is_what_both_networks_say(folder: Path) -> None:
    """Against DDIM written out, the noise fixed, in float64 but for the networks."""
    (stage,) = recipe_of(folder).stages
    generator = load_networks(stage, folder / "strong", folder / "weak")
    batch = ImageBatch(["pear"] * 3, [1] * 3, [5, 6, 7], None, 8)
    guided = np.asarray(generator.sample(batch, stage.sampler))
    networks = [load_checkpoint(folder / name) for name in ("strong", "weak")]
    told = networks[0].conditions(["pear"] * 3)
    strong, weak = (guided_denoiser(one, told, 1.0, None, 0.0) for one in networks)
    again = reference(strong, weak, stage.sampler.guidance, batch.seeds)
    assert np.abs(guided.astype(int) - again.astype(int)).max() <= 1
    by_itself = generator_source("pixel-unet").load(folder / "strong", compiled=False)
    assert (guided != np.asarray(by_itself.sample(batch, stage.sampler))).any()


def reference(strong: Any, weak: Any, weight: float, seeds: Any) -> np.ndarray:
    from generation.diffusion.noise import image_noise
    from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig

    table = NoiseSchedule(ScheduleConfig(num_steps=100)).alphas_cumprod
    x = torch.from_numpy(next(image_noise(seeds, (3, 8, 8))))
    steps = [99, 50, 0]
    with torch.inference_mode():
        for t, after in zip(steps, [*(table[s] for s in steps[1:]), 1.0], strict=True):
            said = [one(x, t)[0].double() for one in (strong, weak)]
            v, now = said[1] + weight * (said[0] - said[1]), table[t]
            x0 = (now**0.5 * x - (1 - now) ** 0.5 * v).clamp(-1, 1)
            noise = (x - now**0.5 * x0) / (1 - now) ** 0.5
            x = (after**0.5 * x0 + (1 - after) ** 0.5 * noise).float()
    return np.rint((x.permute(0, 2, 3, 1).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)


def test_the_guide_decides_the_fingerprint_and_none_is_as_before(
    folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(folder)
    (stage,) = recipe.stages
    alone = stage.model_copy(update={"guide": None})
    assert "guide" not in alone.model_dump(mode="json")

    def fingerprint(of: Any) -> str:
        changed = recipe.model_copy(update={"stages": (of,)})
        return planned(changed, tmp_path / "release").stages[0].fingerprint

    itself = stage.guide.model_copy(update={"checkpoint": stage.checkpoint})  # type: ignore[union-attr]
    found = {fingerprint(one) for one in (stage, alone, stage.model_copy(update={"guide": itself}))}
    assert len(found) == 3


def test_a_guide_that_changed_after_planning_is_refused(folder: Path, tmp_path: Path) -> None:
    plan = planned(recipe_of(folder), tmp_path / "release")
    stage = plan.stages[0]
    assert stage.guide is not None
    load_generator.cache_clear()
    with pytest.raises(UserError, match="weak was changed after the build was planned"):
        load_generator(
            stage.recipe,
            plan.checkpoints[0],
            stage.checkpoint_sha256,
            type(stage.guide)(stage.guide.place, "0" * 64),
        )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prediction": "epsilon"}, "has prediction epsilon, the network it is to guide v"),
        ({"schedule": {"name": "linear", "num_steps": 100}}, "has schedule .*linear"),
        ({"channels": 1}, "has channels 1, the network it is to guide 3"),
        ({"low_resolution": 8}, "has resolution 16, the network it is to guide 8"),
        ({"prompts": ("apple", "pear", "")}, "does not know the class 'plum'"),
    ],
)
def test_a_guide_that_does_not_fit_is_one_line(
    folder: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    save(tmp_path / "other", 2, **changes)
    recipe = changed_guide(recipe_of(folder), checkpoint=str(tmp_path / "other"))
    with pytest.raises(UserError, match=f"^guide {tmp_path}/other {problem}") as error:
        planned(recipe, tmp_path / "release")
    assert "\n" not in str(error.value)


def changed_guide(recipe: Recipe, **changes: str) -> Recipe:
    (stage,) = recipe.stages
    assert stage.guide is not None
    guide = stage.guide.model_copy(update=changes)
    return recipe.model_copy(update={"stages": (stage.model_copy(update={"guide": guide}),)})


def test_what_a_recipe_may_not_say_of_a_guide(folder: Path, tmp_path: Path) -> None:
    text = (folder / "guided.toml").read_text()
    (tmp_path / "idle.toml").write_text(text.replace("guidance = 1.8", "guidance = 1.0"))
    with pytest.raises(UserError, match="no effect at guidance 1"):
        load_recipe(str(tmp_path / "idle.toml"))
    with pytest.raises(UserError, match="weak has the wrong hash"):
        planned(changed_guide(recipe_of(folder), sha256="0" * 64), tmp_path / "release")
    with pytest.raises(UserError, match=r"biggan takes no \[stage.guide\]; those that do: .*pixel"):
        guided_source("biggan")


def test_a_sweep_of_the_weight_leaves_the_guide_out_at_one(folder: Path) -> None:
    recipe = recipe_of(folder)
    points = sweep_points(recipe, 8, parse_grid(recipe, 8, "ddim", {"guidance": "1,1.5,2"}))
    stages = [point.recipe.stages[0] for point in points]
    assert [stage.sampler.guidance for stage in stages] == [1, 1.5, 2]
    assert [stage.guide is None for stage in stages] == [True, False, False]
    for stage in stages:
        type(stage).model_validate(stage.model_dump(mode="json"))


def test_tuning_images_that_the_guide_saw_are_refused(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "weak", 2)
    (tmp_path / "weak/training.json").write_text('{"data": {"tuning_left_out": false}}')
    recipe = changed_guide(recipe_of(folder), checkpoint=str(tmp_path / "weak"))
    with pytest.raises(UserError, match="weak was trained on the tuning images"):
        require_tuning_unseen(recipe.stages)


def test_the_cost_is_that_of_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    (stage,) = load_recipe("imagenet-sit-256").stages
    sampler = {"method": "heun", "steps": 10, "guidance": 2.0, "threshold": "none"}
    content = stage.model_dump(mode="json") | {"sampler": sampler}
    guided = type(stage).model_validate(content | {"guide": {"checkpoint": "somebody/else"}})
    assert device_cost(guided, DEFAULT_DEVICE) is None  # nothing is guessed
    works = {stage.checkpoint: Work(8 * 10**12, 10**12), "somebody/else": Work(10**12, 10**12)}
    monkeypatch.setattr(
        "builder.planning.device_cost.work_of", lambda _, checkpoint, __: works[checkpoint]
    )
    cost = device_cost(guided, DEFAULT_DEVICE)
    assert cost is not None
    by_hand = 20 * 8 / (0.4 * 989) + 20 / (0.4 * 989) + 1 / (0.4 * 67)
    assert cost.seconds == pytest.approx(by_hand)
    assert "20 evaluations of 8,000 GFLOPs" in cost.basis
    assert cost.basis.endswith("of the guide 20 evaluations of 1,000 GFLOPs")


def test_provenance_derives_images_from_both_networks(built: BuildPlan) -> None:
    manifest = read_manifest(built.release)
    (made,) = manifest.origin["stages"]
    names = ("resolution", "generator", "checkpoint", "checkpoint_sha256", "sampler", "encoding")
    model = type("Model", (), {"name": "m", "license": "l", "images": "i", "source": "s"})()
    facts = StageFacts(
        **{name: made[name] for name in names},
        sampler_source="by hand",
        model=model,
        regime=None,
        guide=made["guide"],
    )
    found = json.dumps(stage_provenance_of(manifest, facts)["prov:wasDerivedFrom"])
    assert made["guide"]["sha256"] in found
    assert made["checkpoint_sha256"] in found


def stage_provenance_of(manifest: Any, facts: StageFacts) -> dict[str, Any]:
    manifest.origin["environments"] = [{"device": "cpu", "versions": {}}]
    return stage_provenance(manifest, facts, None)
