"""train-classifier: sets read image by image, mixes, precision, resuming, several processes."""

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from timm.data.transforms import RandomResizedCropAndInterpolation

from classifiers.data.batches import ResidentBatches, StreamedBatches
from classifiers.data.one_by_one import (
    RESAMPLING,
    drawn_from,
    fit_view,
    rand_augment,
    training_function,
)
from classifiers.data.sources import load_source, open_source, take_times
from classifiers.recipes.recipe import Augmentation, ClassifierRecipe, View, load_recipe
from classifiers.train_classifier import train_classifier
from classifiers.training.checkpoint import load_classifier, save_classifier, start_from
from classifiers.training.loop import train
from classifiers.training.objective import seed_torch
from classifiers.training.predictions import predict
from classifiers.training.state import StateFile
from classifiers.training.task import Task
from generation.networks.timm_classifier import build_model, normalise, to_channels
from generation.training.data.order import Visits, batch_rows, epoch_order
from release.errors import UserError
from release.files.checked_files import write_state
from release.layout.image_sets import load_images
from release.results.result import read_result
from release.streaming.encoded import index_images
from tests.forked_commands import run, run_together, started
from tests.sets.shapes import (
    CLASSES,
    RECIPE,
    SIZE,
    changed,
    make_images,
    png,
    recipe_toml,
    relist,
    write_release,
)

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": make_images(10, 1), "test": make_images(6, 2)}
    return write_release(tmp_path_factory.mktemp("releases") / "shapes-real", splits)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "shapes-16"
    return write_release(folder, {"train": make_images(20, 3)}, kind="synthetic")


# The order of images


def test_weights_say_how_often_an_epoch_visits_a_source() -> None:
    visits = Visits((10, 8), (3.0, 0.5))
    assert len(visits) == 34
    epochs = [batch_rows(visits, 34, 0, step)[0] for step in range(2)]
    counts = np.array([np.bincount(rows, minlength=18) for rows in epochs])
    assert (counts[:, :10] == 3).all()
    assert (counts[:, 10:].sum(axis=1) == 4).all()
    assert counts[:, 10:].max() == 1
    assert not np.array_equal(counts[0], counts[1])


def test_repeats_stand_apart_and_lengthen_an_epoch() -> None:
    rows, places = batch_rows(Visits.once(5), 15, 0, 0, repeats=3)
    assert np.bincount(rows).tolist() == [3] * 5
    assert sorted(places) == list(range(15))
    visits = Visits.once(40)
    for step in range(6):  # epochs end within a batch
        rows, places = batch_rows(visits, 32, 0, step, repeats=3)
        assert not (rows == np.roll(rows, 1)).any()  # what Mixup and CutMix mix
        order = [epoch_order(visits, 0, int(place) // 120)[place // 3 % 40] for place in places]
        assert rows.tolist() == order


# Images read one at a time


@pytest.mark.parametrize("split", ["train", "tuning"])
def test_index_finds_the_bytes_of_each_image(real: Path, split: str) -> None:
    found, loaded = index_images(real, "16", split), load_images(real, "16", split)
    assert found.image_ids == loaded.image_ids
    assert np.array_equal(found.labels, loaded.labels)
    for row in (0, 5, len(found) - 1):
        assert np.array_equal(np.asarray(found.image(row)), loaded.images[row])


def test_index_refuses_images_that_parquet_compressed(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", {"train": make_images(20, 0)})
    path = folder / "16" / "train-00000000.parquet"
    pq.write_table(pq.read_table(path), path, compression="zstd", use_dictionary=False)
    relist(folder)
    with pytest.raises(UserError, match="compressed by Parquet once more"):
        index_images(folder, "16", "train")


@pytest.mark.parametrize("kind", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_streamed_batches_are_the_resident_ones(real: Path, kind: str) -> None:
    settings = Augmentation(shift=2, border="reflect", flip=True, erasing=0.5, mixup=0.5)
    recipe, visits = changed(augmentation=settings), Visits.once(60)
    loaded, found = load_images(real, "16", "train"), index_images(real, "16", "train")
    device = torch.device(kind)
    resident = ResidentBatches(recipe, loaded, visits, 7, device)
    streamed = StreamedBatches(recipe, found, visits, 7, device, range(3, 6), loaders=1)
    for step in range(3, 6):
        batches = []
        for source in (resident, streamed):
            seed_torch(7, step)
            batches.append(source.batch(step))
        assert torch.equal(batches[0][0], batches[1][0])
        assert torch.equal(batches[0][1], batches[1][1])
    with pytest.raises(ValueError, match="out of turn"):
        streamed.batch(9)


def test_processes_that_decode_end_with_the_batches(real: Path) -> None:
    found = index_images(real, "16", "train")
    gc.disable()  # a cycle would keep them until then, or for good
    try:
        before = set(multiprocessing.active_children())
        streamed = StreamedBatches(RECIPE, found, Visits.once(60), 0, CPU, range(99), loaders=2)
        streamed.batch(0)
        assert len(set(multiprocessing.active_children()) - before) == 2
        del streamed
        assert not set(multiprocessing.active_children()) - before
    finally:
        gc.enable()


def test_loaders_do_not_copy_what_they_import() -> None:
    """A garbage collection would write to all of it.

    A process has one fork server, and here it may have imported what an earlier test asked for.
    """
    code = (
        "import gc\nfrom generation.training.data.loaders import forkserver\n"
        "with forkserver(('classifiers.data.batches',)).Pool(1) as pool:\n"
        "    print(pool.apply(gc.get_freeze_count))"
    )
    command = [sys.executable, "-c", code]
    frozen = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(frozen.stdout) > 10_000


def test_single_image_augmentation_follows_seed_and_place_alone() -> None:
    recipe = changed(
        augmentation={"resized_crop": [0.3, 1.0], "rand_augment": "rand-m9-mstd0.5-inc1"}
    )
    change = training_function(recipe)
    image = Image.fromarray(make_images(1, 0).images[5]).resize((40, 30))

    def draw(place: int) -> np.ndarray:
        with drawn_from(3, place):
            return change(image)

    before = np.random.get_state()[1].copy()
    pictures = [draw(place) for place in range(12)]
    assert np.array_equal(np.random.get_state()[1], before)
    assert all(p.shape == (SIZE, SIZE, 3) for p in pictures)
    assert np.array_equal(draw(4), pictures[4])
    assert len({p.tobytes() for p in pictures}) > 8


def test_batches_of_single_images_follow_seed_and_place_wherever_they_are_made(real: Path) -> None:
    recipe = changed(batch=60, augmentation={"resized_crop": [0.3, 0.9]})  # a step is an epoch
    found, visits = index_images(real, "16", "train"), Visits.once(60)

    def by_row(seed: int, steps: range, loaders: int) -> list[np.ndarray]:
        batches = StreamedBatches(recipe, found, visits, seed, CPU, steps, loaders=loaders)
        order = (np.argsort(batch_rows(visits, 60, seed, step)[0]) for step in steps)
        return [batches.batch(s)[0].numpy()[rows] for s, rows in zip(steps, order, strict=True)]

    def same(one: np.ndarray, other: np.ndarray) -> int:
        return int((one == other).all(axis=(1, 2, 3)).sum())

    epochs = by_row(0, range(3), loaders=0)
    for loaders in (1, 2):
        assert np.array_equal(by_row(0, range(3), loaders), epochs)
    assert np.array_equal(by_row(0, range(2, 3), 0), epochs[2:])
    assert same(epochs[0], epochs[1]) < 6
    for seed in (0, 1):
        rows, places = batch_rows(visits, 60, seed, 1)
        with drawn_from(seed, places[7]):
            pixels = training_function(recipe)(found.image(rows[7]))[None]
        expected = normalise(torch.from_numpy(to_channels(pixels, recipe.channels)), recipe)
        assert np.array_equal(by_row(seed, range(1, 2), 0)[0][rows[7]], expected[0])


@pytest.mark.parametrize(
    ("interpolation", "side", "most"),
    [("bilinear", 16, 1), ("bilinear", 60, 1), ("bicubic", 16, 1), ("bicubic", 60, 30)],
)
def test_random_crops_are_those_of_timm(interpolation: str, side: int, most: int) -> None:
    """All sides are reduced to 16 px; to 60 px some are enlarged where the other is reduced."""
    share = (0.2, 0.6)
    ours = training_function(
        changed(
            resolution=side,
            augmentation={"resized_crop": share},
            view={"interpolation": interpolation},
        )
    )
    theirs = RandomResizedCropAndInterpolation(side, share, interpolation=interpolation)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    for place in range(20):
        with drawn_from(0, place):
            pixels = ours(image)
        with drawn_from(0, place):
            expected = np.asarray(theirs(image))
        difference = np.abs(pixels.astype(int) - expected)
        assert difference.max() <= most
        assert difference.mean() < 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_seeds_reach_the_gpu() -> None:
    torch.rand(1, device="cuda")  # in use, as it is once a training has begun

    def draw(seed: int) -> torch.Tensor:
        seed_torch(seed, 1)
        return torch.rand(4, device="cuda")

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


@pytest.mark.parametrize("policy", ["rand-m10-n2-p1-inc1", "rand-m15-mmax30-n2-p1-inc1"])
def test_randaugment_bears_every_magnitude(policy: str) -> None:
    """Pillow 13 refuses to posterize to 0 bits, which timm asks for at the greatest magnitude."""
    image = Image.fromarray(make_images(1, 0).images[4])
    with pytest.raises(ValueError, match="bits"):
        ImageOps.posterize(image, 0)
    recipe = load_recipe("imagenet-vit-s16", [f"augmentation.rand_augment={policy}"])
    operations = {op.name: op for op in rand_augment(recipe).ops}  # type: ignore[attr-defined]
    posterize = next(op for name, op in operations.items() if name.startswith("Posterize"))
    assert not np.asarray(posterize(image)).any()
    change = rand_augment(recipe)
    for place in range(150):
        with drawn_from(0, place):
            assert change(image).size == image.size
    with pytest.raises(UserError, match="is no policy of timm's"):
        rand_augment(changed(augmentation={"rand_augment": "rand-q3"}))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_randaugment_resamples_as_the_recipe_does(name: str) -> None:
    recipe = load_recipe("imagenet-deit-s", [f"view.interpolation={name}"])
    known = {op.kwargs["resample"] for op in rand_augment(recipe).ops}  # type: ignore[attr-defined]
    assert known == {RESAMPLING[name]}


def test_view_scales_the_short_side_and_crops_the_centre() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 35:45] = 255
    view = fit_view(Image.fromarray(pixels), 16, View(crop_share=0.8, interpolation="bilinear"))
    bright = np.asarray(view)[8, :, 0] > 128
    assert view.size == (16, 16)
    assert bright[7:9].all()
    assert bright.sum() in (4, 5)
    assert not bright[:5].any()


def test_a_broken_image_is_one_line_wherever_it_is_decoded(tmp_path: Path) -> None:
    data = make_images(2, 0)
    broken = [png(image) for image in data.images]
    broken[3] = broken[3][:60]
    folder = write_release(tmp_path / "r", {"train": data}, encoded={"train": broken})
    found = index_images(folder, "16", "train")
    recipe = changed(augmentation={"resized_crop": [0.5, 1.0]})
    for loaders in (0, 1):
        with pytest.raises(UserError, match=r"parquet, image i00003: cannot be decoded") as caught:
            train(recipe, found, 0, steps=1, loaders=loaders)
        assert "\n" not in str(caught.value)


def test_another_configuration_is_brought_to_the_recipes_resolution(real: Path) -> None:
    data = load_source(open_source(f"{real}:16:train", 24), 24, View(interpolation="bilinear"))
    assert data.images.shape == (60, 24, 24, 3)
    found = predict(build_model(changed(resolution=24), 6).eval(), changed(resolution=24), data)
    streamed = predict(
        build_model(changed(resolution=24), 6).eval(),
        changed(resolution=24, view={"interpolation": "bilinear"}),
        index_images(real, "16", "train"),
    )
    assert found.image_ids == streamed.image_ids
    assert found.top.shape == streamed.top.shape


# Mixes


def test_times_takes_so_many_generated_images_for_each_real_one(
    real: Path, synthetic: Path
) -> None:
    sources = [open_source(str(real), SIZE, per_class=3), open_source(str(synthetic), SIZE)]
    parts = [load_source(source, SIZE) for source in sources]
    taken = take_times(sources, parts, 2)
    assert [np.bincount(part.labels).tolist() for part in taken] == [[3] * 6, [6] * 6]
    with pytest.raises(UserError, match=r"has 20 images of class 's0', but --times 7 takes 21"):
        take_times(sources, parts, 7)
    alone = Task(RECIPE, (str(real),), str(real), times=1)
    with pytest.raises(UserError, match="needs real and generated"):
        alone.sources()
    uneven = parts[0].take(np.flatnonzero((parts[0].labels != 0) | (np.arange(18) == 0)))
    taken = take_times(sources, [uneven, parts[1]], 3)  # of 16 real images, one of the first class
    assert np.bincount(taken[1].labels).tolist() == [8] * 6


def test_a_mix_and_its_control_of_repeated_real_images(
    real: Path, synthetic: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe_toml(RECIPE))
    common = {"test": str(real), "recipe": str(recipe), "per_class": 2, "changes": ["epochs=2"]}
    train_classifier(
        train=[str(real), str(synthetic)], times=3, out=tmp_path / "mix.json", **common
    )
    train_classifier(train=[str(real)], weights="4", out=tmp_path / "control.json", **common)
    finished = (tmp_path / "control.json").stat().st_mtime_ns
    train_classifier(train=[str(real)], weights="4", out=tmp_path / "control.json", **common)
    assert (tmp_path / "control.json").stat().st_mtime_ns == finished  # not trained again
    mix, control = (read_result(tmp_path / f"{name}.json") for name in ("mix", "control"))
    assert [source["images"] for source in mix.subject["train"]] == [12, 36]
    assert [source.get("weight") for source in control.subject["train"]] == [4]
    assert mix.values["steps"] == control.values["steps"] == 3
    with pytest.raises(UserError, match="give a positive number for each --train"):
        train_classifier(train=[str(real)], weights="4,1", out=tmp_path / "x.json", **common)


# Precision, a start, resuming


def test_bfloat16_trains_and_keeps_weights_in_float32() -> None:
    model = train(changed(precision="bfloat16"), make_images(20, 3), 0)
    assert next(model.parameters()).dtype == torch.float32
    data = make_images(20, 4)
    assert predict(model, changed(precision="bfloat16"), data).correct(1).mean() > 0.9
    assert changed(precision="bfloat16").protocol()["precision"] == "bfloat16"


def test_a_transformer_goes_on_at_a_larger_size(tmp_path: Path) -> None:
    small, large = (
        changed(
            model="test_vit",
            model_args={"img_size": side, "patch_size": 4},
            stem_pool=True,
            resolution=side,
        )
        for side in (16, 32)
    )
    path = tmp_path / "small.safetensors"
    ids = tuple(c.wnid for c in CLASSES)
    save_classifier(path, build_model(small, 6), small, ids)
    model = build_model(large, 6)
    start_from(path, model, ids)
    assert torch.equal(model.head.weight, load_classifier(path)[0].head.weight)
    assert model.pos_embed.shape[1] == 65
    with pytest.raises(UserError, match="other classes"):
        start_from(path, model, ids[::-1])
    with pytest.raises(UserError, match="holds another model, test_vit"):
        start_from(path, build_model(RECIPE, 6), ids)


def test_parts_of_a_batch_add_up_to_its_gradient() -> None:
    recipe = ClassifierRecipe(
        name="tiny",
        description="without batch normalisation",
        model="test_vit",
        model_args={"patch_size": 4},
        resolution=SIZE,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        epochs=1,
        batch=10,
        optimizer="momentum",
        learning_rate=0.1,
        clip=1.0,
    )
    data = make_images(10, 0)
    whole, parts = (
        train(recipe.model_copy(update={"micro_batch": size}), data, 0, steps=3).state_dict()
        for size in (None, 4)
    )
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    assert "micro_batch" not in recipe.protocol()
    assert recipe.model_copy(update={"micro_batch": 4}).protocol()["micro_batch"] == 4


def test_training_goes_on_from_its_state_to_the_same_weights(tmp_path: Path) -> None:
    recipe = changed(ema=0.9, augmentation={"shift": 1, "flip": True, "cutmix": 1.0})
    data = make_images(10, 0)
    state = StateFile(tmp_path / "run.state", "mine", seconds=0)
    whole = train(recipe, data, 0, steps=9).state_dict()
    norms = {name: float(whole[name].norm()) for name in ("conv1.0.weight", "fc.weight")}
    # as it was when the average began as TensorFlow's does
    assert norms == pytest.approx({"conv1.0.weight": 1.33715, "fc.weight": 1.39103}, rel=1e-3)

    class KilledError(Exception):
        pass

    counts: list[int] = []

    def stop(done: int) -> None:
        counts.append(done)
        if sum(counts) == 6:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, data, 0, steps=9, on_steps=stop, state=state)
    content = torch.load(state.path, weights_only=True)
    assert content["seconds"] > 0
    write_state(state.path, {**content, "seconds": 100.0})
    spent: list[float] = []
    resumed = train(recipe, data, 0, steps=9, state=state, on_end=spent.append).state_dict()
    assert 100 < spent[0] < 200
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other = StateFile(state.path, "yours")
    with pytest.raises(UserError, match="state of another training"):
        train(recipe, data, 0, steps=9, state=other)
    state.path.write_bytes(b"broken")
    with pytest.raises(UserError, match="is not the state of a training"):
        train(recipe, data, 0, steps=9, state=state)


def test_a_state_of_before_is_gone_on_from(tmp_path: Path) -> None:
    """When classifiers had a loop of their own, its state had other names."""
    recipe = changed(optimizer="adafactor", schedule="inverse-square-root", ema=0.9, clip=1.0)
    data, state = make_images(10, 0), StateFile(tmp_path / "run.state", "mine", seconds=0)
    steps: list[int] = []

    def stop(done: int) -> None:
        steps.append(done)
        if sum(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, 0, steps=4, on_steps=stop, state=state)
    now = torch.load(state.path, weights_only=True)
    kept = {name: now[f"{name}s"]["model"] for name in ("optimizer", "average")}
    kept |= {"key": "mine", "steps": now["step"], "seconds": 7.0, "model": now["modules"]["model"]}
    write_state(state.path, kept)
    taken: list[int] = []
    resumed = train(recipe, data, 0, steps=4, on_steps=taken.append, state=state).state_dict()
    whole = train(recipe, data, 0, steps=4).state_dict()
    assert now["step"] == 2
    assert taken == [2, 1, 1]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def command(real: Path, recipe: Path, out: Path) -> list[str]:
    options = ["--train", real, "--test", real, "--recipe", recipe, "--steps", 80]
    options += ["--state-every", 0, "--out", out, "--save", out.with_suffix(".safetensors")]
    return ["train-classifier", *map(str, options), "--json"]


def test_killed_and_run_again_it_ends_with_the_same_bytes(real: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe_toml(changed(ema=0.9)))
    out = tmp_path / "killed.json"
    state = out.with_suffix(".state")
    with started(command(real, recipe, out)) as process:
        while not state.exists() and process.is_alive():
            time.sleep(0.005)
    assert process.exitcode == -signal.SIGKILL
    assert 0 < torch.load(state, weights_only=True)["step"] < 80
    whole = tmp_path / "whole.json"
    for path in (out, whole):
        done = run(command(real, recipe, path))
        assert done.returncode == 0, done.stderr
    weights = [load_file(path.with_suffix(".safetensors")) for path in (out, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    predictions = [path.with_suffix(".parquet").read_bytes() for path in (out, whole)]
    assert predictions[0] == predictions[1]
    assert not state.exists()
    results = [json.loads(path.read_text())["values"] for path in (out, whole)]
    assert results[0] == results[1]


def test_processes_that_decode_end_with_a_training_that_is_killed(
    real: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe_toml(changed(augmentation={"resized_crop": [0.5, 1.0]})))
    options = ["--train", real, "--test", real, "--recipe", recipe, "--out", tmp_path / "x.json"]
    options += ["--steps", 10**6, "--loaders", 2, "--state-every", 0]
    with subprocess.Popen(
        [sys.executable, "-m", "classifiers.train_classifier", *map(str, options), "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as training:
        while not (tmp_path / "x.state").exists() and training.poll() is None:
            time.sleep(0.05)
        started = psutil.Process(training.pid).children(recursive=True)
        training.kill()
    assert len(started) >= 3  # the fork server and two of its children
    assert not psutil.wait_procs(started, timeout=30)[1]


def test_two_processes_share_each_batch_and_one_writes(real: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe_toml(changed(micro_batch=3)))
    options = ["--train", real, "--test", real, "--recipe", recipe, "--out", tmp_path / "two.json"]
    done = run_together("classifiers.train_classifier", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1") == 1
    result = read_result(tmp_path / "two.json")
    assert result.environment["processes"] == 2
    assert result.values["top1"]["value"] > 0.6


def test_index_of_a_synthetic_release_has_no_tuning(synthetic: Path) -> None:
    with pytest.raises(UserError, match="no column 'tuning', so no split 'tuning'"):
        index_images(synthetic, "16", "tuning")
