"""Break builds in every way at seeded moments, rerun them, compare every byte.

    python benchmarks/trust/fault_campaign.py --out results/fault_campaign.json
    python benchmarks/trust/fault_campaign.py --out one.json --moments 1 --kinds "Ctrl-C" \\
        --kills 0

Each trial is one fault of tests/campaigns/fault_kinds.py at a moment that its name and number
decide, on a build of the stand-in generator (90 images, 18 shards, 3 stages) or of the embedded
model; it ends when the release is finished, and is compared with an undisturbed build. Then every
command of tests/campaigns/kill_trials.py is killed by -9 at each of its writes and run again.
Trials already in the file are not done again: rerun the command to go on. A table for people stands
beside it, as .md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import track

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from builder.planning.recipe import BUILTIN  # noqa: E402 - run as a script, its tests are beside it
from release.files.commit import write_atomically  # noqa: E402
from release.results.result import environment  # noqa: E402
from tests.campaigns import fault_kinds  # noqa: E402
from tests.campaigns.fault_kinds import KINDS, Site  # noqa: E402
from tests.campaigns.kill_trials import TRIALS, KillSite, hub_environment, spread  # noqa: E402
from tests.command_server import CommandServer  # noqa: E402
from tests.conftest import STAND_IN_RECIPE, release_bytes  # noqa: E402
from tests.servers.hub_server import Hub  # noqa: E402
from tests.sets.miniature import make_miniature  # noqa: E402

EMBEDDED = ("kill -9 of a worker", "kill -9 of the client")
EMBEDDED_PREFIX = "embedded model: "
CLASSES = "id,wnid,name,prompt\n0,c0,Apple,apple\n1,c1,Pear,pear\n2,c2,Plum,plum\n"
SUMMARY = ("faults", "images_lost", "all_identical", "kills_tried", "kills_survived")
Trial = dict[str, Any]


def main() -> None:
    names = [*KINDS, *(EMBEDDED_PREFIX + kind for kind in EMBEDDED)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--moments", type=int, default=5, help="of each kind; by default 5")
    parser.add_argument("--kinds", nargs="*", default=names, choices=names, metavar="KIND")
    parser.add_argument(
        "--kills",
        type=int,
        default=10_000,
        help="writes of a command to kill it at; by default all",
    )
    arguments = parser.parse_args()
    trials, kills = earlier_trials(arguments.out)
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
                write(arguments.out, trials, kills)
        finally:
            for site in sites.values():
                site.close()
    if arguments.kills:
        for _ in try_kills(arguments.kills, kills):
            write(arguments.out, trials, kills)
    content = write(arguments.out, trials, kills)
    print(json.dumps({key: content[key] for key in SUMMARY}))


def try_kills(most: int, kills: list[Trial]) -> Iterator[None]:
    """Every command killed at its writes, those that are in `kills` left out; adds to it."""
    hub = Hub()
    listener, address = hub.serve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with CommandServer(hub_environment(address, folder / "home")) as server:
            make_miniature(server, folder / "whole")
            for command in TRIALS:
                site = KillSite(server, folder / "whole", hub, command)
                count = len(site.operations)
                done = {kill["write"] for kill in kills if kill["command"] == command}
                missing = [write for write in spread(count, most) if write not in done]
                for write in track(missing, f"{command}, {count} writes"):
                    kill = site.kill(write)
                    found = asdict(kill) if kill else {"command": command, "write": write}
                    kills.append({**found, "writes": count, "reached": kill is not None})
                    yield
    listener.shutdown()


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


def earlier_trials(out: Path) -> tuple[list[Trial], list[Trial]]:
    """Faults and kills that the file has."""
    if not out.is_file():
        return [], []
    content = json.loads(out.read_text())
    return content["trials"], content.get("kills", [])


def write(out: Path, trials: Sequence[Trial], kills: Sequence[Trial]) -> Trial:
    """The file and its table, whole after every trial."""
    harmed = [kill for kill in kills if kill["reached"] and (kill["wrong"] or kill["lost"])]
    content = {
        "faults": len(trials),
        "images_lost": sum(t["lost"] for t in trials),
        "all_identical": all(t["identical"] and t["as_it_should"] is None for t in trials),
        "kills_tried": sum(kill["reached"] for kill in kills),
        "kills_survived": sum(kill["reached"] for kill in kills) - len(harmed),
        "trials": list(trials),
        "kills": list(kills),
        "environment": environment(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(out.with_suffix(".md"), (fault_table(trials) + kill_table(kills)).encode())
    return content


def fault_table(trials: Sequence[Trial]) -> str:
    """A line for each kind."""
    lines = [
        "# Faults tried on builds",
        "",
        "Each fault at seeded moments, the build rerun with the same command, its files compared",
        "byte for byte with an undisturbed build's. Made by `benchmarks/trust/fault_campaign.py`;",
        "single trials, versions and hardware in `fault_campaign.json`.",
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


def kill_table(kills: Sequence[Trial]) -> str:
    """A line for each command."""
    lines = [
        "",
        "# Commands killed at their writes",
        "",
        "kill -9 of all processes of a command at one of its writes (a file opened, renamed,",
        "deleted, made durable; a folder made; for publish a request sent), then the same command",
        "again. It survives if the second run ends with exit code 0 and leaves what an undisturbed",
        "run leaves, file by file, and nothing else. *Lost* counts files that are missing or",
        "differ.",
        "",
        "| command | writes | tried | survived | files lost |",
        "|---|--:|--:|--:|--:|",
    ]
    for command in dict.fromkeys(kill["command"] for kill in kills):
        own = [kill for kill in kills if kill["command"] == command and kill["reached"]]
        survived = sum(not kill["wrong"] and not kill["lost"] for kill in own)
        lost = sum(len(kill["lost"]) for kill in own)
        writes = max(kill["writes"] for kill in kills if kill["command"] == command)
        lines.append(f"| {command} | {writes} | {len(own)} | {survived} | {lost} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
