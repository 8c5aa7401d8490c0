"""The embedded generator's CAS over the accuracy that as many real images give: cas.json.

Reads the result files and predictions that benchmarks/studies/cas.sh left in a folder: cas-N-seedS
and real-N-seedS of each classifier seed, real-60000 (one seed, or more) of all real images; and
from the release what made its images. Every accuracy is counted from the predictions, and refused
where it is not what the result file says.

    python benchmarks/studies/cas_summary.py FOLDER --n 20000 --made releases/fashion-mnist-32
"""

import argparse
import json
from pathlib import Path
from typing import Any

from classifiers.training.outcomes import Outcomes, accuracy, read_outcomes
from classifiers.training.paired_difference import difference
from release.layout.manifest import Manifest, read_manifest
from release.results.result import Result, read_result
from release.results.statistics import student_interval

ALL = "real-60000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, required=True, help="images trained on")
    parser.add_argument("--made", type=Path, required=True, help="the release of generated images")
    arguments = parser.parse_args()
    document = summary(arguments.folder, arguments.n, read_manifest(arguments.made))
    (arguments.folder / "cas.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


def summary(folder: Path, n: int, made: Manifest, name: str = "cas") -> dict[str, Any]:
    """name: of the result files of generated images alone, NAME-N-seedS.json."""
    files = {"cas": name, "real": "real"}
    arms = {arm: runs_of(folder, f"{files[arm]}-{n}-seed*.json") for arm in files}
    every = runs_of(folder, f"{ALL}*.json")
    results = [read_result(path) for paths in (*arms.values(), every) for path in paths.values()]
    compared, first = results[: -len(every)], results[0]
    for result in results:
        if recipe_of(result) != recipe_of(first) or result.reference != first.reference:
            raise SystemExit("the runs differ in recipe or test images")
    if len({result.values["steps"] for result in compared}) > 1:
        raise SystemExit("the runs differ in how many updates they make")
    (source,) = first.subject["train"]
    if source["content_sha256"] != made.content_sha256:
        raise SystemExit(f"the runs of {folder} did not train on {made.name} as it is now")
    outcomes = {arm: counted(paths) for arm, paths in arms.items()}
    cas, real = (outcomes[arm].correct().mean(axis=1) for arm in ("cas", "real"))
    return {
        "cas_over_real": float(cas.mean() / real.mean()),
        "interval_over_seeds": student_interval(cas / real),
        "real_top1": float(counted(every).correct().mean()),
        "n": n,
        "model": first.protocol["model"],
        "recipe": first.subject["recipe"],
        "seeds": list(outcomes["cas"].seeds),
        "cas": accuracy(outcomes["cas"], 1),
        "real": accuracy(outcomes["real"], 1),
        "difference": difference(outcomes["real"], outcomes["cas"]),
        "generated": source,
        "stages": made.origin["stages"],
        "test": first.reference,
        "environment": first.environment,
        "predictions": {
            arm: [path.with_suffix(".parquet").name for path in paths.values()]
            for arm, paths in {**arms, "real_top1": every}.items()
        },
    }


def recipe_of(result: Result) -> dict[str, Any]:
    """The protocol, but for how long it trains: in epochs, or in updates."""
    return {**result.protocol, "epochs": None, "steps": None}


def runs_of(folder: Path, pattern: str) -> dict[int, Path]:
    """Result files by classifier seed."""
    paths = {read_result(path).seeds["classifier"]: path for path in folder.glob(pattern)}
    if not paths:
        raise SystemExit(f"{folder} has no {pattern}: run benchmarks/studies/cas.sh first")
    return dict(sorted(paths.items()))


def counted(paths: dict[int, Path]) -> Outcomes:
    """Their predictions, if they give the accuracies that the result files state."""
    outcomes = read_outcomes({seed: path.with_suffix(".parquet") for seed, path in paths.items()})
    stated: list[Result] = [read_result(path) for path in paths.values()]
    for result, share in zip(stated, outcomes.correct().mean(axis=1), strict=True):
        if abs(result.values["top1"]["value"] - share) > 1e-9:
            raise SystemExit(f"predictions give {share}, the result {result.values['top1']}")
    return outcomes


if __name__ == "__main__":
    main()
