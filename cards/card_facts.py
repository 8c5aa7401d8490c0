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


@dataclass(frozen=True)
class RejectionFacts:
    """What a stage did not keep of one class; rate: rejected over all images made of it."""

    resolution: int
    wnid: str
    name: str
    kept: int
    rejected: int
    empty: int

    @property
    def rate(self) -> float:
        made = self.kept + self.rejected
        return self.rejected / made if made else 0.0


@dataclass(frozen=True)
class AcceptFacts:
    """An accept rule and what came of it: all classes together, then each, highest rate first."""

    resolution: int
    rule: str
    settings: dict[str, Any]
    attempts: int
    total: RejectionFacts
    classes: list[RejectionFacts]


def accept_facts(manifest: Manifest) -> list[AcceptFacts]:
    """Every stage with an accept rule."""
    stages = require(manifest, manifest.origin, "stages", "origin")
    return [_accept_facts(manifest, stage) for stage in stages if "accept" in stage]


def _accept_facts(manifest: Manifest, stage: dict[str, Any]) -> AcceptFacts:
    resolution, accept = stage["resolution"], stage["accept"]
    config = str(resolution)
    kept = manifest.per_class(config, "train")
    rejected = manifest.rejected(config, "train")
    empty = manifest.quarantined(config, "train")
    classes = [
        RejectionFacts(resolution, c.wnid, c.name, kept[c.wnid], rejected[c.wnid], empty[c.wnid])
        for c in manifest.classes
        if kept[c.wnid] or rejected[c.wnid] or empty[c.wnid]
    ]
    return AcceptFacts(
        resolution=resolution,
        rule=accept.get("rule", "what the generator itself refuses"),
        settings=accept.get("settings", {}),
        attempts=accept["attempts"],
        total=RejectionFacts(
            resolution, "", "all classes", kept.total(), rejected.total(), empty.total()
        ),
        classes=sorted(classes, key=lambda c: (-c.rate, c.wnid)),
    )


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
                    least=min(counts.values(), default=0),
                    most=max(counts.values(), default=0),
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
