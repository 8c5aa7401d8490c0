"""run-study on a running cluster: two processes a training, a thousand classes in colour."""

import json
from pathlib import Path

import numpy as np
import pytest

from builder.cluster import waiting
from classifiers.run_study import run_study
from release.classes.class_list import ClassEntry
from release.layout.image_sets import LabelledImages
from release.results.result import read_result
from tests.servers.forked_workers import forked_workers
from tests.sets.painter import paint
from tests.sets.shapes import changed, recipe_toml, write_release

MANY = tuple(ClassEntry(i, f"w{i:04d}", f"thing {i}", f"a thing {i}") for i in range(1000))
STUDY = """
name = "many"
sizes = ["all"]
seeds = [0]
[real]
source = "many"
release = "{place}/real"
classes = 1000
per_class = 1
[[generated]]
name = "drawn"
release = "{place}/drawn"
[[model]]
recipe = "{place}/tiny.toml"
[[arm]]
kind = "real"
[[arm]]
kind = "generated"
"""


def images(seed: int) -> LabelledImages:
    """One of each class."""
    return LabelledImages(
        images=np.stack([paint(label, 1000 * seed + label, 16, 10) for label in range(1000)]),
        labels=np.arange(1000),
        image_ids=tuple(f"{seed}-{label:04d}" for label in range(1000)),
        class_ids=tuple(c.wnid for c in MANY),
        class_names=tuple(c.name for c in MANY),
    )


def test_trainings_of_two_processes_on_a_running_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.2)
    write_release(tmp_path / "real", {"train": images(1), "test": images(2)}, classes=MANY)
    write_release(tmp_path / "drawn", {"train": images(3)}, "synthetic", classes=MANY)
    recipe = changed(channels=3, mean=[0.5] * 3, std=[0.25] * 3, batch=250, epochs=1)
    (tmp_path / "tiny.toml").write_text(recipe_toml(recipe))
    (tmp_path / "many.toml").write_text(STUDY.format(place=tmp_path))
    (tmp_path / "dask").mkdir()
    with forked_workers(tmp_path / "dask", 0) as workers:
        workers.start(GPU=2)  # as one with two GPUs would say; here they are none
        run_study(
            str(tmp_path / "many.toml"),
            out=tmp_path / "out",
            scheduler=workers.cluster.address,
            threads=1,
            processes=2,
            as_json=True,
        )
    report = json.loads(Path(json.loads(capsys.readouterr().out)["report"]).read_text())
    assert [row["arm"] for row in report["rows"]] == ["real", "generated-drawn-x1"]
    for row in report["rows"]:
        result = read_result(tmp_path / "out" / row["results"][0])
        assert result.environment["processes"] == 2
        assert row["top1"]["n"] == 1000
