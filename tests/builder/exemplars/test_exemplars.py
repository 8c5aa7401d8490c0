"""A first stage that begins from real images: which, how noised, and what is recorded of it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from builder.builds.build import BuildPlan, build_release, plan_build
from builder.builds.planned import planned_release
from builder.builds.run import RunSettings
from builder.exemplars.images import ExemplarImages, open_exemplars
from builder.exemplars.located import locate_exemplars
from builder.exemplars.recipe import ExemplarRecipe
from builder.planning.recipe import Recipe, load_recipe
from builder.release.repair import extension_plan
from builder.release.reproduce import Release
from builder.release.verify import verify_release
from builder.shards.shard import COLUMNS
from cards.card.facts import limits
from generation.diffusion.noise import image_noise
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families import exemplar_source, generator_source
from generation.families.pixel_unet.checkpoint import load_checkpoint, save_checkpoint
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.sampling import guided_denoiser
from generation.generator import Exemplars, ImageBatch
from metrics.selection.selection import require_tuning_unseen
from release.classes.class_list import ClassEntry, load_classes
from release.errors import UserError
from release.files.commit import sha256_file
from release.layout.image_sets import LabelledImages
from release.layout.manifest import Manifest, ShardRecord, read_manifest
from tests.builder.imports.serial_import import SerialImport
from tests.forked_commands import run
from tests.in_process import InProcess
from tests.models.tiny_network import tiny_network
from tests.sets.shapes import write_release

PROMPTS = ("apple", "pear", "plum", "")
NAMES = [f"c{i}" for i in range(3)]
CLASSES = tuple(
    ClassEntry(i, f"c{i}", name.title(), name) for i, name in enumerate(("apple", "pear", "plum"))
)
RECIPE = """
name = "begun"
description = "Begun from real images"
classes = "{classes}"
dataset = "test"
regime = "C"
license = "other"

[shard]
classes = 2
indices = 3

[[stage]]
resolution = 8
generator = "pixel-unet"
checkpoint = "{folder}/{network}"
batch = 4
sampler_source = "by hand"
sampler = {{ method = "ddim", steps = 10, eta = 0.5 }}
model = {{ name = "Tiny", license = "made-up", images = "For tests.", source = "a test" }}

[stage.exemplars]
release = "{folder}/{real}"
per_class = 2
strength = 0.7
"""


def real_images(seed: int, grey: bool, count: int = 24) -> LabelledImages:
    """Random pixels, of ids whose order is neither that of rows nor of labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 1 if grey else 3), dtype=np.uint8)
    return LabelledImages(
        images=np.repeat(images, 3, axis=3) if grey else images,
        labels=np.arange(count) % 3,
        image_ids=tuple(f"train-{(i * 7) % count:03d}" for i in range(count)),
        class_ids=tuple(NAMES),
        class_names=("Apple", "Pear", "Plum"),
    )


def write_real(folder: Path, images: LabelledImages, **settings: Any) -> str:
    """A release of real images of 8 px, of which every fifth is tuning; its path."""
    settings = {"classes": CLASSES, "configs": ("8",)} | settings
    return str(write_release(folder, {"train": images}, **settings))


def save(folder: Path, **stage: Any) -> None:
    network = tiny_network(**{"prompts": PROMPTS} | stage)
    torch.manual_seed(1)
    for parameter in network.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_checkpoint(network, folder, torch.float16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, class_list: Path) -> Path:
    """A network of colour and one of grey images, a release of each, and a recipe of each."""
    folder = tmp_path_factory.mktemp("exemplars")
    for name, channels in (("colour", 3), ("grey", 1)):
        save(folder / name, channels=channels)
        images = real_images(3, grey=channels == 1)
        write_real(folder / f"{name}-real", images)
        text = RECIPE.format(classes=class_list, folder=folder, network=name, real=f"{name}-real")
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    """As in a new worker."""
    open_exemplars.cache_clear()
    yield
    open_exemplars.cache_clear()


def recipe_of(folder: Path, name: str = "colour") -> Recipe:
    return load_recipe(str(folder / f"{name}.toml"))


def planned(recipe: Recipe, release: Path, per_class: int = 5) -> BuildPlan:
    return plan_build(recipe, recipe.stages, load_classes(recipe.classes), per_class, release)


def built(plan: BuildPlan) -> Manifest:
    outcome = build_release(plan, RunSettings(), lambda _: None)
    assert outcome.manifest is not None
    return outcome.manifest


def rows_of(release: Path) -> list[dict[str, Any]]:
    return [
        row
        for f in sorted((release / "8").glob("*.parquet"))
        for row in pq.read_table(f).to_pylist()
    ]


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """With other exemplars."""
    (stage,) = recipe.stages
    assert stage.exemplars is not None
    content = stage.exemplars.model_dump() | changes
    other = stage.model_copy(update={"exemplars": ExemplarRecipe.model_validate(content)})
    return recipe.model_copy(update={"stages": (other,)})


def first_by_id(real: Path, wnid: str, split: str = "fit") -> list[str]:
    """Read without the project: all ids of a class, of train less the tuning rows."""
    rows = [row for f in (real / "8").glob("train*") for row in pq.read_table(f).to_pylist()]
    kept = [r for r in rows if split == "train" or not r["tuning"]]
    return sorted(r["image_id"] for r in kept if NAMES[r["label"]] == wnid)


@pytest.mark.parametrize("name", ["colour", "grey"])
def test_rows_name_what_they_began_from_and_are_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    InProcess(monkeypatch)
    release = tmp_path / "release"
    manifest = built(planned(recipe_of(folder, name), release))
    rows = rows_of(release)
    assert set(rows[0]) == {"image", "label", "exemplar_image_id", *COLUMNS}
    assert len(rows) == 15
    real = folder / f"{name}-real"
    for row in rows:
        assert row["exemplar_image_id"] == first_by_id(real, row["class_id"])[row["index"] % 2]
    (stage,) = manifest.origin["stages"]
    assert stage["exemplars"] == {
        "release": str(real),
        "sha256": read_manifest(real).content_sha256,
        "config": "8",
        "split": "fit",
        "per_class": 2,
        "strength": 0.7,
    }
    assert verify_release(release, manifest, 1, lambda _: None).problems == ()
    again = Release(release, manifest)
    found = list(again.reproduce(again.draw(5, 0, last_stage=True)))
    assert [one.same_bytes for one in found] == [True] * 5


def reference(
    network: Any, real: np.ndarray, seeds: list[int], steps: list[int], schedule_steps: int = 100
) -> np.ndarray:
    """DDIM with eta 0 written out, from x_t of `real` at the first of `steps`."""
    table = NoiseSchedule(ScheduleConfig(num_steps=schedule_steps)).alphas_cumprod
    noise = next(image_noise(seeds, (3, 8, 8))).astype(np.float64)
    x0 = real.astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1
    x = table[steps[0]] ** 0.5 * x0 + (1 - table[steps[0]]) ** 0.5 * noise
    for t, after in zip(steps, [*(table[s] for s in steps[1:]), 1.0], strict=True):
        with torch.inference_mode():
            v = network(torch.from_numpy(x).float(), t)[0].double().numpy()
        now = table[t]
        x0 = (now**0.5 * x - (1 - now) ** 0.5 * v).clip(-1, 1)
        eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
        x = after**0.5 * x0 + (1 - after) ** 0.5 * eps
    return np.rint((x.transpose(0, 2, 3, 1) + 1) * 127.5).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("strength", "steps"), [(0.7, [66, 55, 44, 33, 22, 11, 0]), (0.04, [0]), (0.25, [11, 0])]
)
def test_an_image_is_sampled_from_its_exemplar_at_the_first_step_made(
    folder: Path, strength: float, steps: list[int]
) -> None:
    (stage,) = recipe_of(folder).stages
    settings = stage.sampler.model_copy(update={"eta": 0.0})
    real = real_images(5, grey=False, count=3).images
    batch = ImageBatch(["pear"] * 3, [1] * 3, [5, 6, 7], None, 8, Exemplars(real, strength))
    generator = generator_source("pixel-unet").load(folder / "colour", compiled=False)
    found = np.asarray(generator.sample(batch, settings))
    network = load_checkpoint(folder / "colour")
    calls: list[int] = []
    told = guided_denoiser(network, network.conditions(["pear"] * 3), 1.0, None, 0.0)

    def counted(x: torch.Tensor, t: int) -> Any:
        calls.append(t)
        return told(x, t)

    wanted = reference(counted, real, [5, 6, 7], steps)
    assert calls == steps
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1


def test_as_many_network_calls_as_steps_are_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[torch.Size] = []
    forward = PixelUNet.forward

    def counted(self: PixelUNet, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(x.shape)
        return forward(self, x, *rest)

    (stage,) = recipe_of(folder).stages
    real = real_images(5, grey=False, count=3).images
    generator = generator_source("pixel-unet").load(folder / "colour", compiled=False)
    monkeypatch.setattr(PixelUNet, "forward", counted)
    for strength, made in ((0.7, 7), (1.0, 10), (0.01, 1)):
        calls.clear()
        begun = Exemplars(real, strength)
        generator.sample(
            ImageBatch(["pear"] * 3, [1] * 3, [5, 6, 7], None, 8, begun), stage.sampler
        )
        assert len(calls) == made
        asked = changed(recipe_of(folder), strength=strength).stages[0]
        assert asked.counted_sampler.network_evaluations == made
    assert stage.model_copy(update={"exemplars": None}).counted_sampler is stage.sampler


def test_the_fingerprint_says_all_that_decides_and_not_where_it_lies(
    folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(folder)
    (stage,) = recipe.stages
    alone = recipe.model_copy(update={"stages": (stage.model_copy(update={"exemplars": None}),)})
    assert "exemplars" not in alone.stages[0].model_dump(mode="json")
    moved = tmp_path / "moved"
    shutil.copytree(folder / "colour-real", moved)
    other = write_real(tmp_path / "other", real_images(4, grey=False))

    def fingerprint(one: Recipe) -> str:
        return planned(one, tmp_path / "release").stages[0].fingerprint

    before = fingerprint(recipe)
    assert fingerprint(changed(recipe, release=str(moved), config="8", split="fit")) == before
    found = {
        fingerprint(changed(recipe, **one))
        for one in (
            *({"strength": 0.6}, {"per_class": 3}, {"split": "train"}),
            {"release": other},
        )
    }
    assert len(found | {before, fingerprint(alone)}) == 6


def content_of(release: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (release / "8").iterdir()}


def test_the_same_bytes_after_a_kill_from_two_workers_and_in_two_goes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(folder)
    for workers in (1, 2):
        command = ["build-dataset", "--recipe", folder / "colour.toml", "--per-class", "5"]
        command += ["--workers", str(workers), "--out", tmp_path / f"workers-{workers}"]
        result = run(command)
        assert result.returncode == 0, result.stderr
    whole = content_of(tmp_path / "workers-1")
    assert len(whole) == 4
    assert content_of(tmp_path / "workers-2") == whole
    process = InProcess(monkeypatch)
    process.left = 2
    with pytest.raises(KeyboardInterrupt):
        built(planned(recipe, tmp_path / "killed"))
    open_exemplars.cache_clear()
    process.left = float("inf")
    built(planned(recipe, tmp_path / "killed"))
    assert content_of(tmp_path / "killed") == whole
    manifest = built(planned(recipe, tmp_path / "grown", per_class=3))
    grown = built(extension_plan(tmp_path / "grown", manifest, 5))
    assert content_of(tmp_path / "grown") == whole
    assert grown.content_sha256 == read_manifest(tmp_path / "workers-1").content_sha256


def test_exemplars_are_read_once_by_a_worker(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    plan = planned(recipe_of(folder), tmp_path / "release")
    opened: list[int] = []
    read: list[int] = []
    open_ = ExemplarImages.open.__func__  # type: ignore[attr-defined]

    def counted_open(cls: Any, located: Any) -> ExemplarImages:
        found: ExemplarImages = open_(cls, located)
        opened.append(1)
        reading = found.images.read
        object.__setattr__(found.images, "read", lambda rows: (read.extend(rows), reading(rows))[1])
        return found

    monkeypatch.setattr(ExemplarImages, "open", classmethod(counted_open))
    built(plan)
    assert len(opened) == 1  # of four shards and eight batches
    assert sorted(read) == list(range(6))


def test_of_a_release_with_an_index_only_the_exemplars_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for wnid in NAMES:
        for i in range(9):
            path = tmp_path / "photos" / "train" / wnid / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    SerialImport(monkeypatch)(tmp_path / "photos", tmp_path / "real")
    (file,) = (tmp_path / "real" / "8").glob("train*")
    rows = sorted(pq.read_table(file).to_pylist(), key=lambda row: row["image_id"])
    kept = [row for row in rows if not row["tuning"]]
    asked = ExemplarRecipe(release=str(tmp_path / "real"), per_class=2, strength=0.5)
    located = locate_exemplars(asked, 8, NAMES)
    wanted = {wnid: [row for row in kept if row["class_id"] == wnid] for wnid in NAMES}
    content = bytearray(file.read_bytes())
    for row in kept:  # all others are damaged, which only who reads them sees
        if row not in [one for of in wanted.values() for one in of[:2]]:
            place = content.index(row["image"]["bytes"])
            content[place : place + 8] = b"damaged!"
    file.write_bytes(content)
    images = ExemplarImages.open(located)
    images.require_enough(NAMES)
    images.require_fit(8, 3)
    slots = [(wnid, index) for index in range(5) for wnid in NAMES]
    for (wnid, index), found in zip(slots, images.of(slots), strict=True):
        row = wanted[wnid][index % 2]
        assert (found.image_id, found.content) == (row["image_id"], row["image"]["bytes"])
    assert images.ids_of(slots) == [one.image_id for one in images.of(slots)]
    damaged = ExemplarImages.open(
        locate_exemplars(asked.model_copy(update={"per_class": 3}), 8, NAMES)
    )
    with pytest.raises(UserError, match="is not the image that the index of its release lists"):
        damaged.require_fit(8, 3)


def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_made(
    folder: Path, tmp_path: Path
) -> None:
    recipe, grey = recipe_of(folder), recipe_of(folder, "grey")
    real = f"{folder}/colour-real"
    other = (*CLASSES[:2], ClassEntry(2, "c9", "Fig", "fig"))
    images = real_images(1, grey=False)
    made = write_real(tmp_path / "made", images, kind="synthetic")
    wide = write_real(tmp_path / "wide", images, configs=("8", "other"))
    bad: list[tuple[Recipe, str]] = [
        (changed(recipe, release="no/such"), "no/such is not a finished release"),
        (changed(recipe, config="32"), "unknown configuration of .*'32'; known: 8"),
        (changed(recipe, release=made), "made holds generated images; exemplars are real images"),
        (changed(recipe, per_class=8), "has . images of class 'c.', and per_class is 8"),
        (changed(recipe, sha256="0" * 64), "colour-real is not the one that is wanted"),
        (changed(grey, release=real), r"in colour, and the stage's checkpoint is grey"),
        (
            changed(recipe, release=write_real(tmp_path / "f", images, classes=other)),
            "different class lists: label 2 is 'c2' and 'c9'",
        ),
        (
            changed(recipe, release=write_real(tmp_path / "l", larger(images))),
            "is 16 x 16 px, and the stage makes 8 px",
        ),
    ]
    for one, problem in bad:
        with pytest.raises(UserError, match=problem) as error:
            planned(one, tmp_path / "release")
        assert "\n" not in str(error.value)
    assert planned(changed(recipe, release=wide, config="other"), tmp_path / "release")
    assert not (tmp_path / "release").exists()


def larger(images: LabelledImages) -> LabelledImages:
    return replace(images, images=images.images.repeat(2, axis=1).repeat(2, axis=2))


LATER = """
[[stage]]
resolution = 16
generator = "pixel-unet"
checkpoint = "elsewhere"

[stage.exemplars]
release = "r"
per_class = 2
strength = 0.5
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("strength = 0.7", "strength = 0", "exemplars.strength: Input should be greater than 0"),
        ("strength = 0.7", "strength = 1.1", "exemplars.strength: .*less than or equal to 1"),
        ("strength = 0.7", "strength = nan", "exemplars.strength"),
        ("per_class = 2", "per_class = 0", "exemplars.per_class: .*greater than 0"),
        ("per_class = 2", 'per_class = 2\nsplit = "test"', "'train' or 'fit', not 'test'"),
        ("per_class = 2", 'per_class = 2\nsplit = "tuning"', "'train' or 'fit', not 'tuning'"),
        ("per_class = 2", "per_class = 2\nsteps = 3", "unknown setting 'steps'; known: config"),
        ('regime = "C"', 'regime = "B"', 'at 8 px begins from real images: set regime = "C"'),
        ('"ddim", steps = 10, eta = 0.5', '"euler", steps = 3', "ddpm, ddim, dpm-solver.., not"),
        ("strength = 0.7", "strength = 0.7\n" + LATER, "at 16 px: only a first stage begins from"),
    ],
)
def test_what_a_recipe_may_not_say(
    folder: Path, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    text = (folder / "colour.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=problem) as error:
        load_recipe(str(tmp_path / "bad.toml"))
    assert "\n" not in str(error.value)


def test_another_generator_lists_those_that_take_exemplars() -> None:
    able = r"pixel-unet, rin, simple-diffusion"
    for name in ("biggan", "diffusers", "dit", "ldm", "sr3"):
        refusal = rf"^generator {name} takes no \[stage.exemplars\]; those that do: adm, .*{able}"
        with pytest.raises(UserError, match=refusal):
            exemplar_source(name)


def test_selection_refuses_exemplars_that_may_be_tuning_images(folder: Path) -> None:
    require_tuning_unseen(recipe_of(folder).stages)
    with pytest.raises(UserError, match="8 px, of split 'train', may be tuning images"):
        require_tuning_unseen(changed(recipe_of(folder), split="train").stages)


def test_a_release_that_changed_is_refused_by_growing_repairing_and_making_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    real = tmp_path / "real"
    shutil.copytree(folder / "colour-real", real)
    recipe = changed(recipe_of(folder), release=str(real))
    plan = planned(recipe, tmp_path / "release")
    shutil.rmtree(real)
    write_real(real, real_images(9, grey=False))
    with pytest.raises(UserError, match="real is not the one that is wanted: its content is"):
        plan.jobs()[0].run()
    assert not list(tmp_path.glob("release/8/*"))
    shutil.rmtree(real)
    shutil.copytree(folder / "colour-real", real)
    manifest = built(planned(recipe, tmp_path / "release"))
    shutil.rmtree(real)
    write_real(real, real_images(9, grey=False))
    open_exemplars.cache_clear()
    with pytest.raises(UserError, match=r"stage 8: exemplars\.release was .*, is "):
        extension_plan(tmp_path / "release", manifest, 6)
    release = Release(tmp_path / "release", manifest)
    with pytest.raises(UserError, match="real is not the one that is wanted"):
        list(release.reproduce(release.draw(1, 0, last_stage=True)))
    shutil.rmtree(real)
    with pytest.raises(UserError, match="is not a finished release"):
        extension_plan(tmp_path / "release", manifest, 6)


def rewritten(release: Path, manifest: Manifest, ids: dict[str, str]) -> Manifest:
    """With other exemplar ids in the rows, and hashes that fit."""
    records: list[ShardRecord] = []
    for record in manifest.shards:
        path = release / record.path
        table = pq.read_table(path)
        place = table.column_names.index("exemplar_image_id")
        new = [ids.get(one, one) for one in table["exemplar_image_id"].to_pylist()]
        table = table.set_column(place, table.schema.field(place), pa.array(new))
        pq.write_table(table, path)
        size, digest = path.stat().st_size, sha256_file(path)
        records.append(replace(record, bytes=size, sha256=digest))
    changed_manifest = replace(manifest, shards=tuple(records))
    changed_manifest.write(release)
    return changed_manifest


@pytest.mark.parametrize("at_hand", [True, False])
def test_verify_finds_a_row_that_names_another_exemplar(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_hand: bool
) -> None:
    InProcess(monkeypatch)
    real = tmp_path / "real"
    shutil.copytree(folder / "colour-real", real)
    recipe = changed(recipe_of(folder), release=str(real))
    manifest = built(planned(recipe, tmp_path / "release"))
    first, second = first_by_id(real, "c0")[:2]
    if not at_hand:
        shutil.rmtree(real)
    assert verify_release(tmp_path / "release", manifest, 1, lambda _: None).problems == ()
    tampered = rewritten(tmp_path / "release", manifest, {first: second, second: first})
    found = verify_release(tmp_path / "release", tampered, 1, lambda _: None).problems
    wanted = "is not the planned one" if at_hand else "are not the first of each class by id"
    assert any(f"exemplar_image_id {wanted}" in problem.text for problem in found)
    tampered.origin["stages"][0].pop("exemplars")
    with pytest.raises(UserError, match="its recipe and its stage say different things"):
        planned_release(tampered)


def test_card_and_croissant_say_that_images_began_from_real_ones(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "release"
    recipe = folder / "colour.toml"
    for command in (
        ["build-dataset", "--recipe", recipe, "--per-class", "2", "--workers", "1", "--out", out],
        ["render-card", out],
    ):
        result = run(command)
        assert result.returncode == 0, result.stderr
    manifest = read_manifest(out)
    card = (out / "README.md").read_text()
    content = read_manifest(folder / "colour-real").content_sha256
    assert "Sampling begins from real images: of each class the first 2 by id of" in card
    assert f"configuration `8`, split `fit`, content `{content}`" in card
    assert "last\n  70% of the steps" in card
    assert "| `exemplar_image_id` |" in card
    assert "(regime C)" in card
    assert "It shows no person" not in card
    assert limits(manifest)[0].startswith("Every image is generated, and began from a real one")
    document = json.loads((out / "croissant.json").read_text())
    (records,) = [one for one in document["recordSet"] if one["name"] == "8"]
    for derived in (document, records):
        named = json.dumps(derived["prov:wasDerivedFrom"])
        assert f"sha256:{content}" in named
    (column,) = [one for one in records["field"] if one["name"] == "exemplar_image_id"]
    assert column["equivalentProperty"] == "prov:wasDerivedFrom"


def test_a_dry_run_says_what_images_begin_from(folder: Path, tmp_path: Path) -> None:
    command = ["build-dataset", "--recipe", folder / "colour.toml", "--per-class", "2"]
    command += ["--dry-run", "--out", tmp_path / "release"]
    told = run(command)
    assert told.returncode == 0, told.stderr
    assert "ddim, 7 evaluations an image" in told.stdout
    assert f"begins from real images: 2 of each class of {folder}/colour-real, of" in told.stdout
    stages = json.loads(run([*command, "--json"]).stdout)["stages"]
    assert stages[0]["exemplars"]["strength"] == 0.7
    assert stages[0]["network_evaluations"] == 7
    assert not (tmp_path / "release").exists()
