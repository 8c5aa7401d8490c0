"""Data sets of the Hub, and whatever else `datasets` loads."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from release.commands.named_files import nearest_folder
from release.errors import UserError
from release.files.hub import asking_hub
from release.real_sources.source import RealSource, SourceName
from release.real_sources.tables import read_tables

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?", re.ASCII)  # as the Hub allows; else a path


def read_hub(wanted: SourceName, name: str) -> RealSource:
    """`org/name` or `org/name:config`, as a source called `name`; UserError if out of reach."""
    path, _, config = wanted.name.partition(":")
    hint = "apt-get install dataset-fashion-mnist, or " if name == "fashion-mnist" else ""
    if Path(wanted.name).is_file():
        raise UserError(f"real data {wanted.name!r} is a file: name the folder that it is in")
    near = nearest_folder(Path(path))
    if not HUB_NAME.fullmatch(path):
        raise UserError(f"real data {wanted.name!r} is not at hand: there is no such folder{near}")
    if near and "/" not in path:  # a mistyped folder: the Hub would be asked for half a minute
        raise UserError(
            f"real data {wanted.name!r} is not at hand: there is no such folder{near}; a data set "
            "of the Hub is OWNER/NAME"
        )
    with (
        asking_hub() as out_of_reach,
        loading(
            f"real data {wanted.name!r} is not at hand",
            f"there is no such folder; {hint}name one CLASS/image or SPLIT/CLASS/image, or a data "
            f"set that load_dataset finds{near}",
            out_of_reach,
        ),
    ):
        data, builder = load(path, config or None)
    source = read_tables(data, wanted, name, builder.info.license or "unknown")
    chosen = builder.config.name
    remarks = () if config or chosen == "default" else (f"configuration {chosen}",)
    commit = builder.hash
    return replace(source, revision=commit, remarks=(*remarks, *source.remarks))


def load(path: str, config: str | None) -> tuple[dict[str, Any], Any]:
    """Every split, and the builder they came from. UserError for several configurations."""
    from datasets import (
        disable_progress_bars,
        get_dataset_config_names,
        load_dataset,
        load_dataset_builder,
    )

    if not sys.stderr.isatty():  # a bar that is redrawn would make thousands of lines of a log
        disable_progress_bars()
    if config is None:
        configs = sorted(get_dataset_config_names(path))
        if len(configs) > 1:
            raise UserError(
                f"{path} has {len(configs)} configurations: name one, as "
                f"--real {path}:{configs[0]} does; it has {', '.join(configs)}"
            )
    return load_dataset(path, config), load_dataset_builder(path, config)


@contextmanager
def loading(what: str, advice: str, out_of_reach: str = "") -> Iterator[None]:
    """Errors of `datasets` as one line: `what`, why, and what to do. out_of_reach: why the Hub is.

    It raises OSError and ValueError for missing data and for files that do not fit together,
    RuntimeError for a data set with a script, and its own kinds while a data set is made.
    """
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if out_of_reach and isinstance(error, ConnectionError):
            raise UserError(f"{what} ({out_of_reach}): {advice}") from None
        reason = _first_line(error)
        cause = _first_line(error.__cause__) if error.__cause__ else ""
        because = f": {cause}" if cause and cause not in reason else ""
        raise UserError(f"{what} ({reason}{because}): {advice}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip() or type(error).__name__
