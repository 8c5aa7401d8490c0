"""What a dataset card says, taken from the manifest; a fact that is missing is an error."""

from dataclasses import dataclass
from typing import Any

from builder.manifest import Manifest
from generation.errors import UserError

REGIMES = {
    "A": "The generator never saw the real images of {dataset} (regime A).",
    "B": "The generator was trained or fine-tuned on real images of {dataset} (regime B): "
    "images may resemble ones it was trained on.",
    "C": "The generator was conditioned on real images of {dataset} while sampling (regime C): "
    "images resemble particular real ones.",
}


@dataclass(frozen=True)
class SplitFacts:
    """One split of one configuration; least and most: images in its rarest and commonest class."""

    config: str
    split: str
    images: int
    classes: int
    least: int
    most: int
    megabytes: float


@dataclass(frozen=True)
class StageFacts:
    """One stage of the chain; sampler: each setting with its value."""

    resolution: int
    generator: str
    checkpoint: str
    checkpoint_sha256: str
    sampler: dict[str, Any]


def split_facts(manifest: Manifest) -> list[SplitFacts]:
    """Counts of every configuration and split."""
    facts = []
    for config, splits in manifest.splits().items():
        for split in splits:
            counts = manifest.per_class(config, split)
            size = sum(s.bytes for s in manifest.shards if (s.config, s.split) == (config, split))
            facts.append(
                SplitFacts(
                    config=config,
                    split=split,
                    images=manifest.rows(config, split),
                    classes=len(counts),
                    least=min(counts.values()),
                    most=max(counts.values()),
                    megabytes=size / 1e6,
                )
            )
    return facts


def stage_facts(manifest: Manifest) -> list[StageFacts]:
    """The chain of a synthetic release, first stage first."""
    names = ("resolution", "generator", "checkpoint", "checkpoint_sha256", "sampler")
    stages = require(manifest, manifest.origin, "stages", "origin")
    return [
        StageFacts(*(require(manifest, stage, name, f"origin.stages.{i}") for name in names))
        for i, stage in enumerate(stages)
    ]


def model_lines(manifest: Manifest) -> list[str]:
    """What the recipe says of each stage's model: its terms, and where its regime is another."""
    recipe = require(manifest, manifest.origin, "recipe", "origin")
    lines = []
    for stage in recipe.get("stage", []):
        if str(stage["resolution"]) not in manifest.splits():
            continue
        if model := stage.get("model"):
            lines.append(
                f"{stage['resolution']} px: {model['name']}, {model['license']}. {model['images']}"
            )
            if model.get("left_out"):
                lines.append(f"{stage['resolution']} px, not applied: {model['left_out']}")
        if regime := stage.get("regime"):
            fact = REGIMES[regime].format(dataset=manifest.dataset)
            lines.append(f"{stage['resolution']} px alone: {fact}")
    return lines


def require(manifest: Manifest, content: dict[str, Any], name: str, where: str) -> Any:
    """content[name]; UserError if it is missing."""
    if name not in content:
        raise UserError(
            f"manifest of {manifest.name} lacks {where}.{name}, so no card can be rendered"
        )
    return content[name]


def limits(manifest: Manifest) -> list[str]:
    """What the images are not good for, as far as the manifest tells."""
    sizes = ", ".join(manifest.splits())
    if manifest.kind == "real":
        return [f"The views have a fixed size ({sizes}); the crop rule is part of them."]
    if manifest.regime is None:
        raise UserError(f"manifest of {manifest.name} lacks regime, so no card can be rendered")
    lacking = len(manifest.classes) - max(fact.classes for fact in split_facts(manifest))
    facts = [
        "Every image is generated. It shows no person, place or thing that exists, and is no "
        "evidence of anything.",
        "The label is the class the image was asked for; nobody checked that it shows it.",
        REGIMES[manifest.regime].format(dataset=manifest.dataset),
        f"Sizes are those the chain makes ({sizes} px); larger views hold no further detail.",
    ]
    if lacking:
        facts.append(f"{lacking} of the {len(manifest.classes)} classes have no images yet.")
    return facts
