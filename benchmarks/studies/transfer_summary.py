"""Arms of the transfer study, and how they differ from real images: paired over seeds.

    python benchmarks/studies/transfer_summary.py results/fashion-mnist/transfer

Reads OBJECTIVE-ARM-seedS-on-SET.json of evaluate-representation; writes transfer.json and
transfer.md beside them. Intervals are Student's over seeds, 95%; of so few seeds they are wide.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from metrics.representation.evaluation import REPRESENTATION
from release.results.result import read_result
from release.results.statistics import student_interval

FILE = re.compile(
    r"(?P<objective>labels|simclr)-(?P<arm>\w+)-seed(?P<seed>\d+)-on-(?P<set>.+)\.json"
)
ARMS = ("real", "generated", "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = summary(folder)
    (folder / "transfer.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    (folder / "transfer.md").write_text(markdown(found))
    print(markdown(found))


def summary(folder: Path) -> list[dict[str, Any]]:
    """Of each set and objective, by value and arm: each seed's, mean, and difference to real."""
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*-on-*.json")):
        match = FILE.fullmatch(path.name)
        if match is None:
            continue
        result = read_result(path)
        table = tables.setdefault(
            (match["set"], match["objective"]), {"n": 0, "training_images": {}, "values": {}}
        )
        images = sum(source["images"] for source in result.subject["sources"])
        table["training_images"][match["arm"]] = images
        for key, value in result.values.items():
            table["n"] = value["n"]
            arms = table["values"].setdefault(key, {})
            arms.setdefault(match["arm"], {})[int(match["seed"])] = value["value"]
    return [
        {"set": name, "objective": objective, **table, "values": _compared(table["values"])}
        for (name, objective), table in tables.items()
    ]


def _compared(by_seed: dict[str, dict[str, dict[int, float]]]) -> dict[str, Any]:
    return {
        key: {arm: _arm(arms[arm], arms["real"]) for arm in ARMS if arm in arms}
        for key, arms in by_seed.items()
        if "real" in arms
    }


def _arm(own: dict[int, float], real: dict[int, float]) -> dict[str, Any]:
    seeds = sorted(own.keys() & real.keys())
    gains = np.array([own[seed] - real[seed] for seed in seeds])
    return {
        "by_seed": {str(seed): own[seed] for seed in sorted(own)},
        "mean": float(np.mean(list(own.values()))),
        "less_real": float(gains.mean()),
        "less_real_interval": student_interval(gains),
    }


def markdown(tables: list[dict[str, Any]]) -> str:
    """A table a set and objective: a row a value, a column an arm."""
    lines = [
        "Top-1, %; in brackets the difference to real images and its 95% interval over seeds.",
    ]
    for found in tables:
        learned = "labels" if found["objective"] == "labels" else "SimCLR, without labels"
        lines += [
            "",
            f"## {found['set']} ({found['n']:,} test images), learned from {learned}",
            "",
            "| value | " + " | ".join(ARMS) + " |",
            "|---|" + "---:|" * len(ARMS),
        ]
        for key in [key for key in REPRESENTATION.names if key in found["values"]]:
            cells = [_cell(arm, found["values"][key].get(arm)) for arm in ARMS]
            lines.append(f"| {REPRESENTATION.names[key].label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(arm: str, own: dict[str, Any] | None) -> str:
    if own is None:
        return ""
    text = f"{100 * own['mean']:.2f}"
    if arm == "real" or own["less_real_interval"] is None:
        return text
    low, high = own["less_real_interval"]
    return f"{text} ({100 * own['less_real']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}])"


if __name__ == "__main__":
    main()
