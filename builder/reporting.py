"""What a build or an import says at its end: where the release is, how to load it, what failed."""

import glob
import json
from pathlib import Path
from typing import Any

from builder.builds.run import Outcome
from release.commands.command import say
from release.files.storage import ReleasePath
from release.layout.manifest import Manifest
from release.layout.shard_files import leading_split, shard_format, shard_name
from release.layout.training_views import lagging

EXIT_QUARANTINED = 3  # the rest is done


def report_outcome(outcome: Outcome, release: ReleasePath, as_json: bool) -> int:
    """Where the release is and how to load it, what is quarantined; the exit code."""
    if as_json:
        print(json.dumps(_summary(outcome, release), indent=2))
    elif outcome.manifest is not None:
        _print_how_to_load(outcome.manifest, release)
    left_out = outcome.manifest.origin.get("left_out") if outcome.manifest else None
    if left_out:
        first_file = f"{left_out[0]['file']} of {left_out[0]['split']} {left_out[0]['reason']}"
        say(f"left out: {len(left_out):,} images, the first {first_file} (see the manifest)")
    for name, text in (lagging(outcome.manifest) if outcome.manifest else {}).items():
        say(f"training view {name} {text}")
    if not outcome.quarantined:
        return 0
    first = outcome.quarantined[0]
    say(
        f"quarantined: {len(outcome.quarantined)} shards, {len(outcome.waiting)} more wait on "
        f"them; the rest is done. {first.path}: {first.reason} (see {release / 'quarantine'}; "
        "rerun the same command to try again)"
    )
    return EXIT_QUARANTINED


def _summary(outcome: Outcome, release: ReleasePath) -> dict[str, Any]:
    manifest = outcome.manifest
    configs = manifest.splits() if manifest else {}
    return {
        "release": str(release),
        "kind": manifest and manifest.kind,
        "content_sha256": manifest and manifest.content_sha256,
        "rows": {c: {s: manifest.rows(c, s) for s in configs[c]} for c in configs if manifest},
        "empty_slots": {
            c: {s: manifest.quarantined(c, s).total() for s in configs[c]}
            for c in configs
            if manifest
        },
        "quarantined": {failure.path: failure.reason for failure in outcome.quarantined},
        "waiting": list(outcome.waiting),
        "lagging_views": lagging(manifest) if manifest else {},
        "left_out": manifest.origin.get("left_out", []) if manifest else [],
    }


def _print_how_to_load(manifest: Manifest, release: ReleasePath) -> None:
    configs = manifest.splits()
    config = next(reversed(manifest.base.splits()))
    split = leading_split(configs[config])
    rows_text = "; ".join(
        f"{c}: " + ", ".join(f"{s} {manifest.rows(c, s):,}" for s in splits)
        for c, splits in configs.items()
    )
    print(f"release {release}  ({rows_text} images)")
    empty = {c: manifest.quarantined(c, s).total() for c, splits in configs.items() for s in splits}
    if any(empty.values()):
        counts = ", ".join(f"{c}: {count:,}" for c, count in empty.items() if count)
        print(f"slots left empty ({counts}): no attempt was accepted; reasons in rejections/")
    file_format = shard_format(manifest.shards[0].path)
    print("load it with:")
    local = isinstance(release, Path)
    if file_format == "arrow" and local:
        print("  from datasets import load_from_disk")
        print(f"  images = load_from_disk({_quoted(f'{release}/{config}/{split}')})")
        return
    print("  from datasets import load_dataset")
    literal = glob.escape(str(release)) if local else str(release)
    if local and literal == str(release):
        print(f'  images = load_dataset({_quoted(literal)}, "{config}", split="{split}")')
        return
    # load_dataset takes a folder's name for a pattern, so that [ and ? in it have to be escaped
    files = _quoted(f"{literal}/{shard_name(config, split, '*', file_format)}")
    print(f'  images = load_dataset("{file_format}", data_files={files}, split="train")')


def _quoted(text: str) -> str:
    """As Python reads it."""
    return json.dumps(text, ensure_ascii=False)
