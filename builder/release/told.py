"""What the command `release` tells of its work: lines, or a JSON document."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from release.commands.terminal import counted
from release.files.storage import ReleasePath
from release.layout.findings import Report
from release.layout.latents import FOLDER

if TYPE_CHECKING:
    from builder.release.reproduce import Comparison


def print_repair(
    release: ReleasePath,
    again: Sequence[str],
    changed: Sequence[str],
    report: Report,
    as_json: bool,
) -> None:
    """Which shards were made again, and what is wrong still."""
    if as_json:
        content = {
            "release": str(release),
            "intact": report.intact,
            "made_again": list(again),
            "changed": list(changed),
            "problems": [{"path": p.path, "problem": p.text} for p in report.problems],
        }
        print(json.dumps(content, indent=2))
        return
    for path in again:
        print(f"{path}: made again{', with other bytes' if path in changed else ''}")
    for problem in report.problems:
        print(problem)
    if any(problem.path.startswith(f"{FOLDER}/") for problem in report.problems):
        print("release encode makes latents again; give it the settings they were made with")
    problems = counted(len(report.problems), "problem")
    state = f"{problems} left" if report.problems else "intact"
    print(f"{release}: {state} ({counted(len(again), 'shard')} made again)")


def print_comparisons(release: ReleasePath, found: Sequence["Comparison"], as_json: bool) -> None:
    """Each image made again beside the stored one."""
    if as_json:
        images = [
            {
                "image_id": c.image_id,
                "same_pixels": c.same_pixels,
                "same_bytes": c.same_bytes,
                "largest_difference": c.largest_difference,
                "made_with": c.environment,
            }
            for c in found
        ]
        print(json.dumps({"release": str(release), "images": images}, indent=2))
        return
    for comparison in found:
        print(comparison)
    for difference in sorted({c.environment for c in found if c.environment is not None}):
        print(f"made with {difference}: equal pixels are not promised")
    same = sum(c.same_pixels for c in found)
    print(f"{release}: {same} of {len(found)} images have the same pixels")


def print_report(release: ReleasePath, report: Report, seconds: float, as_json: bool) -> None:
    """What verifying found."""
    if as_json:
        content = {
            "release": str(release),
            "intact": report.intact,
            "shards": report.shards,
            "images": report.images,
            "bytes": report.bytes,
            "seconds": round(seconds, 2),
            "problems": [{"path": p.path, "problem": p.text} for p in report.problems],
        }
        print(json.dumps(content, indent=2))
        return
    for problem in report.problems:
        print(problem)
    found = counted(len(report.problems), "problem") if report.problems else "intact"
    print(
        f"{release}: {found} ({counted(report.shards, 'shard')}, "
        f"{counted(report.images, 'image')}, "
        f"{report.bytes / 1e6:,.1f} MB in {seconds:.1f} s)"
    )
