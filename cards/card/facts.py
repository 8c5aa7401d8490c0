"""What a dataset card says, taken from the manifest; a fact that is missing is an error."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from builder.planning.model_facts import ModelFacts
from release.commands.validation import validated
from release.errors import UserError
from release.layout.manifest import Manifest

REGIMES = {
    "A": "The generator never saw the real images of {dataset} (regime A).",
    "B": "The generator was trained or fine-tuned on real images of {dataset} (regime B): "
    "images may resemble ones it was trained on.",
    "C": "The generator was conditioned on real images of {dataset} while sampling (regime C): "
    "images resemble particular real ones.",
}

METHOD = """@article{azizi2023synthetic,
  title   = {Synthetic Data from Diffusion Models Improves ImageNet Classification},
  author  = {Azizi, Shekoofeh and Kornblith, Simon and Saharia, Chitwan and Norouzi, Mohammad and Fleet, David J.},
  journal = {Transactions on Machine Learning Research},
  year    = {2023},
  note    = {arXiv 2304.08466}
}"""  # noqa: E501


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
    """One stage of the chain; sampler: each setting with its value, and why it was chosen.

    model: its name and terms. regime: where it is another than the release's, else None.
    fine_tuned_from: checkpoint and sha256 of what the checkpoint came from, where it says so.
    guide: those of the network that guidance led away from. exemplars: the real images that it
    began from, where it did. execution: batch, compile and basis, where the build chose how
    networks run. precision: where the recipe chose it.
    """

    resolution: int
    generator: str
    checkpoint: str
    checkpoint_sha256: str
    sampler: dict[str, Any]
    sampler_source: str
    encoding: str
    model: ModelFacts
    regime: str | None
    fine_tuned_from: dict[str, str] | None = None
    guide: dict[str, str] | None = None
    exemplars: dict[str, Any] | None = None
    execution: dict[str, Any] | None = None
    precision: str | None = None

    @property
    def config(self) -> str:
        return str(self.resolution)


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
    made = require(manifest, manifest.origin, "stages", "origin")
    recipe = require(manifest, manifest.origin, "recipe", "origin")
    told = {stage.get("resolution"): stage for stage in recipe.get("stage", [])}
    _require_told(manifest, [told.get(stage.get("resolution"), {}) for stage in made])
    return [
        _stage_facts(manifest, f"origin.stages.{i}", stage, told.get(stage.get("resolution"), {}))
        for i, stage in enumerate(made)
    ]


def _require_told(manifest: Manifest, stages: Sequence[dict[str, Any]]) -> None:
    """UserError that names all that the recipe does not say of its stages, and a card needs."""
    missing = [
        f"{name} in origin.recipe.stage at {stage.get('resolution')} px"
        for stage in stages
        for name in ("sampler_source", "model")
        if not stage.get(name)
    ]
    if missing:
        raise UserError(
            f"manifest of {manifest.name} lacks {', '.join(missing)}, so no card can be rendered: "
            "say it in the recipe and run build-dataset again; no image is made anew"
        )


def _stage_facts(
    manifest: Manifest, where: str, made: dict[str, Any], told: dict[str, Any]
) -> StageFacts:
    """From what the build noted and what the recipe says of the stage."""
    names = ("resolution", "generator", "checkpoint", "checkpoint_sha256", "sampler", "encoding")
    facts = {name: require(manifest, made, name, where) for name in names}
    recipe = f"origin.recipe.stage at {facts['resolution']} px"
    return StageFacts(
        **facts,
        sampler_source=told["sampler_source"],
        model=validated(ModelFacts, told["model"], f"manifest of {manifest.name}: {recipe}: model"),
        regime=told.get("regime"),
        fine_tuned_from=made.get("fine_tuned_from"),
        guide=made.get("guide"),
        exemplars=made.get("exemplars"),
        execution=made.get("execution"),
        precision=made.get("precision"),
    )


def environments(manifest: Manifest) -> list[str]:
    """All that a synthetic release's shards were made with: one line, unless mixing was allowed."""
    found = require(manifest, manifest.origin, "environments", "origin")
    if not found:
        raise UserError(
            f"manifest of {manifest.name} lacks origin.environments, so no card can be rendered"
        )
    return [_environment_line(**entry) for entry in found]


def _environment_line(device: str, versions: dict[str, str]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{packages}; {device}"


def require(manifest: Manifest, content: dict[str, Any], name: str, where: str) -> Any:
    """content[name]; UserError if it is missing."""
    if name not in content:
        raise UserError(
            f"manifest of {manifest.name} lacks {where}.{name}, so no card can be rendered"
        )
    return content[name]


def citation(manifest: Manifest, repository: str | None, published: date) -> str:
    """BibTeX of the release, by its content, and of the method if it is a synthetic one."""
    fields = {
        "title": f"{{{manifest.name}}}",
        "author": f"{{{repository.split('/')[0]}}}" if repository else "",
        "year": str(published.year),
        "url": f"https://huggingface.co/datasets/{repository}" if repository else "",
        "note": f"content SHA-256 {manifest.content_sha256}",
    }
    lines = [f"  {key:<7} = {{{value}}}" for key, value in fields.items() if value]
    release = ",\n".join([f"@misc{{{manifest.name}", *lines]) + "\n}"
    return f"{release}\n\n{METHOD}" if manifest.kind == "synthetic" else release


def _what_it_shows(manifest: Manifest) -> str:
    if any("exemplars" in stage for stage in manifest.origin.get("stages", ())):
        return (
            "Every image is generated, and began from a real one with noise added: persons, places "
            "and things that exist may be left in it. It is no evidence of anything."
        )
    return (
        "Every image is generated. It shows no person, place or thing that exists, and is no "
        "evidence of anything."
    )


def limits(manifest: Manifest) -> list[str]:
    """What the images are not good for, as far as the manifest tells."""
    sizes = ", ".join(manifest.base.splits())
    if manifest.kind == "real":
        return [f"The views have a fixed size ({sizes}); the crop rule is part of them."]
    if manifest.regime is None:
        raise UserError(f"manifest of {manifest.name} lacks regime, so no card can be rendered")
    lacking = len(manifest.classes) - max(fact.classes for fact in split_facts(manifest))
    facts = [
        _what_it_shows(manifest),
        "The label is the class the image was asked for; no person checked that it shows it.",
        REGIMES[manifest.regime].format(dataset=manifest.dataset),
        f"Sizes are those the chain makes ({sizes} px); larger views hold no further detail.",
    ]
    if lacking:
        facts.append(f"{lacking} of the {len(manifest.classes)} classes have no images yet.")
    return facts
