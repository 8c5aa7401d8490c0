"""Selections on a running cluster: a thousand classes in colour, a classifier of any size."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builder.builds.build import BuildPlan, plan_build
from cards.board.selection import selection_table
from cards.measured.result_folder import read_folder
from classifiers.training.checkpoint import save_classifier
from generation.families import trained_checkpoint
from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.networks.timm_classifier import build_model
from metrics.select_checkpoint import select_checkpoint
from metrics.select_sampler import select_sampler
from release.classes.class_list import ClassEntry, load_classes
from release.errors import UserError
from release.layout.image_sets import LabelledImages
from release.results.result import read_result
from tests.conftest import FACTS
from tests.models.tiny_network import tiny_conditioned, tiny_network
from tests.servers.forked_workers import forked_workers
from tests.sets import small_releases
from tests.sets.painter import paint
from tests.sets.shapes import changed, recipe_toml, write_release

MANY = tuple(ClassEntry(i, f"w{i:04d}", f"thing {i}", f"a thing {i}") for i in range(1000))
RECIPE = """
name = "painter"
description = "bright quarters"
classes = "{classes}"
dataset = "shapes"
regime = "A"
license = "mit"

[[stage]]
resolution = 8
generator = "{first}"
checkpoint = "8"
batch = {batch}
sampler = {{ steps = 2 }}

[[stage]]
resolution = 16
generator = "{second}"
checkpoint = "16"
batch = {batch}
sampler = {{ steps = 2 }}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """How a command reaches two workers that run in a folder of their own."""
    with forked_workers(tmp_path_factory.mktemp("dask"), 2) as workers:
        yield {"scheduler": workers.cluster.address}


def write_recipe(path: Path, classes: tuple[ClassEntry, ...], batch: int, **stages: str) -> Path:
    rows = [f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in classes]
    names = path.with_suffix(".csv")
    names.write_text("\n".join(["id,wnid,name,prompt", *rows]) + "\n")
    path.write_text(RECIPE.format(classes=names, batch=batch, **stages))
    return path


def write_extractor(path: Path, classes: tuple[ClassEntry, ...], side: int) -> str:
    """Features of an untrained classifier: any do where nothing is measured."""
    torch.manual_seed(0)
    recipe = changed(resolution=side, channels=3, mean=[0.5] * 3, std=[0.25] * 3)
    model = build_model(recipe, len(classes))
    save_classifier(path, model, recipe, tuple(c.wnid for c in classes))
    return f"classifier@{path}"


def real_images(classes: tuple[ClassEntry, ...], side: int) -> LabelledImages:
    """Five of each class, every fifth of all of them for tuning."""
    labels = np.repeat(np.arange(len(classes)), 5)
    return LabelledImages(
        images=np.stack([paint(c, 10_000 + i, side, 10) for i, c in enumerate(labels)]),
        labels=labels,
        image_ids=tuple(f"r{i:05d}" for i in range(len(labels))),
        class_ids=tuple(c.wnid for c in classes),
        class_names=tuple(c.name for c in classes),
    )


def test_cas_of_a_thousand_classes_by_a_classifier_of_another_size(
    tmp_path: Path,
    cluster: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Images of 8 px, real and generated, are brought to 20 px; what is finished stays so.

    Every release is planned once a command, its classes are loaded once.
    """
    calls: Counter[str] = Counter()

    def counted_plan(*arguments: Any) -> BuildPlan:
        calls[str(arguments[4])] += 1
        return plan_build(*arguments)

    def counted_load(name: str) -> tuple[ClassEntry, ...]:
        calls[name] += 1
        return load_classes(name)

    monkeypatch.setattr("metrics.selection.selection.plan_build", counted_plan)
    monkeypatch.setattr("metrics.selection.selection.load_classes", counted_load)
    real = write_release(tmp_path / "real", {"train": real_images(MANY, 8)}, "real", classes=MANY,
                         configs=("8",))  # fmt: skip
    view = {"crop_share": 0.875, "interpolation": "bilinear"}
    classifier = changed(resolution=20, channels=3, mean=[0.5] * 3, std=[0.25] * 3, epochs=1,
                         batch=250, view=view)  # fmt: skip
    (tmp_path / "twenty.toml").write_text(recipe_toml(classifier))
    settings: dict[str, Any] = {
        "recipe": str(write_recipe(tmp_path / "many.toml", MANY, 250, first="tests.sets.painter",
                                   second="tests.sets.painter")),
        "real": real, "out": tmp_path / "out", "guidance": "1.25,2", "per_class": 1,
        "short_list": 2, "classifier": str(tmp_path / "twenty.toml"), "seeds": "0,1",
        "extractor": write_extractor(tmp_path / "extractor.safetensors", MANY, 8),
        "cache": tmp_path / "cache", "device": "cpu", "as_json": True, **cluster,
    }  # fmt: skip
    select_sampler(**settings)
    found = json.loads(capsys.readouterr().out)
    assert len(calls) == 2 + 2 + 1  # two points, their larger releases, the list of classes
    assert set(calls.values()) == {1}
    assert found["chosen_by"] == "cas"
    assert found["cas_protocol"]["images"] == {"resolution": 8, "view": view}
    (report,) = read_folder(tmp_path / "out").selections
    notes = " ".join(selection_table(report, "key").footnotes)
    assert "1 images of each class of 8 px brought to 20 px" in notes
    trained = sorted((tmp_path / "out/results").glob("*/cas-*.json"))
    assert [path.name for path in trained] == [f"cas-tiny-8px-1-seed{s}.json" for s in (0, 1)] * 2
    for path in trained:
        result = read_result(path)
        assert (result.subject["train"][0]["config"], result.reference["config"]) == ("8", "8")
        assert (result.protocol["resolution"], result.protocol["view"]) == (20, view)
        assert result.reference["split"] == "tuning"
        assert result.subject["train"][0]["images"] == result.reference["n"] == 1000
        assert path.with_suffix(".parquet").is_file()
    trained[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in trained[1:]}
    select_sampler(**settings)
    assert json.loads(capsys.readouterr().out)["points"] == found["points"]
    assert {path: path.stat().st_mtime_ns for path in trained[1:]} == before


def test_who_names_no_classifier_gets_one_for_the_images_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "metrics.selection.sampler_sweep.run_selection", lambda run, *_, **__: seen.append(run)
    )
    classes = small_releases.CLASSES
    recipe = write_recipe(tmp_path / "four.toml", classes, 4, first="tests.sets.painter",
                          second="tests.sets.painter")  # fmt: skip
    for name, channels in (("colour", 3), ("grey", 1)):
        data = real_images(classes, 16)
        pixels = data.images[..., :channels].repeat(3 // channels, axis=3)
        splits = {"train": LabelledImages(**{**vars(data), "images": pixels})}
        real = write_release(tmp_path / name, splits, "real", classes=classes)
        select_sampler(recipe=str(recipe), real=real, out=tmp_path / "out", stage=16)
    names = [(run.cas.classifier.name, run.cas.stage) for run in seen]
    assert names == [("small-resnet-32", 16), ("fashion-mnist-small", 16)]


def save_runs(folder: Path) -> None:
    """Two checkpoints of each: told a class, told nothing, and one that doubles what it gets and
    has learned its variance."""
    prompts = tuple(c.prompt for c in small_releases.CLASSES)
    networks = {
        "class": tiny_conditioned("class", prompts),
        "none": tiny_conditioned("none", prompts),
        "double": tiny_network(8, prompts=(*prompts, ""), channels=3, variance="learned"),
    }
    for name, network in networks.items():
        for step in (1, 2):
            network.unet.conv_out.bias.data.fill_(0.5 * step)
            save_checkpoint(network, folder / name / f"checkpoints/{step}", torch.float16)


def test_checkpoints_of_every_kind_of_run_are_chosen_among(
    tmp_path: Path, cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    classes = small_releases.CLASSES
    save_runs(tmp_path)
    recipe = write_recipe(tmp_path / "four.toml", classes, 4, first="pixel-unet",
                          second="pixel-unet")  # fmt: skip
    text = recipe.read_text().replace('checkpoint = "16"', f'checkpoint = "none"\n{FACTS}')
    recipe.write_text(text.replace('"8"', f'"{tmp_path}/class/checkpoints/1"'))
    for run, side in (("class", 8), ("double", 16), ("none", 8)):
        real = tmp_path / f"real{side}"
        if not real.exists():
            splits = {"train": real_images(classes, side)}
            write_release(real, splits, "real", classes=classes, configs=(str(side),))
        settings: dict[str, Any] = {
            "recipe": str(recipe), "real": real, "out": tmp_path / f"chosen-{run}", "per_class": 1,
            "extractor": write_extractor(tmp_path / "extractor.safetensors", classes, 16),
            "cache": tmp_path / "cache", "device": "cpu", "as_json": True, **cluster,
        }  # fmt: skip
        if run == "none":  # it cannot stand for a class
            with pytest.raises(UserError, match="class"):
                select_checkpoint([tmp_path / run], **settings)
            continue
        select_checkpoint([tmp_path / run], **settings)
        found = json.loads(capsys.readouterr().out)
        assert len(found["points"]) == 2
        best = min(found["points"], key=lambda row: row["fd"]["value"])
        assert found["chosen"] == best["name"]
        assert 'generator = "pixel-unet"' in Path(found["recipe_file"]).read_text()


def test_a_folder_of_no_trained_generator_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no checkpoint of a generator that .*: adm, .*pixel-unet, rin,"
    ):
        trained_checkpoint(tmp_path)
