"""train-classifier on damaged files, numbers that are not finite, and settings that cannot be."""

import math
import signal
from pathlib import Path

import pytest
import torch

from classifiers import train_classifier as command
from classifiers.recipes.recipe import load_recipe
from classifiers.train_classifier import train_classifier
from classifiers.training.checkpoint import load_classifier, save_classifier, start_from
from classifiers.training.loop import DivergedError, require_parts, train
from classifiers.training.predictions import predict
from classifiers.training.state import StateFile
from generation.networks.timm_classifier import build_model
from release.commands.options import parse_seeds
from release.errors import UserError
from release.files.checked_files import write_state
from release.files.commit import sha256_file
from release.results.result import read_result
from tests.forked_commands import run
from tests.sets.shapes import (
    CLASSES,
    RECIPE,
    SIZE,
    changed,
    make_images,
    recipe_toml,
    write_release,
)

IDS = tuple(c.wnid for c in CLASSES)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": make_images(10, 1), "test": make_images(6, 2)}
    return write_release(tmp_path_factory.mktemp("releases") / "shapes-real", splits)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(recipe_toml(RECIPE))
    return path


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x20
    path.write_bytes(content)


# Files


def test_a_damaged_or_cut_state_is_one_line_and_never_gone_on_from(tmp_path: Path) -> None:
    kept = {"key": "mine", "weights": torch.arange(1000.0)}
    state = StateFile(tmp_path / "x.state", "mine")
    write_state(state.path, kept)
    whole = state.path.read_bytes()
    found = state.read()
    assert found is not None
    assert torch.equal(found["weights"], kept["weights"])
    for place in (*range(0, len(whole), 97), -1, -70):
        flip(state.path, place)
        with pytest.raises(UserError, match=r"x\.state is not the state of a training: it is"):
            state.read()
        flip(state.path, place)
    for length in (0, 1, 71, 72, len(whole) // 2, len(whole) - 1):
        state.path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is not the state of a training"):
            state.read()
    torch.save({"key": "mine"}, state.path)  # as others write it
    with pytest.raises(UserError, match="it is cut off, or another file"):
        state.read()


def test_equal_weights_make_equal_bytes(tmp_path: Path) -> None:
    """safetensors alone orders its header anew in each process and in most calls."""
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        torch.manual_seed(0)
        save_classifier(path, build_model(RECIPE, 6), RECIPE, IDS)
    assert len({sha256_file(path) for path in paths}) == 1
    model, recipe, ids = load_classifier(paths[0])
    torch.manual_seed(0)
    wanted = build_model(RECIPE, 6).state_dict()
    assert (recipe, ids) == (RECIPE, IDS)
    assert all(torch.equal(wanted[name], own) for name, own in model.state_dict().items())


def test_a_damaged_classifier_is_refused_wherever_the_byte_is(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(path, build_model(RECIPE, 6), RECIPE, IDS)
    size = path.stat().st_size
    for place in (*range(8, size, size // 40), -1):
        flip(path, place)
        with pytest.raises(UserError, match=r"c\.safetensors"):
            load_classifier(path)
        with pytest.raises(UserError, match=r"c\.safetensors"):
            start_from(path, build_model(RECIPE, 6), IDS)
        flip(path, place)
    load_classifier(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"c\.safetensors"):
        load_classifier(path)


def test_a_classifier_of_before_has_no_checksum_and_loads(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "old.safetensors"
    header = {"recipe": RECIPE.model_dump_json(), "class_ids": '["a","b"]'}
    save_file(build_model(RECIPE, 2).state_dict(), path, header)
    assert load_classifier(path)[2] == ("a", "b")


# Numbers that are not finite


def test_training_stops_at_the_first_loss_that_is_not_finite() -> None:
    recipe = changed(optimizer="sgd", learning_rate=1e30, schedule="constant", warmup=0.0)
    with pytest.raises(DivergedError, match=r"not finite at step 2, seed 3; lower learning_rate"):
        train(recipe, make_images(4, 0), 3, steps=300)


def test_a_training_that_diverged_leaves_nothing_in_the_way(
    real: Path, recipe_file: Path, tmp_path: Path
) -> None:
    settings = {"train": [str(real)], "test": str(real), "recipe": str(recipe_file), "steps": 20}
    diverging = ["learning_rate=1e30", "optimizer=sgd"]
    out = tmp_path / "r.json"
    with pytest.raises(DivergedError):
        train_classifier(out=out, changes=diverging, state_every=0, **settings)
    assert list(tmp_path.iterdir()) == []
    train_classifier(out=out, **settings)
    assert read_result(out).values["top1"]["n"] == 36


def test_predictions_that_are_not_finite_are_refused() -> None:
    model = build_model(RECIPE, 6).eval()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="tiny: what it says of the test images is not finite"):
        predict(model, RECIPE, make_images(1, 0))


def test_a_saved_classifier_with_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    model = build_model(RECIPE, 6)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = math.inf
    save_classifier(tmp_path / "c.safetensors", model, RECIPE, IDS)
    with pytest.raises(UserError, match=r"c\.safetensors: \S+ holds numbers that are not finite"):
        load_classifier(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    "setting",
    [
        *("learning_rate=inf", "learning_rate=nan", "epochs=inf", "epochs=1e300", "clip=inf"),
        *("weight_decay=inf", "augmentation.mixup=inf", "mean=[nan]", "std=[inf]"),
        "batch=1000000000000",
    ],
)
def test_settings_that_no_training_can_have_are_named(setting: str) -> None:
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        load_recipe("fashion-mnist-small", [setting])


# Models and parts of a batch


@pytest.mark.parametrize("model", ["resnet18.a1_in1k", "resnet18.no_such_tag"])
def test_trained_weights_are_not_named_where_random_ones_are_trained(model: str) -> None:
    with pytest.raises(UserError, match=rf"{model}': .* give 'resnet18', or model_args.pretra"):
        load_recipe("small-resnet-32", [f"model={model}"])


def test_an_unknown_tag_of_trained_weights_is_one_line() -> None:
    recipe = load_recipe("small-resnet-32", ["model=resnet18.x", "model_args.pretrained=true"])
    with pytest.raises(UserError, match="Invalid pretrained tag"):
        build_model(recipe, 6)


@pytest.mark.parametrize(
    ("settings", "processes"),
    [
        ({"batch": 5, "micro_batch": 2}, 1),
        ({"batch": 8, "micro_batch": 1}, 1),
        ({"batch": 1}, 1),
        ({"batch": 2}, 2),
        ({"batch": 6, "micro_batch": 2}, 2),
    ],
)
def test_batch_normalisation_of_a_single_image_is_refused(
    settings: dict[str, int], processes: int
) -> None:
    recipe = load_recipe("small-resnet-32", ["stem_stride=2", "stem_pool=true"])
    recipe = recipe.model_copy(update=settings)
    with pytest.raises(UserError, match=f"batch = {recipe.batch}.* leaves a single image"):
        require_parts(recipe, 10, processes)


def test_a_single_image_is_taken_where_the_network_can() -> None:
    require_parts(load_recipe("small-vit-32", ["batch=1"]), 10, 1)
    require_parts(changed(batch=3, micro_batch=2, resolution=64), 6, 1)  # 2 positions at the end


def test_a_single_image_is_refused_before_images_are_read(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "norm.toml"
    recipe.write_text(recipe_toml(changed(batch=1, model="resnet18", model_args={})))
    monkeypatch.setattr("classifiers.training.task.read_training", no_reading)
    with pytest.raises(UserError, match="leaves a single image"):
        train_classifier(
            train=[str(real)], test=str(real), out=tmp_path / "r.json", recipe=str(recipe)
        )


def no_reading(*_: object) -> None:
    raise AssertionError("images are read")


# What is asked for


def test_seeds_that_are_there_twice_are_refused() -> None:
    with pytest.raises(UserError, match="--seeds '0,1,0': 0 is there twice"):
        parse_seeds("0,1,0")


def test_a_weight_that_visits_no_image_is_refused(
    real: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_release(tmp_path / "made", {"train": make_images(5, 3)}, kind="synthetic")
    settings = {"test": str(real), "out": tmp_path / "r.json", "recipe": str(recipe_file)}
    monkeypatch.setattr("classifiers.training.task.read_training", no_reading)
    with pytest.raises(UserError, match=r"--weights 0.001 of the 30 images of --train .*made:16"):
        train_classifier(train=[str(real), str(other)], weights="1,0.001", **settings)


@pytest.mark.parametrize("split", ["train", "fit"])
def test_anothers_result_or_state_is_found_before_images_are_read(
    real: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    settings = {"train": [f"{real}:{SIZE}:{split}"], "test": str(real), "recipe": str(recipe_file)}
    out = tmp_path / "r.json"
    train_classifier(out=out, steps=2, per_class=3, **settings)
    write_state(tmp_path / "s.state", {"key": "another"})
    monkeypatch.setattr("classifiers.training.task.read_training", no_reading)
    with pytest.raises(UserError, match="holds another result"):
        train_classifier(out=out, steps=2, per_class=4, **settings)
    with pytest.raises(UserError, match=r"s\.state is the state of another training"):
        train_classifier(out=tmp_path / "s.json", steps=2, **settings)
    with pytest.raises(AssertionError, match="images are read"):  # its own: it would go on
        train_classifier(out=out, steps=2, per_class=3, **settings)


# Results and their predictions


def test_a_result_that_was_written_meanwhile_is_neither_reported_nor_lost(
    real: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command may end where this one is to write, while this one reads its images."""
    settings = {"train": [str(real)], "test": str(real), "recipe": str(recipe_file)}
    out, read = tmp_path / "r.json", command._read

    def slowly(*given: object, **named: object) -> object:
        experiment = read(*given, **named)
        monkeypatch.setattr(command, "_read", read)
        train_classifier(out=out, steps=2, **settings)
        return experiment

    for save in (None, tmp_path / "r.safetensors"):
        out.unlink(missing_ok=True)
        monkeypatch.setattr(command, "_read", slowly)
        with pytest.raises(UserError, match="holds another result"):
            train_classifier(out=out, steps=3, save=save, **settings)
        assert read_result(out).protocol["steps"] == 2
        assert not out.with_suffix(".lease").exists()


def test_a_classifier_that_a_result_does_not_state_is_another_s(
    real: Path, recipe_file: Path, tmp_path: Path
) -> None:
    settings = {"train": [str(real)], "test": str(real), "recipe": str(recipe_file)}
    saved = tmp_path / "saved.safetensors"
    train_classifier(out=tmp_path / "bare.json", steps=2, **settings)
    train_classifier(out=tmp_path / "other.json", steps=3, save=saved, **settings)
    others = sha256_file(saved)
    train_classifier(out=tmp_path / "bare.json", steps=2, save=saved, **settings)
    assert sha256_file(saved) != others
    stated = read_result(tmp_path / "bare.json").values["classifier_sha256"]
    assert stated == sha256_file(saved)


def test_a_result_knows_its_predictions(real: Path, recipe_file: Path, tmp_path: Path) -> None:
    settings = {"train": [str(real)], "test": str(real), "recipe": str(recipe_file), "steps": 2}
    out, predictions = tmp_path / "r.json", tmp_path / "r.parquet"
    train_classifier(out=out, **settings)
    stated = read_result(out).values["predictions_sha256"]
    assert stated == sha256_file(predictions)
    flip(predictions, 100)
    train_classifier(out=out, **settings)  # made again, since they are others'
    assert sha256_file(predictions) == stated


DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
from classifiers.data import batches
from classifiers.training import experiment
from classifiers.training import predictions
from classifiers.training import loop as training
from classifiers.train_classifier import train_classifier

torch.set_num_threads(1)
train, recipe, folder, *counts = sys.argv[1:]
replaced, unlinked = Path.replace, Path.unlink

def call(writes):  # killed at the write after so many
    def replace(path, target):
        nonlocal writes
        writes -= 1
        if writes == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        return replaced(path, target)
    def unlink(path, *arguments, **settings):
        if writes == 0 and path.suffix == ".state":
            os.kill(os.getpid(), signal.SIGKILL)
        return unlinked(path, *arguments, **settings)
    Path.replace, Path.unlink = replace, unlink
    out = Path(folder) / "r.json"
    save = out.with_suffix(".safetensors")
    train_classifier([train], train, out, recipe, steps=3, save=save, state_every=0, as_json=True)

for count in counts:
    if os.fork() == 0:
        call(int(count))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_killed_at_each_of_its_writes_it_ends_as_if_undisturbed(
    real: Path, recipe_file: Path, tmp_path: Path
) -> None:
    def calls(name: str, *writes: int) -> list[int]:
        (tmp_path / name).mkdir()
        options = [real, recipe_file, tmp_path / name, *writes]
        done = run(["python", "-c", DRIVER, *options])
        return [int(line) for line in done.stdout.splitlines() if line.lstrip("-").isdecimal()]

    def left(name: str) -> dict[str, object]:
        files = {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}
        return {**files, "r.json": read_result(tmp_path / name / "r.json").values}

    assert calls("whole", 99) == [0]
    # at the first state, the second, the classifier, predictions, result, the state's removal
    assert calls("killed", 0, 1, 1, 1, 2, 3, 99) == [-signal.SIGKILL] * 6 + [0]
    assert set(left("whole")) == {"r.json", "r.parquet", "r.safetensors"}
    assert left("killed") == left("whole")
