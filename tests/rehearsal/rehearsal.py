"""ImageNet in miniature walked end to end, by the commands a person would type.

benchmarks/imagenet_rehearsal.py walks all of it and measures each step;
tests/rehearsal/test_rehearsal.py walks the short form. Names are relative: commands run in the
folder that `write_inputs` filled.
"""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from release.layout.manifest import read_manifest
from tests.rehearsal.imagenet_layouts import SPLITS, Images
from tests.rehearsal.rehearsal_inputs import (
    CHAIN,
    HUB,
    HUB_OPTIONS,
    LAYOUTS,
    REAL,
    STAGES,
    StudySize,
    put_on_hub,
    save_stand_ins,
    write_layouts,
    write_recipes,
)
from tests.rehearsal.small_imagenet import WNIDS, small_imagenet
from tests.servers.hub_server import Hub

REPO = "someone/chain"
VIEWS = ",".join(str(resolution) for resolution, _, _ in STAGES.values())
# The network and the images small; steps and images of each class are options of the command.
SMALL = ("resolution=32", "batch=8")
# Of these networks no smaller input is possible, or it would be the same as another's.
OTHER_SIZES = {"imagenet-deit-b-384": ("resolution=48", "batch=8")}
IN_STUDY = ("resolution=32", "batch=64", "epochs=1")
TINY = "classifier@classifiers/tiny.safetensors"
STARTS = {"imagenet-deit-b-384": "imagenet-deit-b"}
CLASSIFIERS = (
    *("imagenet-resnet50", "imagenet-resnet101", "imagenet-resnet152"),
    *("imagenet-resnetrs50-160", "imagenet-resnetrs101-160", "imagenet-resnetrs101-192"),
    *("imagenet-resnetrs152-224", "imagenet-vit-s16", "imagenet-deit-s"),
    *("imagenet-deit-b", "imagenet-deit-b-384", "imagenet-deit-l"),
)
LOAD = (
    "from datasets import load_dataset; rows = load_dataset('{repo}', '32', split='train'); "
    "print(rows.num_rows, rows[0]['image'].size, rows.features['label'].num_classes)"
)


@dataclass(frozen=True)
class Step:
    """A command. check: raises AssertionError if what it left or said is not as it should be."""

    name: str
    words: Sequence[str]
    check: Callable[[Path, str], None] = lambda *_: None

    @property
    def shown(self) -> str:
        """As a person types it."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class Walk:
    """How large a walk is.

    per_class, val_per_class: real images, the shortest of them `side` px. few: training images of
    each class in the layouts beside `folder`. trained: stages that commands train, the others are
    stand-ins. generated: images of each class. extractors: select-sampler takes the first.
    recipes: of classifiers, each trained by itself. workers: options of what runs on a cluster.
    """

    per_class: int
    val_per_class: int
    side: int
    few: int
    layouts: Sequence[str]
    trained: Sequence[str]
    training_steps: int
    generated: int
    extractors: Sequence[str]
    recipes: Sequence[str]
    study: StudySize
    workers: Sequence[str] = ()


WHOLE = Walk(
    per_class=10,
    val_per_class=1,
    side=40,
    few=2,
    layouts=(*LAYOUTS, HUB),
    trained=tuple(STAGES),
    training_steps=60,
    generated=4,
    extractors=("efficientnet-lite0-64", TINY),
    recipes=CLASSIFIERS,
    study=StudySize(
        {
            "imagenet-resnet50": (*IN_STUDY, "model=test_resnet"),
            "imagenet-deit-b": (*IN_STUDY, "model=test_vit"),
            "imagenet-deit-b-384": (*IN_STUDY, "model=test_vit", "resolution=48"),
        },
        seeds=(0,),
        times=(4,),
    ),
)
SHORT = Walk(
    per_class=10,
    val_per_class=1,
    side=16,
    few=1,
    layouts=("tars", "arrow", "webdataset", HUB),
    trained=("base",),
    training_steps=2,
    generated=1,
    extractors=(TINY,),
    recipes=("imagenet-vit-s16",),
    study=StudySize(
        {"imagenet-resnet50": (*IN_STUDY, "model=test_resnet")}, (0,), (1,), sets=("1024",)
    ),
    workers=("--workers", "1"),
)


def write_inputs(folder: Path, walk: Walk, hub: Hub) -> Images:
    """All that the walk needs, below `folder` and on the Hub; the images of data/folder.

    Recipes are written last: where they stand the images do, from a walk that was ended.
    """
    images = small_imagenet(walk.per_class, walk.val_per_class, walk.side)
    few = first_of_each(images, walk.few)
    if not ((folder / "study.toml").exists() and (folder / "data/folder").exists()):
        write_layouts(folder, images, few, walk.layouts)
    if HUB in walk.layouts:
        put_on_hub(hub, folder, few)
    save_stand_ins(folder, [name for name in STAGES if name not in walk.trained])
    write_recipes(folder, walk.per_class, walk.training_steps, walk.study)
    return images


def write_data(folder: Path, walk: Walk) -> list[str]:
    """The images as image-net.org's archives in folder/imagenet and the walk's recipes, without a
    walk; the first commands that take them."""
    images = small_imagenet(walk.per_class, walk.val_per_class, walk.side)
    LAYOUTS["tars"][0](folder / "imagenet", images)
    write_recipes(folder, walk.per_class, walk.training_steps, walk.study)
    trainings = [
        f"finetune-generator --recipe {name}.toml --data {REAL} --out runs/{name}"
        for name in STAGES
    ]
    return [
        f"build-dataset --real imagenet --views {VIEWS} --out {REAL}  # in place of step 1's",
        *trainings,  # tiny stages, where the guide fine-tunes or takes public weights
        f"build-dataset --recipe chain.toml --per-class {walk.generated}  # in place of step 3's",
        "run-study study.toml --dry-run  # step 6",
    ]


def first_of_each(images: Images, count: int) -> Images:
    """With so many training images of each class."""
    train = {w: dict(list(files.items())[:count]) for w, files in images.train.items()}
    return Images(train, images.val, images.wnids)


def steps(walk: Walk, images: Images) -> Iterator[Step]:
    """In the order in which a person takes them."""
    yield from _imports(walk, images)
    for name in walk.trained:
        words = f"finetune-generator --recipe {name}.toml --data {REAL} --out runs/{name}"
        yield Step(f"train {name}", words.split())
    build = f"build-dataset --recipe chain.toml --per-class {walk.generated}".split()
    yield Step("build", [*build, *walk.workers], partial(_has_generated, walk.generated))
    yield from _classifiers(walk)
    scores = f"score-release {CHAIN}:32 --real {REAL} --metrics fd,is,fdr --out results".split()
    for extractor in walk.extractors:
        scores += ["--extractor", extractor]
    yield Step("score-release", [*scores, *walk.workers], partial(_has_scores, walk))
    sweep = (
        f"select-sampler --recipe chain.toml --real {REAL} --stage 8 --guidance 1,2 --per-class 1 "
        "--short-list 1 --cas-per-class 1 --classifier classifier.toml --seeds 0 --out sweeps/base "
        f"--extractor {walk.extractors[0]}"
    )
    yield Step("select-sampler", [*sweep.split(), *walk.workers])
    study = ["run-study", "study.toml", "--out", "studies/imagenet"]
    yield Step("run-study", [*study, *walk.workers], _has_report)
    yield from _evaluations(walk)
    yield from _release_steps(walk)


def _evaluations(walk: Walk) -> Iterator[Step]:
    """What features are worth elsewhere, and the study's classifiers on corrupted images."""
    words = f"evaluate-representation classifiers/tiny.safetensors --on {REAL}:8 --evaluations knn"
    words += " --out results"
    check = partial(_has_values, "knn", set())  # no result stands beside it
    yield Step("evaluate-representation", [*words.split(), *walk.workers], check)
    words = "evaluate-robustness studies/imagenet/runs/imagenet-resnet50-32/1 --out results"
    words += f" --test {REAL}:8 --corruptions gaussian_noise"
    check = partial(_has_values, "gaussian_noise", {"real", "synthetic"})
    yield Step("evaluate-robustness", [*words.split(), *walk.workers], check)


def _imports(walk: Walk, images: Images) -> Iterator[Step]:
    words = f"build-dataset --real data/folder --views {VIEWS}".split()
    whole = partial(_same_images, REAL, _digests(images))
    yield Step("import folder", [*words, *walk.workers], whole)
    few = _digests(first_of_each(images, walk.few))
    for name in walk.layouts:
        source = HUB_OPTIONS if name == HUB else f"--real data/{name} {LAYOUTS[name][1]}"
        out = f"releases/{name}"
        words = f"build-dataset {source} --views 8 --out {out}".split()
        yield Step(f"import {name}", [*words, *walk.workers], partial(_same_images, out, few))


def _classifiers(walk: Walk) -> Iterator[Step]:
    """One on real images, which judges others; each recipe on generated ones."""
    tiny = (
        f"train-classifier --recipe classifier.toml --train {REAL}:16 --test {REAL}:16:validation "
        "--out results/tiny.json --save classifiers/tiny.safetensors"
    )
    yield Step("tiny classifier", tiny.split())
    for name in walk.recipes:
        changes = [f"--set {change}" for change in OTHER_SIZES.get(name, SMALL)]
        words = (
            f"train-classifier --recipe {name} {' '.join(changes)} --steps 2 --per-class 1 "
            f"--train {CHAIN}:32 --test {REAL}:original:validation --out results/{name}.json"
        )
        if name in STARTS:
            words += f" --from classifiers/{STARTS[name]}.safetensors"
        if name in STARTS.values():
            words += f" --save classifiers/{name}.safetensors"
        yield Step(name, words.split())


def _release_steps(walk: Walk) -> Iterator[Step]:
    yield Step("render-card", f"render-card {CHAIN} --results results --repo {REPO}".split())
    yield Step("leaderboard", f"leaderboard results --out site --release {CHAIN}".split())
    yield Step("release verify", f"release verify {CHAIN}".split())
    yield Step("release verify, real", f"release verify {REAL}".split())
    yield Step("publish", f"release publish {CHAIN} {REPO}".split())
    yield Step(
        "load_dataset",
        ["python", "-c", LOAD.format(repo=REPO)],
        partial(_says, f"{1000 * walk.generated} (32, 32) 1000"),
    )


Digests = dict[str, Counter[tuple[str, str]]]


def _digests(images: Images) -> Digests:
    """Of each split the classes and hashes of its images."""
    return {
        split: Counter((w, hashlib.sha256(data).hexdigest()) for w, _, data in images.rows(split))
        for split in SPLITS
    }


def _same_images(release: str, expected: Digests, folder: Path, _: str) -> None:
    """The release holds these bytes under these classes, and is of ImageNet's list."""
    manifest = read_manifest(folder / release)
    assert manifest.dataset == "imagenet-1k", manifest.dataset
    assert [entry.wnid for entry in manifest.classes] == list(WNIDS)
    for split in SPLITS:
        found = Counter[tuple[str, str]]()
        for file in (folder / release / "original").glob(f"{split}-*.parquet"):
            table = pq.read_table(file, columns=["class_id", "image"])
            content = [row["bytes"] for row in table["image"].to_pylist()]
            hashes = [hashlib.sha256(data).hexdigest() for data in content]
            found.update(zip(table["class_id"].to_pylist(), hashes, strict=True))
        assert found == expected[split], f"{release}: other images in {split}"


def _has_generated(per_class: int, folder: Path, _: str) -> None:
    manifest = read_manifest(folder / CHAIN)
    for resolution, _, _ in STAGES.values():
        counts = manifest.per_class(str(resolution), "train")
        assert counts == dict.fromkeys(WNIDS, per_class)


def _has_scores(walk: Walk, folder: Path, _: str) -> None:
    every = list((folder / "results").glob("chain-32-32-train-*.json"))
    means = [result for result in every if "-spaces-" in result.name]
    assert len(means) == (len(walk.extractors) > 1)
    assert len(every) - len(means) == len(walk.extractors)
    for result in every:
        values = json.loads(result.read_text())["values"]
        wanted = {"fdr_validation"} | (set() if result in means else {"fd_train", "fd_validation"})
        assert wanted <= values.keys(), values.keys()


def _has_values(name: str, kinds: set[str], folder: Path, _: str) -> None:
    """Results of networks that learned from images of these kinds have this value."""
    results = [json.loads(p.read_text()) for p in (folder / "results").glob("*-on-*.json")]
    own = [result for result in results if name in result["values"]]
    learned = {s["kind"] for result in own for s in result["subject"].get("sources", ())}
    assert own
    assert learned == kinds, learned


def _has_report(folder: Path, _: str) -> None:
    report = json.loads((folder / "studies/imagenet/report.json").read_text())
    assert {row["arm"] for row in report["rows"]} >= {"real", "generated-1024-x1"}


def _says(expected: str, _: Path, said: str) -> None:
    assert said.strip().splitlines()[-1] == expected, said
