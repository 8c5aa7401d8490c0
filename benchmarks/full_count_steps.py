"""The steps that full_count.py measures, each in a process of its own."""

import json
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from full_count_sets import PROTOCOL, SIDE, make_folder, make_synthetic, make_test

RELEASE, REAL, CACHE, PLAN = "synthetic", "real", "cache", "manifest.pickle"


def run_step(step: str, folder: str, *arguments: str) -> None:
    """One of STEPS."""
    STEPS[step](Path(folder), *arguments)


def make(folder: Path, images: str) -> None:
    """A release that is to be finished, its features in a cache, and a real one to test on."""
    manifest = make_synthetic(folder / RELEASE, int(images) // 1000, [folder / CACHE])
    (folder / PLAN).write_bytes(pickle.dumps(manifest))
    make_test(folder / REAL)


def finish(folder: Path) -> None:
    """What a build does when all its shards are there."""
    from builder.builds.finish import finish_release

    (folder / RELEASE / "manifest.json").unlink(missing_ok=True)  # of an earlier run on these sets
    shutil.rmtree(folder / RELEASE / "index", ignore_errors=True)
    finish_release(folder / RELEASE, pickle.loads((folder / PLAN).read_bytes()))


def verify(folder: Path) -> None:
    """All that `release verify` does but look into shards."""
    from builder.release.verify import verify_release
    from release.layout.manifest import read_manifest

    release = folder / RELEASE
    report = verify_release(release, read_manifest(release), 2, lambda _: None, frozenset())
    assert report.intact, report.problems[:3]


def publish(folder: Path) -> None:
    """All that `release publish` does before it sends a shard."""
    from builder.release.publish import published_files, refuse_unpublishable
    from release.layout.manifest import read_manifest

    release = folder / RELEASE
    manifest = read_manifest(release)
    refuse_unpublishable(release, manifest)
    published_files(release, manifest)


def score(folder: Path) -> None:
    """Which shards have images without features, and what every metric wants to know first."""
    from metrics.features.extraction import plan_extraction
    from metrics.features.image_lists import open_image_set

    image_set = open_image_set(folder / RELEASE, str(SIDE), "train")
    cache = folder / CACHE
    assert not plan_extraction([image_set], PROTOCOL, "made-up", "cpu", 64, cache)
    assert len(image_set.sorted_keys(cache)) == image_set.count_per_class(cache).sum()


def score_first(folder: Path) -> None:
    """The same where the cache has no index yet."""
    for index in (folder / CACHE / "features").glob("*/index.*"):
        index.unlink()
    score(folder)


def train(folder: Path) -> None:
    """`train-classifier` until its first step has its batch."""
    from classifiers.train_classifier import main
    from classifiers.training.objective import ClassifierObjective, LabelledPart

    def stop(_self: object, _modules: object, part: LabelledPart) -> None:
        print(json.dumps({"batch": list(part.images.shape)}), flush=True)
        if os.environ.get("WORLD_SIZE"):  # all have theirs
            import torch.distributed

            torch.distributed.barrier()
        raise SystemExit

    ClassifierObjective._loss = stop  # type: ignore[assignment]
    sys.argv = [
        "train-classifier",
        *("--recipe", str(folder / "tiny.toml"), "--train", f"{folder / RELEASE}:{SIDE}"),
        *("--test", f"{folder / REAL}:{SIDE}", "--out", str(folder / "out.json")),
        *("--loaders", "8"),
    ]
    main()


def leaderboard(folder: Path) -> None:
    """A board with the release on it."""
    from cards.leaderboard import main

    shutil.rmtree(folder / "site", ignore_errors=True)
    results = folder / "results"
    results.mkdir(exist_ok=True)
    shutil.copy(folder / RELEASE / "manifest.json", results / "manifest.json")
    sys.argv = ["leaderboard", str(results), "--published", "--out", str(folder / "site")]
    sys.argv += ["--release", str(folder / RELEASE)]
    main()


def import_plan(folder: Path) -> None:
    """All that `build-dataset --real` does before its workers start."""
    from builder.imports.jobs import settle
    from builder.imports.layout import count_files
    from builder.imports.release import plan_import
    from builder.state import RealState
    from release.images.crop_rules import RECORDED_RULES
    from release.real_sources.opening import open_source

    name, release = str(folder / "set"), folder / "imported"
    started = time.monotonic()
    source = open_source(name)
    rule = next(iter(RECORDED_RULES.values()))
    state = RealState(name, rule, (64, 256), count_files(source, {}))
    jobs = settle(release, plan_import(name, source, release, state), ())
    print(json.dumps({"jobs": len(jobs), "seconds": round(time.monotonic() - started, 1)}))


STEPS: dict[str, Callable[..., None]] = {
    "make": make,
    "make-folder": lambda folder, images: make_folder(folder, int(images)),
    "finish": finish,
    "verify": verify,
    "publish": publish,
    "score-first": score_first,
    "score": score,
    "train": train,
    "leaderboard": leaderboard,
    "import": import_plan,
}
