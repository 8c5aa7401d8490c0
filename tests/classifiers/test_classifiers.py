"""train-classifier: recipes, sources, augmentation, training, predictions, the command."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from classifiers.data.augmentation import Framing, crop, mirror, mix_images, random_erasing
from classifiers.data.batches import ResidentBatches
from classifiers.data.sources import (
    check_sources,
    index_source,
    join_images,
    load_source,
    open_source,
)
from classifiers.recipes.recipe import Augmentation, ClassifierRecipe, load_recipe
from classifiers.train_classifier import train_classifier
from classifiers.training.checkpoint import load_classifier
from classifiers.training.loop import learning_rate_at, total_steps, train
from classifiers.training.objective import seed_torch
from classifiers.training.predictions import Predictions, accuracy_values, predict
from generation.networks.timm_classifier import build_model, to_channels
from generation.training.data.order import Visits, batch_rows
from release.errors import UserError
from release.lease import claimed
from release.results.result import read_result
from release.results.statistics import share
from tests.forked_commands import run
from tests.sets.shapes import (
    CLASSES,
    NAMES,
    RECIPE,
    SIZE,
    changed,
    make_images,
    png,
    recipe_toml,
    relist,
    write_release,
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": make_images(10, 1), "test": make_images(6, 2)}
    return write_release(tmp_path_factory.mktemp("releases") / "shapes-real", splits)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "shapes-16"
    return write_release(folder, {"train": make_images(20, 3)}, kind="synthetic")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(recipe_toml(RECIPE))
    return path


# Recipes and models


def test_recipe_file_equals_its_source(recipe_file: Path) -> None:
    assert load_recipe(str(recipe_file)) == RECIPE


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown classifier recipe 'x'; known: .*fashion-mnist"):
        load_recipe("x")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batch = 0", "batch"),
        ("learning_rate = 'high'", "learning_rate"),
        ("colour = 1", "colour"),
        ("mean = [0.1, 0.2]", "1 values each"),
        ("batch = ", "not valid TOML"),
    ],
)
def test_wrong_recipe_names_the_field(
    recipe_file: Path, tmp_path: Path, line: str, message: str
) -> None:
    key = line.split(" ", maxsplit=1)[0]
    kept = [text for text in recipe_file.read_text().splitlines() if not text.startswith(key)]
    path = tmp_path / "wrong.toml"
    path.write_text("\n".join([line, *kept]))
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))


def test_protocol_holds_the_settings_and_not_the_words() -> None:
    protocol = changed(expected="92%").protocol()
    assert protocol == RECIPE.protocol()
    assert protocol["learning_rate"] == 1e-2
    assert "name" not in protocol
    assert changed(batch=64).protocol() != protocol


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "test_resnett"}, "unknown timm model.*test_resnet"),
        ({"model_args": {"legs": 4}}, "legs"),
        ({"model": "test_vit", "model_args": {"img_size": SIZE}}, "no max-pooling"),
    ],
)
def test_wrong_model_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(changed(**settings), 6)


def test_stem_settings_set_the_size_of_the_features() -> None:
    def feature_size(recipe: ClassifierRecipe) -> int:
        return build_model(recipe, 6).forward_features(torch.zeros(1, 1, 64, 64)).shape[-1]

    assert feature_size(changed(stem_pool=True)) == 2
    assert feature_size(changed(stem_pool=False)) == 4
    assert feature_size(changed(stem_stride=1)) == 8


# Batches and augmentation


def test_every_image_is_seen_equally_often_and_in_another_order() -> None:
    visits = Visits.once(10)
    rows = np.concatenate([batch_rows(visits, 4, seed=0, step=s)[0] for s in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert list(rows[:10]) != list(rows[10:])
    assert not np.array_equal(batch_rows(visits, 4, 0, 0)[0], batch_rows(visits, 4, 1, 0)[0])


def test_a_batch_larger_than_the_set_repeats_it() -> None:
    assert np.bincount(batch_rows(Visits.once(3), 9, 0, 0)[0]).tolist() == [3, 3, 3]


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    settings = Augmentation(shift=2, flip=True, erasing=0.5, cutmix=1.0)
    recipe = changed(augmentation=settings)
    batches = ResidentBatches(recipe, make_images(10, 0), Visits.once(60), 7, torch.device("cpu"))

    def draw(step: int) -> list[torch.Tensor]:
        seed_torch(7, step)
        return list(batches.batch(step))

    first = [draw(step) for step in range(3)][2]
    again = draw(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (32, 1, SIZE, SIZE)


def test_grey_is_pillows_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in pixels]
    assert np.array_equal(to_channels(pixels, 1)[:, 0], np.stack(expected))
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    assert np.array_equal(to_channels(grey, 1)[0, 0], grey[0, :, :, 0])
    assert np.array_equal(to_channels(pixels, 3)[1, 2], pixels[1, :, :, 2])


def test_crops_are_windows_each_at_its_own_place() -> None:
    padded = torch.arange(2 * 1 * 6 * 6, dtype=torch.uint8).view(2, 1, 6, 6)
    rows = torch.tensor([0, 1] * 50)
    crops = crop(padded, rows, 4, Framing.draw(100, 2, torch.Generator()))
    places = set()
    for row, window in zip(rows, crops, strict=True):
        top, left = divmod(int(window[0, 0, 0]) - 36 * int(row), 6)
        assert torch.equal(window, padded[row, :, top : top + 4, left : left + 4])
        places.add((top, left))
    assert len(places) == 9
    whole = Framing.draw(2, 0, torch.Generator())
    assert torch.equal(crop(padded, rows[:2], 6, whole), padded)


def test_flips_mirror_about_half() -> None:
    images = torch.rand(400, 1, 3, 3)
    flipped = mirror(images, Framing.draw(400, 0, torch.Generator()))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_erasing_blanks_one_rectangle_in_the_chosen_share() -> None:
    torch.manual_seed(0)
    erased = random_erasing(torch.ones(400, 2, 16, 16), 0.25) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    hit = erased[:, 0].flatten(1).any(1)
    assert 70 < hit.sum() < 130
    for mask in erased[hit][:, 0]:
        height, width = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == height * width
        assert 0.01 < mask.float().mean() < 0.4


def test_erasing_can_fill_with_noise() -> None:
    torch.manual_seed(0)
    images = torch.full((200, 3, 16, 16), 9.0)
    erased = random_erasing(images, 0.5, "noise")
    assert (images == 9).all()  # a batch may be a view of the set
    changed_pixels = (erased != 9).all(1)
    assert torch.equal(changed_pixels, (erased != 9).any(1))
    noise = erased.permute(0, 2, 3, 1)[changed_pixels]
    assert noise.mean().abs() < 0.05
    assert 0.95 < noise.std() < 1.05
    torch.manual_seed(0)
    assert torch.equal(random_erasing(images, 0.5)[:, 0] != 9, changed_pixels)


def test_mixup_and_cutmix_share_targets_as_they_share_pixels() -> None:
    torch.manual_seed(0)
    labels = torch.arange(4)
    images = F.one_hot(labels, 4).float()[:, :, None, None].expand(4, 4, 10, 10)
    for settings in (Augmentation(mixup=1.0), Augmentation(cutmix=1.0)):
        mixed, targets = mix_images(images, labels, 4, settings)
        torch.testing.assert_close(mixed.mean((2, 3)), targets)
        assert (targets.amax(1) < 1).all()


# Training


def test_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    for schedule in ("cosine", "linear"):
        recipe = changed(schedule=schedule, warmup=0.2)
        rates = [learning_rate_at(step, 50, recipe) for step in range(50)]
        assert np.argmax(rates) == 9
        assert max(rates) == pytest.approx(recipe.learning_rate)
        assert (np.diff(rates[9:]) < 0).all()
        assert 0 < rates[-1] < 0.06 * max(rates)
    assert learning_rate_at(0, 50, changed(warmup=0.0)) == pytest.approx(1e-2)
    assert learning_rate_at(49, 50, changed(schedule="constant")) == pytest.approx(1e-2)


def test_steps_replace_epochs() -> None:
    assert total_steps(RECIPE, 60, None) == 15
    assert total_steps(RECIPE, 60, 7) == 7
    seen: list[int] = []
    train(RECIPE, make_images(10, 0), 0, steps=3, on_steps=seen.append)
    assert seen == [0, 1, 1, 1]


def test_it_learns_and_the_seed_decides_the_weights() -> None:
    data = make_images(20, 3)
    before = torch.get_rng_state()
    first, again, other = (train(RECIPE, data, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    model = build_model(RECIPE, 6).eval()
    model.load_state_dict(first)
    accuracy = predict(model, RECIPE, make_images(20, 4)).correct(1).mean()
    untrained = predict(build_model(RECIPE, 6).eval(), RECIPE, make_images(20, 4)).correct(1)
    assert accuracy > 0.9
    assert untrained.mean() < 0.6


def test_averaged_weights_are_the_result_of_an_ema_recipe() -> None:
    data = make_images(10, 0)
    plain = train(RECIPE, data, 0, steps=5)
    averaged = train(changed(ema=0.9), data, 0, steps=5)
    assert not averaged.training
    assert not torch.equal(plain.fc.weight, averaged.fc.weight)


def test_a_transformer_with_every_augmentation_trains() -> None:
    recipe = changed(
        model="test_vit",
        model_args={"img_size": SIZE, "patch_size": 4, "drop_path_rate": 0.1},
        stem_pool=True,
        channels=3,
        mean=(0.5,) * 3,
        std=(0.3,) * 3,
        label_smoothing=0.1,
        augmentation={"shift": 2, "border": "reflect", "flip": True, "erasing": 0.25, "mixup": 0.8},
    )
    states = [train(recipe, make_images(10, 0), 0, steps=3).state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_divergence_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="not finite at step 2, seed 0; lower learning_rate"):
        train(changed(optimizer="sgd", learning_rate=1e12), make_images(10, 0), 0, steps=20)


# Predictions


def test_interval_is_wilsons() -> None:
    correct = np.array([True] * 81 + [False] * 19)
    z, p, n = 1.959963984540054, 0.81, 100
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert share(correct) == {
        "value": pytest.approx(0.81),
        "n": 100,
        "interval": pytest.approx([centre - half, centre + half]),
    }


def test_accuracy_overall_and_per_class(tmp_path: Path) -> None:
    predictions = Predictions(
        image_ids=("a", "b", "c", "d"),
        labels=np.array([0, 0, 1, 5]),
        top=np.array([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 0, 2, 3, 4], [0, 1, 2, 3, 4]]),
        probability=np.array([0.9, 0.5, 0.8, 0.4], np.float32),
    )
    values = accuracy_values(predictions, [c.wnid for c in CLASSES], NAMES)
    assert values["top1"]["value"] == 0.5
    assert values["top5"]["value"] == 0.75
    rows = [(c["wnid"], c["name"], c["top1"], c["n"]) for c in values["per_class"]]
    assert rows == [("s0", "left", 0.5, 2), ("s1", "right", 1.0, 1), ("s5", "checks", 0.0, 1)]
    predictions.write(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["image_id", "label", "top5", "probability"]
    assert table["top5"].to_pylist() == predictions.top.tolist()


def test_top5_is_capped_at_the_class_count() -> None:
    data = make_images(2, 0)
    few = replace(data, class_ids=data.class_ids[:3], class_names=NAMES[:3], labels=data.labels % 3)
    predictions = predict(build_model(RECIPE, 3).eval(), RECIPE, few)
    assert predictions.top.shape == (12, 3)
    assert np.array_equal(np.sort(predictions.top, axis=1), np.tile(np.arange(3), (12, 1)))
    assert "top5" not in accuracy_values(predictions, few.class_ids, few.class_names)


# Sources


def test_spec_defaults(real: Path) -> None:
    assert str(open_source(f"{real}", SIZE, "test")) == f"{real}:16:test"
    assert str(open_source(f"{real}:16:fit", 99)) == f"{real}:16:fit"


@pytest.mark.parametrize(
    ("splits", "held_out"),
    [
        (("train", "test"), "test"),
        (("train", "validation"), "validation"),  # what ImageNet has
        (("train", "validation", "test"), "test"),
    ],
)
def test_it_is_tested_on_the_split_that_is_held_out(
    splits: tuple[str, ...], held_out: str, tmp_path: Path
) -> None:
    release = write_release(tmp_path / "real", {name: make_images(1, 1) for name in splits})
    assert open_source(str(release), SIZE, None).split == held_out
    assert open_source(f"{release}:{SIZE}", SIZE, None).split == held_out
    assert open_source(f"{release}:{SIZE}:train", SIZE, None).split == "train"


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (":16:train:x", "RELEASE"),
        ("::train", "RELEASE"),
        (":64", "unknown configuration.*known: 16"),
        (":16:val", "unknown split.*known: test, train"),
        ("-gone", "not a finished release"),
    ],
)
def test_wrong_spec_is_refused(real: Path, tail: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(f"{real}{tail}", SIZE)


def test_per_class_takes_the_first_by_image_id(real: Path) -> None:
    data = load_source(open_source(str(real), SIZE, per_class=2), SIZE)
    assert data.image_ids == tuple(f"i{i:05d}" for i in range(12))
    assert np.bincount(data.labels).tolist() == [2] * 6
    assert np.array_equal(data.images, make_images(10, 1).images[:12])


def test_fit_and_tuning_share_no_image(real: Path) -> None:
    fit, tuning = (
        load_source(open_source(f"{real}:16:{s}", SIZE), SIZE) for s in ("fit", "tuning")
    )
    assert (len(fit), len(tuning)) == (48, 12)
    assert not set(fit.image_ids) & set(tuning.image_ids)


@pytest.mark.parametrize(
    ("train_split", "test_split", "refused"),
    [
        ("train", "test", False),
        ("fit", "tuning", False),
        ("test", "test", True),
        ("train", "tuning", True),
        ("fit", "train", True),
    ],
)
def test_test_images_in_training_are_refused(
    real: Path, train_split: str, test_split: str, refused: bool
) -> None:
    sources = [open_source(f"{real}:16:{train_split}", SIZE)]
    test = open_source(f"{real}:16:{test_split}", SIZE)
    if refused:
        with pytest.raises(UserError, match="also in training"):
            check_sources(sources, test)
    else:
        check_sources(sources, test)


def test_another_import_of_the_same_test_images_is_refused(real: Path, tmp_path: Path) -> None:
    copy = write_release(tmp_path / "again", {"test": make_images(5, 9)})
    with pytest.raises(UserError, match="also in training"):
        check_sources([open_source(f"{copy}:16:test", SIZE)], open_source(f"{real}:16:test", SIZE))


def test_synthetic_test_images_and_other_classes_are_refused(
    real: Path, synthetic: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is not real"):
        check_sources([open_source(str(real), SIZE)], open_source(str(synthetic), SIZE))
    swapped = (CLASSES[0], replace(CLASSES[2], label=1), replace(CLASSES[1], label=2), *CLASSES[3:])
    other = write_release(
        tmp_path / "other", {"train": make_images(1, 0)}, "synthetic", "x", swapped
    )
    with pytest.raises(UserError, match="different class lists: label 1 is 's2' and 's1'"):
        check_sources([open_source(str(other), SIZE)], open_source(str(real), SIZE, "test"))


def test_bad_content_is_named(tmp_path: Path) -> None:
    data = make_images(1, 0)
    broken = [png(image) for image in data.images]
    broken[3] = broken[3][:60]
    larger = [png(np.zeros((SIZE, SIZE + 4, 3), np.uint8))] * len(data)
    cases = [
        ({"encoded": {"train": broken}}, "image i00003: cannot be decoded"),
        ({"encoded": {"train": larger}}, "is 20 x 16, larger than its configuration says"),
    ]
    for number, (settings, message) in enumerate(cases):
        folder = write_release(tmp_path / str(number), {"train": data}, **settings)
        with pytest.raises(UserError, match=message):
            load_source(open_source(str(folder), SIZE), SIZE)
    negative = replace(data, labels=np.array([0, 1, 2, -1, 4, 5]))
    folder = write_release(tmp_path / "label", {"train": negative})
    with pytest.raises(UserError, match="image i00003 has label -1, out of range 0 to 5"):
        load_source(open_source(str(folder), SIZE), SIZE)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", {"train": make_images(1, 0)})
    path = folder / str(SIZE) / "train-00000000.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("tuning")
    changed_table = table.set_column(place, "tuning", pa.array([False] * 6))
    pq.write_table(changed_table, path, compression="none", use_dictionary=False)
    relist(folder)
    source = open_source(f"{folder}:{SIZE}:tuning", SIZE)
    for read in (lambda: load_source(source, SIZE), lambda: index_source(source, lambda _: None)):
        with pytest.raises(UserError, match=r"r:16:tuning holds no images"):
            read()


def test_images_that_the_manifest_does_not_count_are_refused(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", {"train": make_images(1, 0)})
    path = folder / str(SIZE) / "train-00000000.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)
    relist(folder)
    with pytest.raises(UserError, match="12 images, but its manifest says 6"):
        load_source(open_source(str(folder), SIZE), SIZE)


def test_a_class_without_training_images_is_refused() -> None:
    data = make_images(2, 0)
    part = replace(data, images=data.images[:5], labels=data.labels[:5])
    with pytest.raises(UserError, match="no image of class 's5'"):
        join_images([part, part])
    assert len(join_images([part, data])) == 17


# The command


def test_cas_and_its_files(
    real: Path,
    synthetic: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "results" / "cas.json"
    train_classifier(
        train=[str(synthetic)],
        test=str(real),
        out=out,
        recipe=str(recipe_file),
        seeds="0,2",
        save=tmp_path / "saved" / "tiny.safetensors",
    )
    top1 = [read_result(out.parent / f"cas-seed{s}.json").values["top1"]["value"] for s in (0, 2)]
    mean = f"mean of 2 seeds {np.mean(top1):.2%}, standard deviation {np.std(top1, ddof=1):.2%}"
    assert capsys.readouterr().out.splitlines()[-1] == mean
    paths = sorted(path.name for path in out.parent.iterdir())
    assert paths == [f"cas-seed{s}.{kind}" for s in (0, 2) for kind in ("json", "parquet")]
    result = read_result(out.parent / "cas-seed2.json")
    assert (result.kind, result.dataset, result.seeds) == (
        "classifier",
        "shapes",
        {"classifier": 2},
    )
    assert result.subject["recipe"] == "tiny"
    source = result.subject["train"][0]
    assert (source["kind"], source["regime"], source["images"]) == ("synthetic", "B", 120)
    assert result.reference["n"] == 36
    assert result.values["cas"] is True
    assert result.values["steps"] == 30
    assert result.protocol["test_split"] == "test"
    table = pq.read_table(out.parent / "cas-seed2.parquet")
    hits = [
        top[0] == label
        for top, label in zip(table["top5"].to_pylist(), table["label"].to_pylist(), strict=True)
    ]
    assert np.mean(hits) == result.values["top1"]["value"] > 0.8
    expected = load_source(open_source(str(real), SIZE, "test"), SIZE)
    assert tuple(table["image_id"].to_pylist()) == expected.image_ids
    model, saved, class_ids = load_classifier(tmp_path / "saved" / "tiny-seed2.safetensors")
    assert (saved, class_ids) == (load_recipe(str(recipe_file)), expected.class_ids)
    again = predict(model, saved, expected)
    assert np.allclose(again.probability, table["probability"].to_numpy(), atol=1e-5)


def test_a_mix_at_equal_steps_is_not_cas_and_another_result_is_kept(
    real: Path, synthetic: Path, recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mixed.json"
    settings = {"test": str(real), "out": out, "recipe": str(recipe_file), "per_class": 3}
    for _ in range(2):  # the same measurement may be repeated
        train_classifier(train=[str(real), str(synthetic)], steps=4, **settings)
    result = read_result(out)
    assert result.values["cas"] is False
    assert (result.protocol["steps"], result.protocol["epochs"]) == (4, None)
    assert [source["images"] for source in result.subject["train"]] == [18, 18]
    content = out.read_bytes()
    with pytest.raises(UserError, match="holds another result"):
        train_classifier(train=[str(real), str(synthetic)], steps=5, **settings)
    assert out.read_bytes() == content


def test_a_second_command_for_a_result_is_refused_while_the_first_is_at_work(
    real: Path, recipe_file: Path, tmp_path: Path
) -> None:
    settings = {"train": [str(real)], "test": str(real), "recipe": str(recipe_file), "steps": 2}
    with claimed(tmp_path / "one.lease"):
        with pytest.raises(UserError, match=r"another command is at work in .*one\.lease: "):
            train_classifier(out=tmp_path / "one.json", **settings)
        train_classifier(out=tmp_path / "two.json", **settings)  # of the same folder
    train_classifier(out=tmp_path / "one.json", **settings)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["one.json", "one.parquet", "two.json", "two.parquet"]


def test_json_is_all_there_is_on_standard_output(
    real: Path, recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    done = run(
        [
            *("train-classifier", "--train", real, "--test", real, "--recipe", recipe_file),
            *("--steps", "2", "--out", out, "--json"),
        ]
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)["results"][0]
    stored = json.loads(out.read_text())
    assert printed["path"] == str(out)
    assert printed["values"] == stored["values"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "x"], "unknown classifier recipe"),
        (["--seeds", "0,a"], "whole numbers"),
        (["--seed", "1", "--seeds", "0,2"], "not both"),
        (["--per-class", "0"], "per-class"),
        ([], "unknown configuration"),
    ],
)
def test_bad_input_is_one_line(
    real: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    base = ["--train", str(real), "--test", str(real), "--out", str(tmp_path / "r.json")]
    done = run(["train-classifier", *base, *arguments])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_help_shows_an_example_without_starting_torch() -> None:
    code = (
        "import sys; from classifiers.train_classifier import train_classifier; "
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "train-classifier --train" in run(["train-classifier", "--help"]).stdout
