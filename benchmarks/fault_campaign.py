"""Break builds in every way at seeded moments, rerun them, compare every byte.

    python benchmarks/fault_campaign.py --out results/fault_campaign.json
    python benchmarks/fault_campaign.py --out /tmp/one.json --moments 1 --kinds "Ctrl-C"

Each trial is one fault of tests/fault_kinds.py at a moment that its name and number decide, on a
build of the stand-in generator (90 images, 18 shards, 3 stages) or of the embedded model; it ends
when the release is finished, and is compared with an undisturbed build. Trials already in the file
are not done again: rerun the command to go on. A table for people stands beside it, as .md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import track

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from builder.recipe import BUILTIN  # noqa: E402 - run as a script, its tests are beside it
from builder.results import environment  # noqa: E402
from tests import fault_kinds  # noqa: E402
from tests.conftest import STAND_IN_RECIPE, release_bytes  # noqa: E402
from tests.fault_kinds import KINDS, Site  # noqa: E402

EMBEDDED = ("kill -9 of a worker", "kill -9 of the client")
EMBEDDED_PREFIX = "embedded model: "
CLASSES = "id,wnid,name,prompt\n0,c0,Apple,apple\n1,c1,Pear,pear\n2,c2,Plum,plum\n"
Trial = dict[str, Any]


def main() -> None:
    names = [*KINDS, *(EMBEDDED_PREFIX + kind for kind in EMBEDDED)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--moments", type=int, default=5, help="of each kind; by default 5")
    parser.add_argument("--kinds", nargs="*", default=names, choices=names, metavar="KIND")
    arguments = parser.parse_args()
    trials = earlier_trials(arguments.out)
    done = {(trial["kind"], trial["moment"]) for trial in trials}
    missing = [
        (kind, moment)
        for moment in range(arguments.moments)
        for kind in arguments.kinds
        if (kind, moment) not in done
    ]
    with tempfile.TemporaryDirectory() as folder:
        sites: dict[bool, Site] = {}
        try:
            for kind, moment in track(missing, "breaking"):
                embedded = kind.startswith(EMBEDDED_PREFIX)
                if embedded not in sites:
                    sites[embedded] = (new_embedded_site if embedded else new_site)(Path(folder))
                trials.append(trial(sites[embedded], Path(folder), kind, moment))
                write(arguments.out, trials)
        finally:
            for site in sites.values():
                site.close()
    content = write(arguments.out, trials)
    print(json.dumps({key: content[key] for key in ("faults", "images_lost", "all_identical")}))


def new_site(folder: Path) -> Site:
    """The stand-in: flat colours, no torch."""
    (folder / "three.csv").write_text(CLASSES)
    recipe = folder / "stand-in.toml"
    recipe.write_text(STAND_IN_RECIPE.format(classes=folder / "three.csv"))
    return undisturbed_site(Site(folder / "stand-in", recipe, folder / "stand-in-whole/release"))


def new_embedded_site(folder: Path) -> Site:
    """The embedded cascade: 40 images, 20 shards, 2 stages."""
    text = (BUILTIN / "fashion-mnist.toml").read_text()
    recipe = folder / "embedded.toml"
    small = text.replace("indices = 25", "indices = 1").replace("batch = 50", "batch = 2")
    recipe.write_text(small)
    options = ("--classes", "dress,sandal", "--per-class", "10")
    whole = folder / "embedded-whole/release"
    return undisturbed_site(Site(folder / "embedded", recipe, whole, options))


def undisturbed_site(site: Site) -> Site:
    site.build(site.undisturbed).ends(0)
    return site


def trial(site: Site, folder: Path, kind: str, moment: int) -> Trial:
    """One fault, and what became of the release."""
    act, _ = KINDS[kind.removeprefix(EMBEDDED_PREFIX)]
    release = folder / f"trial-{Random(kind).getrandbits(32):x}-{moment}" / "release"
    site.fault()
    site.forget()
    started = time.monotonic()
    wrong = None
    try:
        act(site, release, Random(f"{kind}/{moment}"))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        wrong = " ".join(str(error).split())[:300] or "a command ended otherwise than it should"
    expected = release_bytes(site.undisturbed)
    found = release_bytes(release)
    harmed = act in fault_kinds.HARMING
    made = site.made()
    result = {
        "kind": kind,
        "moment": moment,
        "images": images_in(site.undisturbed, expected),
        "lost": sum(images_of(site.undisturbed, n) for n in shards(expected) if n not in found),
        "identical": found == expected,
        "as_it_should": wrong,
        # A stand-in logs each image it makes; in a finished release any made at all is made twice
        "made_twice": None
        if site.recipe.stem == "embedded"
        else len(made)
        if harmed
        else len(made) - len(set(made)),
        "seconds": round(time.monotonic() - started, 1),
    }
    shutil.rmtree(release.parent, ignore_errors=True)
    return result


def shards(content: dict[str, bytes]) -> list[str]:
    return [name for name in content if name.endswith(".parquet")]


def images_of(release: Path, shard: str) -> int:
    marker = release / "markers" / Path(shard).with_suffix(".json")
    return int(json.loads(marker.read_text())["shard"]["rows"])


def images_in(release: Path, content: dict[str, bytes]) -> int:
    return sum(images_of(release, name) for name in shards(content))


def earlier_trials(out: Path) -> list[Trial]:
    if not out.is_file():
        return []
    trials: list[Trial] = json.loads(out.read_text())["trials"]
    return trials


def write(out: Path, trials: Sequence[Trial]) -> Trial:
    """The file and its table, whole after every trial."""
    content = {
        "faults": len(trials),
        "images_lost": sum(t["lost"] for t in trials),
        "all_identical": all(t["identical"] and t["as_it_should"] is None for t in trials),
        "trials": list(trials),
        "environment": environment(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")
    out.with_suffix(".md").write_text(table(trials))
    return content


def table(trials: Sequence[Trial]) -> str:
    """A line for each kind."""
    lines = [
        "# Faults tried on builds",
        "",
        "Each fault at seeded moments, the build rerun with the same command, its files compared",
        "byte for byte with an undisturbed build's. Made by `benchmarks/fault_campaign.py`; single",
        "trials, versions and hardware in `fault_campaign.json`.",
        "",
        "| fault | tried | identical | images lost | images made twice, each time |",
        "|---|--:|--:|--:|---|",
    ]
    for kind in dict.fromkeys(t["kind"] for t in trials):
        own = sorted((t for t in trials if t["kind"] == kind), key=lambda t: t["moment"])
        twice = ", ".join("-" if t["made_twice"] is None else str(t["made_twice"]) for t in own)
        same = sum(t["identical"] and t["as_it_should"] is None for t in own)
        lines.append(f"| {kind} | {len(own)} | {same} | {sum(t['lost'] for t in own)} | {twice} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
