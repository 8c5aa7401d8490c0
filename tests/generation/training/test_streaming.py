"""Images read as they are needed: the batches of those in memory, the same on any processes."""

import gc
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generation.diffusion.random_numbers import ImageRandom
from generation.finetune_generator import finetune_generator
from generation.training.data.dropout import ImageDropout, with_image_dropout
from generation.training.data.images import ImageBatches, Share, StreamedImages, TrainingImages
from generation.training.data.training_set import TrainingSet, Wanted, open_training_set
from release.errors import UserError
from release.files.storage import release_path
from release.layout.image_sets import LabelledImages
from release.streaming.image_cache import ImageCache
from tests.forked_commands import run
from tests.models.tiny_network import SHAPE
from tests.servers.faulty_store import BUCKET, FaultyStore
from tests.sets import small_releases
from tests.sets.shapes import CLASSES, write_release

CPU = torch.device("cpu")
TOLD = torch.tensor([0, 1, 0, 1, 0, 1])  # of each class of the release
COUNT = 36


def images(side: int, seed: int) -> LabelledImages:
    """In colour, every pixel another."""
    pixels = np.random.default_rng(seed).integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8)
    ids = tuple(f"i{number:03d}" for number in np.random.default_rng(3).permutation(COUNT))
    wnids = tuple(entry.wnid for entry in CLASSES)
    return LabelledImages(pixels, np.arange(COUNT) % len(CLASSES), ids, wnids, wnids)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 px images and their parents of 4 px, in the files of a real release."""
    folder = tmp_path_factory.mktemp("streaming") / "real"
    write_release(folder, {"train": images(4, 0)}, configs=("4",))
    parents = (folder / "manifest.json").read_text()
    write_release(folder, {"train": images(8, 1)}, configs=("8",))
    both = json.loads((folder / "manifest.json").read_text())
    both["shards"] += json.loads(parents)["shards"]
    (folder / "manifest.json").write_text(json.dumps(both))
    return folder


def opened(release: Any, resident: bool, loaders: int | None = 0, **wanted: Any) -> TrainingSet:
    chosen = Wanted(release, **{"split": "train", "sides": (8, 4)} | wanted)
    return open_training_set(chosen, 1e9 if resident else 0, ImageCache(limit=0), loaders)


def told(images: TrainingSet, channels: int = 3) -> TrainingImages | StreamedImages:
    return images.told(TOLD, channels)


def batches(data: Any, share: Share, flip: bool = True, updates: int = 1) -> ImageBatches:
    return ImageBatches(data, share, 7, flip, CPU, updates)


def tensors(source: ImageBatches, steps: range, parts: int) -> list[list[Tensor]]:
    """All that is drawn, part after part."""
    found = []
    for step in steps:
        for part in range(parts):
            drawn = source.batch(step, part)
            assert drawn.parents is not None
            noise = drawn.rng.normal(2)
            found.append([drawn.images, drawn.parents, drawn.conditions, noise])
    return found


def assert_equal(one: list[list[Tensor]], other: list[list[Tensor]]) -> None:
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------- the same batches


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wanted", [{}, {"split": "fit"}, {"per_class": 3}])
def test_streamed_batches_are_those_in_memory(
    release: Path, channels: int, wanted: dict[str, Any]
) -> None:
    resident, streamed = (opened(release, memory, **wanted) for memory in (True, False))
    assert (resident.resident, streamed.resident) == (True, False)
    assert len(resident) == len(streamed) == resident.wanted.count()
    assert resident.files_sha256 == streamed.files_sha256
    share = Share(10, 2)
    one, other = (batches(told(s, channels), share) for s in (resident, streamed))
    assert_equal(tensors(one, range(6), 2), tensors(other, range(6), 2))
    for condition in (0, 1):
        parents = [told(s, channels).parent_of(condition) for s in (resident, streamed)]
        assert torch.equal(*parents)


def test_processes_that_decode_make_the_same_batches_and_end_with_them(release: Path) -> None:
    share = Share(12, 2)
    here = batches(told(opened(release, False)), share)
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        ahead = batches(told(opened(release, False, loaders=2)), share)
        assert_equal(tensors(ahead, range(4, 8), 2), tensors(here, range(4, 8), 2))
        assert len(set(multiprocessing.active_children()) - before) == 2
        del ahead
        assert not set(multiprocessing.active_children()) - before
    finally:
        gc.enable()


def test_a_release_behind_a_url_makes_the_same_batches(
    release: Path, store: FaultyStore, tmp_path: Path
) -> None:
    place = f"{BUCKET}/streaming"
    store.files.put(f"{release}/", f"{place}/", recursive=True)
    wanted = Wanted(release_path(f"s3://{place}"), "fit", (8, 4))
    remote = open_training_set(wanted, 0, ImageCache(tmp_path / "cache"), 0)
    local = opened(release, False, split="fit")
    assert remote.files_sha256 == local.files_sha256
    share = Share(10)
    assert_equal(*(tensors(batches(told(s), share), range(3), 1) for s in (remote, local)))


@pytest.mark.parametrize(("processes", "parts"), [(1, 4), (2, 1), (2, 2), (4, 1), (4, 3)])
def test_processes_and_parts_share_one_global_batch(
    release: Path, processes: int, parts: int
) -> None:
    data, steps = told(opened(release, True)), range(4, 7)
    alone = tensors(batches(data, Share(24)), steps, 1)
    shares = [Share(24, parts, process, processes) for process in range(processes)]
    found = [tensors(batches(data, share), steps, parts) for share in shares]
    for number, whole in enumerate(alone):
        own = [f for one in found for f in one[number * parts : (number + 1) * parts]]
        joined = [torch.cat(kind) for kind in zip(*own, strict=True)]
        assert_equal([joined], [whole])


def test_every_image_is_seen_once_an_epoch_in_another_order(release: Path) -> None:
    data = told(opened(release, True))
    numbered = replace(data, conditions=torch.arange(COUNT))
    source = batches(numbered, Share(8), flip=False)
    seen = torch.cat([source.batch(step, 0).conditions for step in range(9)])  # two epochs
    epochs = seen.view(2, COUNT)
    assert all(sorted(epoch.tolist()) == list(range(COUNT)) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0], torch.arange(COUNT))
    again = batches(numbered, Share(8), flip=False)
    middle = torch.cat([again.batch(step, 0).conditions for step in (3, 4, 5)])  # an epoch ends
    assert torch.equal(middle, seen[24:48])


def test_each_update_of_a_step_has_a_batch_of_its_own(release: Path) -> None:
    numbered = replace(told(opened(release, True)), conditions=torch.arange(COUNT))
    source = batches(numbered, Share(6, 2), updates=2)
    seen = [source.batch(step, part).conditions for step in (0, 1) for part in range(4)]
    assert len(set(torch.cat(seen).tolist())) == 24


# ---------------------------------------------------------------- what is refused, and colour


def test_an_image_of_another_size_or_of_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    data = images(8, 1)
    small = b"not an image"
    encoded = [small] * COUNT
    write_release(folder, {"train": data}, configs=("8",), encoded={"train": encoded})
    with pytest.raises(UserError, match="image i000: cannot be decoded"):
        told(opened(folder, False, sides=(8,))).decode([0])
    write_release(folder, {"train": images(6, 1)}, configs=("8",))
    with pytest.raises(UserError, match="image i002: is 6 x 6, not 8 x 8"):
        told(opened(folder, False, sides=(8,))).decode([2])


def test_sides_with_other_ids_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write_release(folder, {"train": images(8, 1)}, configs=("8",))
    first = json.loads((folder / "manifest.json").read_text())
    other = replace(images(4, 1), image_ids=tuple(f"j{i}" for i in range(COUNT)))
    write_release(folder, {"train": other}, configs=("4",))
    second = json.loads((folder / "manifest.json").read_text())
    second["shards"] += first["shards"]
    (folder / "manifest.json").write_text(json.dumps(second))
    for resident in (True, False):
        with pytest.raises(UserError, match="configurations 4 and 8 differ in ids"):
            opened(folder, resident)


def test_colour_is_found_in_what_is_not_in_memory(release: Path, tmp_path: Path) -> None:
    assert opened(release, False).in_colour() == opened(release, True).in_colour() == COUNT
    grey = images(8, 1)
    grey = replace(grey, images=np.repeat(grey.images[..., :1], 3, axis=3))
    grey.images[30] = np.arange(3)
    write_release(tmp_path / "grey", {"train": grey}, configs=("8",))
    for resident in (True, False):
        assert opened(tmp_path / "grey", resident, sides=(8,)).in_colour() == 1


RECIPE = """
name = "tiny"
description = "8 px from 4 px"
classes = "{classes}"

[stage]
resolution = 8
low_resolution = 4
conditioning = "class"

[network]
{network}

[training]
steps = 2
batch = 6
warmup = 1
save_every = 2
"""


def test_the_command_trains_alike_on_images_in_memory_and_on_streamed_ones(
    release: Path, tmp_path: Path
) -> None:
    lines = [f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES]
    (tmp_path / "classes.csv").write_text("\n".join(["id,wnid,name,prompt", *lines]) + "\n")
    network = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SHAPE.items())
    text = RECIPE.format(classes=tmp_path / "classes.csv", network=network)
    (tmp_path / "tiny.toml").write_text(text)
    for name, options in (("memory", {}), ("streamed", {"resident_gb": 0.0, "loaders": 0})):
        finetune_generator(
            **{"recipe": str(tmp_path / "tiny.toml"), "data": str(release), "as_json": True},
            out=tmp_path / name,
            **options,
        )
    files = {path.name for path in (tmp_path / "memory/checkpoint").iterdir()}
    assert {"training.json", "diffusion_pytorch_model.safetensors", "loss.csv"} <= files
    for file in files:
        one, other = (tmp_path / name / "checkpoint" / file for name in ("memory", "streamed"))
        assert one.read_bytes() == other.read_bytes(), file
    record = json.loads((tmp_path / "memory/training.json").read_text())
    assert record["recipe"]["stage"]["channels"] == 3  # as the images have


def test_images_that_were_compressed_once_more_are_read_in_memory_alone(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 8, 3), np.uint8)
    small_releases.write_release(tmp_path / "r", {"train": [pixels]}, kind="real")
    assert opened(tmp_path / "r", True, sides=(8,)).resident
    with pytest.raises(UserError, match="compressed by Parquet once more"):
        opened(tmp_path / "r", False, sides=(8,))


# ---------------------------------------------------------------- dropout


def dropping() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.3))
    network = nn.Sequential(inner, nn.Dropout(0.5), nn.Linear(64, 4), nn.Dropout(0.0)).train()
    with_image_dropout(network)
    return network


@pytest.fixture
def _no_images() -> Iterator[None]:
    yield
    ImageDropout.rng = None


@pytest.mark.usefixtures("_no_images")
def test_dropout_follows_the_image_and_not_the_batch() -> None:
    network = dropping()
    x = torch.ones(8, 6)

    def out(places: Tensor, step: int = 0) -> Tensor:
        ImageDropout.rng = ImageRandom(1, step, places)
        return network(x[: len(places)])

    whole = out(torch.arange(8))
    halves = torch.cat([out(torch.arange(4)), out(torch.arange(4, 8))])
    torch.testing.assert_close(halves, whole)
    assert not torch.allclose(out(torch.arange(8), step=1), whole)
    assert len({tuple(row) for row in whole.tolist()}) == 8
    first = network[0](x)  # asked again, the same: as gradient checkpointing does
    assert torch.equal(network[0](x), first)
    share = float(
        (nn.Sequential(nn.Identity(), network[1])(torch.ones(8, 5000)) == 0).float().mean()
    )
    assert share == pytest.approx(0.5, abs=0.02)
    kept = network[1](torch.ones(8, 64))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(network.eval()(x), out(torch.arange(8)))


@pytest.mark.usefixtures("_no_images")
def test_dropout_of_several_rows_an_image_and_of_no_images() -> None:
    network = dropping()
    ImageDropout.rng = ImageRandom(1, 0, torch.arange(4))
    rows = network[1](torch.ones(8, 64))
    ImageDropout.rng = ImageRandom(1, 0, torch.arange(2))
    assert torch.equal(network[1](torch.ones(4, 64)), rows[:4])
    ImageDropout.rng = None
    torch.manual_seed(3)
    plain = network[1](torch.ones(4, 64))
    torch.manual_seed(3)
    assert torch.equal(plain, nn.functional.dropout(torch.ones(4, 64), 0.5))


# ---------------------------------------------------------------- whole trainings


@pytest.fixture(scope="module")
def runs(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    program = ["python", "-m", "tests.campaigns.train_on_processes", folder, release]
    ended = run(program, CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)) == 5
    return folder


def state(runs: Path, name: str) -> dict[str, Any]:
    return dict(torch.load(runs / name / "state.pt", weights_only=True))


def leaves(content: Any) -> Iterator[Tensor]:
    if isinstance(content, dict):
        for key in content:
            yield from leaves(content[key])
    elif isinstance(content, Tensor):
        yield content


def test_streaming_gives_the_training_in_memory_to_the_bit(runs: Path) -> None:
    pairs = zip(leaves(state(runs, "1")), leaves(state(runs, "resident")), strict=True)
    assert sum(torch.equal(one, other) for one, other in pairs) > 100


def test_killed_five_times_it_ends_as_undisturbed_to_the_bit(runs: Path) -> None:
    for one, other in zip(leaves(state(runs, "1")), leaves(state(runs, "same")), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["2", "4", "other", "full", "mixed"])
def test_any_number_of_processes_gives_the_curve_and_weights_of_one(runs: Path, name: str) -> None:
    alone, found = state(runs, "1"), state(runs, name)
    torch.testing.assert_close(found["losses"]["loss"], alone["losses"]["loss"], rtol=1e-4, atol=0)
    assert len(alone["losses"]["loss"]) == 12
    for kind in ("modules", "averages"):
        for one, other in zip(leaves(found[kind]), leaves(alone[kind]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)
    moved = [
        float((one - other).abs().max())
        for one, other in zip(leaves(alone["modules"]), leaves(alone["averages"]), strict=True)
    ]
    assert max(moved) > 1e-3  # the tolerance is below what training changes


def test_two_processes_with_shards_save_what_two_without_do_to_the_bit(runs: Path) -> None:
    """Blocks are computed again in one of the two, gradients clipped in both."""
    whole, shards = state(runs, "2"), state(runs, "full")
    assert whole.keys() == shards.keys()
    for kind in ("modules", "averages", "optimizers", "losses"):
        pairs = zip(leaves(whole[kind]), leaves(shards[kind]), strict=True)
        for one, other in pairs:
            assert torch.equal(one, other), kind
