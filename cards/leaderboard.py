"""The command `leaderboard`: what was measured, what was published, like with like."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from release.commands.command import run_command, say
from release.commands.named_files import require_folder
from release.commands.terminal import printable
from release.files.storage import release_path

NAMED = 5  # files that are passed over are counted, the first ones named


def leaderboard(
    results: Annotated[Path, typer.Argument(help="folder of result files (*.json, any depth)")],
    out: Annotated[
        Path | None,
        typer.Option(help="folder for index.html, leaderboard.md, .csv and .json, classes.csv"),
    ] = None,
    release: Annotated[
        list[str] | None,
        typer.Option(help="show images, sampler and cost of this release; repeatable"),
    ] = None,
    published: Annotated[
        bool, typer.Option(help="the paper's ImageNet tables, though nothing was measured on it")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="print every row of every table")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the board as JSON")] = False,
) -> None:
    """Rank what was measured; without --out, print the answer and the first rows.

    Only results on one data set, by one protocol and against one reference share a ranking. Reports
    of run-study, select-sampler and select-checkpoint below the folder are shown, too.

    leaderboard results

    leaderboard results --out site --release releases/fashion-mnist-32
    """
    from cards.board.board import assemble_board
    from cards.measured.result_folder import read_folder
    from cards.pages.data_files import board_data
    from cards.pages.page import write_site
    from release.layout.latents import refuse_latents
    from release.layout.manifest import read_manifest

    if out is not None:
        require_folder(out, "--out")
    found = read_folder(results, quiet=json_)
    shown = [release_path(r) for r in release or []]
    for one in shown:
        refuse_latents(one, read_manifest(one))
    facets = assemble_board(found, shown, published=published)
    if not found.datasets:
        say(f"{results} holds no results; what follows was published, not measured here")
    _say_passed_over(results, found.passed_over)
    written = write_site(facets, out) if out is not None else []
    if json_:
        files = [path.as_posix() for path in written]
        board = board_data(facets).model_dump(mode="json")
        print(json.dumps({"board": board, "files": files}, ensure_ascii=False))
    elif written:
        print("\n".join(path.as_posix() for path in written))
    else:
        from cards.pages.terminal import print_board

        print_board(facets, every=all_)


def _say_passed_over(folder: Path, files: Sequence[Path]) -> None:
    """On standard error, so that it is in nobody's data."""
    if files:
        names = [printable(path.relative_to(folder).as_posix()) for path in files]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        what = (
            "JSON file that is no result" if len(names) == 1 else "JSON files that are no results"
        )
        line = f"passed over {len(names)} {what}: {', '.join(names[:NAMED])}{more}"
        print(line, file=sys.stderr)


def main() -> None:
    """Console entry point."""
    run_command(leaderboard)


if __name__ == "__main__":
    main()
