"""docs/consuming.md: its examples, run as printed; those for DuckDB and Polars where they are."""

import re
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from release.layout.manifest import read_manifest
from release.layout.readme import write_readme
from tests.sets.shapes import make_images, write_release

DOCUMENT = Path(__file__).parents[2] / "docs" / "consuming.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two releases that the document speaks of."""
    folder = tmp_path_factory.mktemp("consuming")
    splits = {"train": make_images(5, 1), "test": make_images(3, 2)}
    for name, kind in (("fashion-mnist-32", "synthetic"), ("fashion-mnist-real", "real")):
        own = splits if kind == "real" else {"train": splits["train"]}
        release = write_release(folder / "releases" / name, own, kind, configs=("16", "32"))
        write_readme(release, read_manifest(release))
    return folder


@pytest.fixture
def names(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the document's first example has defined."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    return {
        "load_dataset": load_dataset,
        "images": load_dataset("releases/fashion-mnist-32", "32", split="train"),
    }


def example(heading: str, language: str = "python", number: int = 0) -> str:
    """A code block of a section."""
    section = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[number]


def test_a_stream_has_all_rows(names: dict[str, Any]) -> None:
    exec(example("Stream"), names)
    assert len({row["image_id"] for row in names["few"]}) == 4
    assert sum(1 for _ in names["stream"]) == len(names["images"])


def query(number: int) -> str:
    """The example of a library; shapes have no seeds."""
    code = example("Query with DuckDB or Polars", number=number)
    return code.replace(", count(distinct seed) as seeds", "")


def test_duckdb_counts_the_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb = pytest.importorskip("duckdb")
    duckdb.sql(f"set file_search_path = '{place}'")
    exec(query(0), {})
    assert "5" in capsys.readouterr().out


def test_polars_reads_rows_and_images(names: dict[str, Any]) -> None:
    pytest.importorskip("polars")
    exec(query(1), names)
    assert names["first_row"]["label"][0] == 0
    assert names["picture"].size == (16, 16)


def test_torchs_loader(names: dict[str, Any]) -> None:
    code = example("Train with PyTorch").replace(', batch["prompt"][0]', "")  # shapes have none
    exec(code, names)
    assert names["batch"]["image"].shape == (16, 3, 16, 16)


def test_timm_finds_the_split_it_is_told(names: dict[str, Any]) -> None:
    exec(example("Train with timm"), names)
    assert len(names["held_out"]) == 18
    image, label = names["held_out"][0]
    assert (image.size, label) == ((16, 16), 0)
    assert "hfds//data/releases/fashion-mnist-real" in example("Train with timm", "sh")


def test_part_of_a_split(names: dict[str, Any]) -> None:
    exec(example("Take part of a split"), names)
    assert (names["name"], len(names["first_class"]), len(names["some"])) == ("left", 5, 5)
    assert set(names["some"]["label"]) == {0}


def test_webdataset_shards_hold_the_same_bytes(names: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    exec(example("Write WebDataset shards").replace("train-000000.tar", str(path)), names)
    read = load_dataset("webdataset", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert [row["image_id"] for row in read["json"]] == list(names["images"]["image_id"])
    assert read["cls"] == list(names["images"]["label"])
    for own, other in zip(read["png"], names["images"]["image"], strict=True):
        assert own.tobytes() == other.tobytes()
