"""Data sets in a local folder: what load_dataset reads, and what save_to_disk wrote."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from release.classes.class_list import class_difference
from release.errors import UserError
from release.real_sources.files import list_folder
from release.real_sources.hub import load, loading
from release.real_sources.source import RealSource, SourceName
from release.real_sources.tables import read_tables
from release.real_sources.tars import ARCHIVES

SAVED = ("dataset_dict.json", "state.json")  # of a DatasetDict, of one Dataset
TABLES = (".parquet", ".arrow", ".tar")
ADVICE = "mend or remove the files that do not fit"


def is_data_set(folder: Path) -> bool:
    """Whether tables or their description stand in `folder` or right below it."""
    folders, files = list_folder(folder)
    below = [name for inner in folders for name in list_folder(folder / inner)[1]]
    return (
        any(name in files for name in SAVED)
        or any(n.endswith(TABLES) and n not in ARCHIVES.values() for n in (*files, *below))
        or _describes_files(folder / "README.md")
    )


def _describes_files(card: Path) -> bool:
    """A card of a data set whose header says where its files stand."""
    if not card.is_file():
        return False
    header = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
    return header.startswith("---") and "\nconfigs:" in header


def read_local(folder: Path, config: str | None, wanted: SourceName) -> RealSource:
    """UserError for files that `datasets` cannot read as one data set."""
    name = folder.resolve().name
    with loading(f"{folder} cannot be read as a data set", ADVICE):
        if any((folder / file).is_file() for file in SAVED):
            return _saved(folder, config, wanted, name)
        data, builder = load(str(folder), config)
        _require_one_list_of_names(folder, builder)
    return read_tables(data, wanted, name, builder.info.license or "unknown")


def _require_one_list_of_names(folder: Path, builder: Any) -> None:
    """load_dataset reads every file's numbers by the names of the first one."""
    first: dict[str, tuple[Path, list[str]]] = {}
    for files in (builder.config.data_files or {}).values():
        for file in map(Path, files):
            for column, names in _label_names(file).items():
                earlier, theirs = first.setdefault(column, (file, names))
                difference = class_difference(names, theirs)
                if difference is not None:
                    raise UserError(
                        f"{folder}: {file.name} and {earlier.name} have other names for the labels "
                        f"in {column!r}: {difference}"
                    )


def _label_names(file: Path) -> dict[str, list[str]]:
    """Names of the labels of each column that has them, as the file itself says."""
    if file.suffix != ".parquet":
        return {}
    metadata = pq.read_schema(file).metadata or {}
    about = json.loads(metadata.get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features") or {}
    return {column: f["names"] for column, f in features.items() if "names" in f}


def _saved(folder: Path, config: str | None, wanted: SourceName, name: str) -> RealSource:
    from datasets import DatasetDict, load_from_disk

    if config is not None:
        raise UserError(f"{folder} was written by save_to_disk: it has no configurations")
    loaded: Any = load_from_disk(str(folder))
    data = loaded if isinstance(loaded, DatasetDict) else {str(loaded.split or "train"): loaded}
    first = next(iter(data.values()))
    return read_tables(dict(data), wanted, name, first.info.license or "unknown")
