"""Networks as people name them: a trained classifier's file, a folder of them, any extractor."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifiers.training.checkpoint import read_recipe
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import Result, read_result

SUFFIX, CLASSIFIER = ".safetensors", "classifier@"
TIMM_FOLDER = ("config.json", "model.safetensors")  # as timm saves one for the Hub


@dataclass(frozen=True)
class NamedNetwork:
    """extractor: what `load_extractor` takes. system, sources, seeds: as its results have them.

    A classifier whose training's result stands beside it is called by what it learned from, so
    that its seeds are runs of one system; any other by its own name.
    """

    extractor: str
    stem: str
    system: str
    sources: tuple[dict[str, Any], ...] = ()
    seeds: dict[str, int] = field(default_factory=dict)


def name_networks(texts: Sequence[str]) -> list[NamedNetwork]:
    """Those that `texts` name, in order; UserError for no such file and for one name twice."""
    found = [network for text in texts for network in _named(text)]
    stems: dict[str, NamedNetwork] = {}
    for network in found:
        if network.stem in stems:
            raise UserError(
                f"{stems[network.stem].extractor} and {network.extractor} would both write "
                f"{network.stem}: give one of them another file name"
            )
        stems[network.stem] = network
    return found


def _named(text: str) -> list[NamedNetwork]:
    path = Path(text.removeprefix(CLASSIFIER))
    if path.suffix == SUFFIX and (text.startswith(CLASSIFIER) or "@" not in text):
        return [_classifier(path)]
    if not path.is_dir():
        stem = text.rpartition("@")[0] or text
        return [NamedNetwork(text, stem.replace(":", "-").replace("/", "-"), stem)]
    if all((path / name).is_file() for name in TIMM_FOLDER):
        return [NamedNetwork(f"timm:local-dir:{path}", path.name, path.name)]
    files = sorted(path.glob(f"*{SUFFIX}"))
    if not files:
        raise UserError(
            f"{path} holds neither classifiers that train-classifier saved (*{SUFFIX}) nor a timm "
            f"model ({' and '.join(TIMM_FOLDER)})"
        )
    return [_classifier(file) for file in files]


def _classifier(path: Path) -> NamedNetwork:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    recipe = read_recipe(path)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return NamedNetwork(f"{CLASSIFIER}{path}", path.stem, path.stem)
    training = read_result(beside)
    if training.kind != "classifier" or training.subject.get("recipe") != recipe.name:
        raise UserError(f"{beside} is not the result of training {path.name}")
    stated = training.values.get("classifier_sha256")  # results of before do not say it
    if stated is not None and stated != sha256_file(path):
        raise UserError(
            f"{beside} is the result of training another classifier than {path.name} holds now: "
            "its weights have another SHA-256"
        )
    return NamedNetwork(
        extractor=f"{CLASSIFIER}{path}",
        stem=path.stem,
        system=_system(training),
        sources=tuple(training.subject["train"]),
        seeds=training.seeds,
    )


def _system(training: Result) -> str:
    """Model, recipe, and what it learned from."""
    subject = training.subject
    learned = " + ".join(f"{s['images']:,} of {s['name']}" for s in subject["train"])
    return f"{subject['model']} ({subject['recipe']}) on {learned}"
