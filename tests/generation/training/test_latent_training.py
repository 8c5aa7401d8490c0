"""DiT and SiT on latents of a release, by the commands: in memory, streamed, stopped, sampled."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.encode_command import encode
from builder.release.verify import verify_release
from generation.families import TRAINED, trainable, trained_checkpoint
from generation.finetune_generator import finetune_generator
from generation.training.data.images import ImageBatches, Share, even_batches
from generation.training.data.latents import LatentImages
from generation.training.data.training_set import TrainingSet, Wanted, open_training_set
from release.classes.class_list import load_classes
from release.errors import UserError
from release.files.commit import sha256_file
from release.layout.image_sets import decode
from release.streaming.image_cache import ImageCache
from tests.forked_commands import run_together
from tests.in_process import InProcess
from tests.models.tiny_autoencoders import save_autoencoder
from tests.models.tiny_denoisers import KINDS
from tests.models.tiny_denoisers import tiny_recipe as pixel_recipe
from tests.models.tiny_transformers import FAMILIES, published, tiny_recipe
from tests.recipe_text import as_toml, tiny_build
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

CPU = torch.device("cpu")
TOLD = torch.tensor([0, 1, 2, 3])
SAMPLER = 'steps = 3, guidance = 1.5, threshold = "none"'
METHODS = {"dit": "ddpm", "sit": "euler-maruyama"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ in colour at 16 px with latents tiny and mirrored, vae/, classes.csv and recipes."""
    folder = tmp_path_factory.mktemp("latents")
    parts = [np.stack([paint(i % 4, 20 * part + i, 16, 10) for i in range(20)]) for part in (0, 1)]
    write_release(folder / "real", {"train": parts}, kind="real", dataset="shapes")
    save_autoencoder(folder / "vae")
    with pytest.MonkeyPatch.context() as patch:
        InProcess(patch)
        for name, mirrored in (("tiny", False), ("mirrored", True)):
            options: dict[str, Any] = {"config": "16", "name": name, "mirrored": mirrored}
            encode(str(folder / "real"), str(folder / "vae"), as_json=True, **options)
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    for family in FAMILIES:
        write_recipe(folder, family, family)
        write_recipe(folder, f"{family}-pixels", family, stage={"latents": None, "channels": 3})
        write_recipe(folder, f"{family}-flip", family, training={"flip": True, "accumulation": 2})
    return folder


def write_recipe(folder: Path, name: str, family: str, **changes: Any) -> None:
    recipe = tiny_recipe(family, str(folder / "classes.csv"), **changes)
    (folder / f"{name}.toml").write_text(as_toml(recipe))


def train(
    place: Path, recipe: str, out: str, data: str = "real/latents/tiny", **given: Any
) -> Path:
    options = {"recipe": str(place / f"{recipe}.toml"), "data": str(place / data), "as_json": True}
    finetune_generator(**options | {"out": place / out} | given)
    return place / out / "checkpoint"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "weights.safetensors")


def equal(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def opened(place: Path, name: str = "mirrored", *, held: bool, loaders: int = 0) -> TrainingSet:
    wanted = Wanted(place / "real/latents" / name, "fit", (16,))
    return open_training_set(wanted, 1e9 if held else 0, ImageCache(limit=0), loaders)


# ---------------------------------------------------------------- the data


def test_latents_are_drawn_from_their_posterior_at_the_factor_of_their_autoencoder(
    place: Path,
) -> None:
    images = opened(place, held=True).told(TOLD, 3)
    assert isinstance(images, LatentImages)
    assert images.resident is not None
    images.resident[:, :, 4:] -= 9  # narrow ones, so that a latent tells whose it is
    config = tiny_recipe("sit", training={"batch": 36}).training
    batches = even_batches(images, config, PartialState(cpu=True), flip=True)
    one, again, later = batches.batch(0, 0), batches.batch(0, 0), batches.batch(1, 0)
    assert one.images.shape == (36, 4, 8, 8)
    assert torch.equal(one.images, again.images)
    moments = images.resident.float()
    mean, deviation = moments[:, :, :4], (moments[:, :, 4:] / 2).exp()
    sides = []
    for i in range(36):  # which image a place shows, and whether mirrored: the likeliest posterior
        squares = ((one.images[i] / 0.5 - mean) / deviation).square()
        unlikely = (squares + 2 * deviation.log()).mean(dim=(2, 3, 4))
        row, side = divmod(int(unlikely.argmin()), 2)
        assert float(squares[row, side].mean()) == pytest.approx(1, abs=0.4)  # of normal numbers
        assert int(one.conditions[i]) == int(images.images.labels[row])
        sides.append(side)
    assert 6 < sum(sides) < 30
    assert not torch.equal(one.images.sort(dim=0).values, later.images.sort(dim=0).values)


def test_streamed_latents_are_those_in_memory(place: Path) -> None:
    held, streamed, loaded = (
        opened(place, held=held, loaders=loaders)
        for held, loaders in ((True, 0), (False, 0), (False, 1))
    )
    assert (held.resident, streamed.resident) == (True, False)
    assert held.files_sha256 == streamed.files_sha256
    assert len(held) == held.wanted.count() == 36
    config = tiny_recipe("sit", training={"batch": 12, "accumulation": 2}).training
    found = []
    for images in (held, streamed, loaded):
        batches = even_batches(images.told(TOLD, 3), config, PartialState(cpu=True), flip=True)
        found.append([batches.batch(step, part) for step in range(3) for part in range(2)])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.conditions, other.conditions)


def test_two_processes_draw_the_latents_of_one(place: Path) -> None:
    images = opened(place, held=False).told(TOLD, 3)
    draws = [
        ImageBatches(images, Share(8, 1, process, count), 7, True, CPU).batch(3, 0)
        for process, count in ((0, 1), (0, 2), (1, 2))
    ]
    one, *halves = ((draw.images, draw.conditions, draw.rng.normal(2)) for draw in draws)
    for whole, *parts in zip(one, *halves, strict=True):
        assert torch.equal(whole, torch.cat(parts))


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_train_a_checkpoint_that_a_build_samples(
    family: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 classes of 4 images, in colour, verified; every file's bytes twice."""
    checkpoint = train(place, family, f"{family}-run")
    assert trained_checkpoint(checkpoint).generator == family
    config = json.loads((checkpoint / "network.json").read_text())
    assert config["stage"]["latents"]["scaling_factor"] == 0.5
    assert config["stage"]["latents"]["autoencoder"] == str(place / "vae")
    assert (place / f"{family}-run/samples-000004.png").is_file()
    sampler = f'method = "{METHODS[family]}", {SAMPLER}'
    text = tiny_build(place / "classes.csv", family, checkpoint, sampler)
    (tmp_path / "build.toml").write_text(text)
    recipe = load_recipe(str(tmp_path / "build.toml"))
    classes = load_classes(recipe.classes)
    InProcess(monkeypatch)
    made = []
    for name in ("one", "two"):
        plan = plan_build(recipe, recipe.stages, classes[:3], 4, tmp_path / name, classes)
        outcome = build_release(plan, RunSettings(), lambda _: None)
        assert outcome.manifest is not None
        assert verify_release(plan.release, outcome.manifest, 1, lambda _: None).problems == ()
        files = sorted((tmp_path / name / "16").glob("*.parquet"))
        made.append([file.read_bytes() for file in files])
    assert made[0] == made[1]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    images = [decode(row["image"]["bytes"]) for row in rows]
    assert len({image.tobytes() for image in images}) == 12
    assert any((image[..., 0] != image[..., 1]).any() for image in images)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_that_is_killed_goes_on_to_the_same_weights(
    family: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed after, in memory before; flips, accumulation and dropped classes are on."""
    options = {"data": "real/latents/mirrored", "steps": 5}
    whole = train(place, f"{family}-flip", f"{family}-whole", **options)
    from generation.training.run import TrainingRun

    keep = TrainingRun.save

    def stopping(self: TrainingRun, snapshot: Any) -> None:
        keep(self, snapshot)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(place, f"{family}-flip", f"{family}-stopped", **options)
    assert not (place / f"{family}-stopped/checkpoint").exists()
    resumed = train(
        place, f"{family}-flip", f"{family}-stopped", resident_gb=0, loaders=0, **options
    )
    assert equal(whole, resumed)
    further = train(place, f"{family}-flip", f"{family}-on", start=str(whole), **options)
    assert not equal(whole, further)


def test_two_processes_train_together_on_latents(place: Path) -> None:
    """As one of them does, but for what their gradients' sum rounds; their weights are shards."""
    data, sharded = "real/latents/mirrored", {"flip": True, "sharding": "full"}
    write_recipe(place, "sit-sharded", "sit", training=sharded)
    write_recipe(place, "sit-whole", "sit", training={"flip": True})
    alone = train(place, "sit-whole", "alone", data=data, steps=2)
    options = ["--recipe", place / "sit-sharded.toml", "--data", place / data, "--json"]
    options += ["--out", place / "together", "--steps", "2", "--resident-gb", "0"]
    ended = run_together("generation.finetune_generator", *options)
    assert ended.returncode == 0, ended.stderr
    both, one = weights(place / "together/checkpoint"), weights(alone)
    for name, weight in one.items():
        torch.testing.assert_close(both[name], weight, atol=2e-3, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_train_the_same_network(family: str, place: Path) -> None:
    checkpoint = train(place, f"{family}-pixels", f"{family}-pixels-run", data="real")
    assert json.loads((checkpoint / "network.json").read_text())["stage"]["latents"] is None


# ---------------------------------------------------------------- starts


def published_start(folder: Path, classes: int) -> tuple[Path, dict[str, torch.Tensor]]:
    """A network of one block for 8 x 8 latents, as its authors save one."""
    made = published(side=8, classes=classes + 1, depth=1)
    torch.save(made.state, folder / "start.pt")
    return folder / "start.pt", made.network.state_dict()


WIDE = {"width": 384, "depth": 1, "heads": 6}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_starts_from_the_authors_file(family: str, place: Path, tmp_path: Path) -> None:
    file, state = published_start(tmp_path, classes=4)
    recipe = tiny_recipe(family, str(place / "classes.csv"), network=WIDE)
    network = trainable(family).starting_network(recipe, str(file))
    for name, tensor in network.body.state_dict().items():
        assert torch.equal(tensor, state[name])
    (place / f"{family}-wide.toml").write_text(as_toml(recipe))
    checkpoint = train(place, f"{family}-wide", f"{family}-started", start=str(file), steps=1)
    record = json.loads((checkpoint / "training.json").read_text())
    assert record["start_sha256"] == sha256_file(file)


def test_other_classes_than_the_starts_are_a_choice(place: Path, tmp_path: Path) -> None:
    file, state = published_start(tmp_path, classes=10)
    classes = str(place / "classes.csv")
    family, recipe = trainable("sit"), tiny_recipe("sit", classes, network=WIDE)
    with pytest.raises(UserError, match=r"knows 10 classes, .* has 4: set classes_embedding"):
        family.with_start(recipe, str(file))
    chosen = tiny_recipe("sit", classes, network=WIDE, training={"classes_embedding": "new"})
    assert family.with_start(chosen, str(file)) == chosen
    one, again = (family.starting_network(chosen, str(file)).body for _ in range(2))
    assert one.classes.weight.shape == (5, 384)
    assert torch.equal(one.classes.weight, again.classes.weight)
    assert torch.equal(one.time.first.weight, state["time.first.weight"])
    deep = tiny_recipe("sit", classes, network=WIDE | {"depth": 2})
    with pytest.raises(UserError, match="has depth 1, its network 2"):
        family.with_start(deep, str(file))
    with pytest.raises(UserError, match=r"gone\.pt is not on this machine"):
        family.with_start(recipe, "gone.pt")
    assert family.planned(recipe, "gone.pt") == recipe


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("recipe", "data", "message"),
    [
        ("dit", "real", "holds images, and the recipe tiny learns from latents"),
        (
            "sit-pixels",
            "real/latents/tiny",
            "holds latents, and the recipe tiny learns from pixels",
        ),
        ("dit-flip", "real/latents/tiny", "has no latents of mirrored images"),
        ("dit-wide", "real/latents/tiny", r"of channels 4, the recipe's \[stage.latents\] 8"),
        ("dit-other", "real/latents/tiny", r"of scaling_factor 0.5, the recipe's .* 0.25"),
        ("rin", "real/latents/tiny", "holds latents, which rin does not learn from"),
    ],
)
def test_data_of_another_kind_is_refused_before_anything_is_written(
    recipe: str, data: str, message: str, place: Path
) -> None:
    latents = {"channels": 4, "side": 8}
    write_recipe(place, "dit-wide", "dit", stage={"latents": latents | {"channels": 8}})
    write_recipe(place, "dit-other", "dit", stage={"latents": latents | {"scaling_factor": 0.25}})
    assert "rin" in KINDS
    (place / "rin.toml").write_text(as_toml(pixel_recipe("rin", str(place / "classes.csv"))))
    with pytest.raises(UserError, match=message):
        train(place, recipe, "nowhere", data=data)
    assert not (place / "nowhere").exists()


def test_those_that_learn_from_latents_say_so() -> None:
    found = {name for name in TRAINED if getattr(trainable(name), "LATENTS", False)}
    assert found == {*FAMILIES, "diffusers", "ldm"}


def test_damaged_moments_are_named(place: Path) -> None:
    images = opened(place, held=False).told(TOLD, 3)
    assert isinstance(images, LatentImages)
    other = LatentImages(replace(images.latents, channels=5), images.images, images.told)
    with pytest.raises(UserError, match=r"image train-.*: its moments have \d+ bytes, not"):
        other.moments([0])
