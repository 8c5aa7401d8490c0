"""The command `render-card`: what people and machines read of a release, from what was recorded."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from release.commands.command import run_command
from release.errors import UserError
from release.files.commit import remove_temporaries, sha256_bytes, write_atomically
from release.files.storage import ReleasePath, read_text, release_name, release_path
from release.layout.latents import refuse_latents
from release.layout.manifest import Manifest, read_manifest
from release.layout.readme import remove_documents
from release.lease import claimed

if TYPE_CHECKING:
    from cards.drawing.sample_grid import Samples

README = "README.md"
PICTURES = "samples"  # how their names begin
FENCE = "---\n"
MEASURED = "\n## What was measured\n"  # the heading of the card's results


def render_card(
    release: Annotated[str, typer.Argument(help="folder or URL of a release")],
    results: Annotated[
        Path | None, typer.Option(help="folder of result files; those about this release are shown")
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(help="OWNER/NAME on the Hub, for the snippets and the Croissant document"),
    ] = None,
    per_class: Annotated[int, typer.Option(help="images of each class in the picture")] = 10,
    published: Annotated[
        str | None,
        typer.Option(help="YYYY-MM-DD; by default the day these images got their first card"),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="render though accuracies or distances were not measured"
        ),
    ] = False,
    drop_results: Annotated[
        bool, typer.Option("--drop-results", help="render without the results of the standing card")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write a release's card: the body of README.md, its pictures, and croissant.json.

    The YAML on top of README.md stays as it is. Every fact comes from the manifest and the result
    files; a missing one is an error. Hashes of what was written go into the manifest.

    render-card releases/fashion-mnist-32 --results results --allow-missing
    """
    from cards.drawing.sample_grid import require_shown

    require_shown(per_class)
    if repo is not None and (repo.count("/") != 1 or "" in repo.split("/")):
        raise UserError(f"--repo {repo!r} is no name on the Hub: give OWNER/NAME")
    if results is not None and drop_results:
        raise UserError("--results and --drop-results exclude each other")
    folder = release_path(release)
    refuse_latents(folder, read_manifest(folder))  # before anything is locked there
    if results is None and not drop_results:
        require_no_measurements(folder / README)
    with claimed(folder):
        manifest = read_manifest(folder)
        day = publication_day(folder, manifest, published)
        contents = card_files(folder, manifest, per_class, results, repo, day, allow_missing)
        written = write_card(folder, manifest, contents)
    if json_:
        print(json.dumps({"release": str(folder), "sha256": written}))
    else:
        print("\n".join(str(folder / name) for name in written))


def card_files(
    folder: ReleasePath,
    manifest: Manifest,
    per_class: int,
    results: Path | None,
    repo: str | None,
    day: date,
    allow_missing: bool,
) -> dict[str, bytes]:
    """The content of each file by name, README.md last."""
    from cards.card.body import card_body
    from cards.card.croissant import CROISSANT_FILE, croissant_json
    from cards.drawing.sample_grid import CELL, SHOWN, draw_grid, png_bytes, read_groups

    contract = load_contract(folder / README)
    groups = read_groups(folder, per_class)
    pictures = picture_names(groups)
    location = repo or f"./{release_name(folder)}"
    body = card_body(manifest, pictures, results, location, day, allow_missing=allow_missing)
    most = SHOWN if len(groups) == 1 else CELL
    return {
        **{name: png_bytes(draw_grid(samples, most)) for name, samples in pictures.items()},
        CROISSANT_FILE: croissant_json(folder, manifest, repo, day),
        README: (contract + body).encode(),
    }


def require_no_measurements(readme: ReleasePath) -> None:
    """UserError if the standing card shows results, which a card without --results would erase."""
    try:
        text = read_text(readme)
    except FileNotFoundError:
        return  # `load_contract` says what is missing
    if MEASURED in text:
        raise UserError(
            f"{readme} shows measurements, which would be lost: give --results again, or "
            "--drop-results to render without them"
        )


def write_card(
    folder: ReleasePath, manifest: Manifest, contents: dict[str, bytes]
) -> dict[str, str]:
    """The files, then the manifest that notes their hashes; pictures of an earlier card go."""
    written = {name: sha256_bytes(content) for name, content in contents.items()}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    stale = {n for n in manifest.documents if n.startswith(PICTURES) and n not in written}
    kept = {n: sha256 for n, sha256 in manifest.documents.items() if n not in stale}
    replace(manifest, documents=kept | written).write(folder)
    remove_documents(folder, stale)
    remove_temporaries(folder)
    return written


def picture_names(groups: "Sequence[Samples]") -> dict[str, "Samples"]:
    """One picture is samples.png, several are numbered."""
    if len(groups) == 1:
        return {f"{PICTURES}.png": groups[0]}
    return {f"{PICTURES}-{number:02d}.png": samples for number, samples in enumerate(groups)}


def publication_day(folder: ReleasePath, manifest: Manifest, given: str | None) -> date:
    """As given, else that of the standing document about these very images, else today in UTC."""
    from cards.card.croissant import CROISSANT_FILE

    if given is not None:
        try:
            return date.fromisoformat(given)
        except ValueError:
            raise UserError(f"--published {given!r} is no date: give YYYY-MM-DD") from None
    try:
        standing = json.loads(read_text(folder / CROISSANT_FILE))
        if standing["identifier"] == f"sha256:{manifest.content_sha256}":
            return date.fromisoformat(standing["datePublished"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return datetime.now(UTC).date()


def load_contract(readme: ReleasePath) -> str:
    """The YAML at the top of a release's README, fences included, as the builder wrote it."""
    try:
        text = read_text(readme)
    except FileNotFoundError:
        raise UserError(f"{readme} is missing; build-dataset writes it, run it again") from None
    except ValueError:
        raise UserError(f"{readme} is damaged: `release repair` writes it again") from None
    end = text.find("\n" + FENCE, len(FENCE) - 1)
    if not text.startswith(FENCE) or end < 0:
        raise UserError(f"{readme} does not start with YAML between two lines of ---")
    return text[: end + 1 + len(FENCE)]


def main() -> None:
    """Console entry point."""
    run_command(render_card)


if __name__ == "__main__":
    main()
