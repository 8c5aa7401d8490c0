"""What the embedded cascade's images are worth without those that a classifier does not recognise.

The judge is a classifier of the real images that the generators saw, no others; it accepts as the
accept rule classifier-confidence does. Nothing is made anew for what it rejects: the classifiers
train on fewer images, in as many updates. First on 10,000 of the images, as they come and accepted,
tested on the tuning images; then on all that are accepted, tested on the test images. The images
are those of benchmarks/studies/cas.sh 6000; the results go beside its own, summed up in
accepted.json.

    python benchmarks/studies/accepted_images.py    an hour of a core; finished trainings stay
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cas_summary import counted, runs_of, summary

from builder.accept.classifier_confidence import Settings, load
from classifiers.recipes.recipe import load_recipe
from classifiers.training.experiment import Experiment, is_finished, run_experiment
from classifiers.training.paired_difference import difference
from classifiers.training.task import Task
from release.commands.progress import progress_bar
from release.files.commit import sha256_file
from release.layout.image_sets import LabelledImages
from release.layout.manifest import read_manifest
from release.results.result import Result, read_result

REAL = "releases/fashion-mnist-real"
MADE = "releases/fashion-mnist-32"
OUT = Path("results/fashion-mnist/embedded-cascade-now")
JUDGE = Path("runs/accepted/judge.safetensors")
RECIPE = load_recipe("fashion-mnist-small")
MINIMUM = 0.5  # confidence in the image's own class, as in the example of docs/recipes.md
JUDGE_SEED, JUDGE_STEPS = 100, 3000
SEEDS = (0, 1, 2)
BATCH = 500  # images judged at a time


@dataclass(frozen=True, kw_only=True)
class OfAccepted(Experiment):
    """An experiment on the accepted ones of its source's images. accept: what its result says."""

    accept: dict[str, Any]

    def result(self, seed: int, values: dict[str, Any], spent: dict[str, Any]) -> Result:
        found = super().result(seed, values, spent)
        return replace(found, subject={**found.subject, "accept": self.accept})


def main() -> None:
    JUDGE.parent.mkdir(parents=True, exist_ok=True)
    judge = Task(RECIPE, (f"{REAL}:32:fit",), f"{REAL}:32:tuning", steps=JUDGE_STEPS)
    result = OUT / "judge.json"
    if not is_finished(result, JUDGE):
        run_experiment(judge.read(), JUDGE_SEED, result, _bar, JUDGE)
    few = Task(RECIPE, (MADE,), f"{REAL}:32:tuning", per_class=1000, steps=1500).read()
    _train(few, "tuning-10000")
    _train(of_accepted(few), "tuning-accepted-10000")
    _train(of_accepted(Task(RECIPE, (MADE,), REAL, steps=7500).read()), "cas-accepted-60000")
    found = summary(OUT, 60_000, read_manifest(Path(MADE)), "cas-accepted")
    found["to_all_images"] = _difference("cas-60000", "cas-accepted-60000")
    found["tuning"] = _difference("tuning-10000", "tuning-accepted-10000")
    (OUT / "accepted.json").write_text(json.dumps(found, indent=2) + "\n")


def _difference(plain: str, accepted: str) -> dict[str, Any]:
    """Of the accuracy by accepted images to that by the images as they come, paired by seed."""
    taken = (counted(runs_of(OUT, f"{name}-seed*.json")) for name in (plain, accepted))
    return difference(*taken)


def of_accepted(experiment: Experiment) -> OfAccepted:
    """Of generated images alone, in memory."""
    images = experiment.training
    assert isinstance(images, LabelledImages)
    rule = load(JUDGE, Settings(checkpoint=JUDGE, minimum=MINIMUM))
    verdicts = []
    for at in range(0, len(images), BATCH):
        part = images.take(np.arange(at, min(at + BATCH, len(images))))
        verdicts += rule.judge(part.images, part.labels.tolist())
    kept = images.take(np.flatnonzero([verdict.reason is None for verdict in verdicts]))
    per_class = np.bincount(kept.labels, minlength=len(kept.class_ids)).tolist()
    facts = {name: getattr(experiment, name) for name in Experiment.__dataclass_fields__}
    facts |= {"training": kept, "train_images": (len(kept),)}
    accept = {
        "rule": "classifier-confidence",
        "minimum": MINIMUM,
        "sha256": sha256_file(JUDGE),
        "of": len(images),
        "accepted": dict(zip(kept.class_ids, per_class, strict=True)),
    }
    return OfAccepted(**facts, accept=accept)


def _train(experiment: Experiment, name: str) -> None:
    """One training a seed; what is finished stays."""
    for seed in SEEDS:
        out = OUT / f"{name}-seed{seed}.json"
        if not is_finished(out, None):
            run_experiment(experiment, seed, out, _bar)
        print(json.dumps({out.stem: read_result(out).values["top1"]}), flush=True)


def _bar(total: int) -> Any:
    return progress_bar(total, "training", "images", quiet=False)


if __name__ == "__main__":
    main()
