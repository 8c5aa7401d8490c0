"""How the images of a release were made and what one costs, for the rows of the leaderboard."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from builder.builds.estimate import measured_cost
from generation.diffusion.sampler_config import SamplerConfig
from release.files.storage import ReleasePath
from release.layout.manifest import Manifest, read_manifest
from release.layout.training_views import stated_views

DEFAULT = SamplerConfig().model_dump()
UNNAMED = ("method", "steps", "dynamic_percentile")


@dataclass(frozen=True)
class Made:
    """sampler: of every stage up to this size. seconds: of one worker, an image, all stages.

    basis: how the seconds are known.
    """

    sampler: str
    seconds: float | None
    basis: str


Facts = dict[tuple[str, str], Made]  # by content hash and configuration, as results name them


def release_facts(releases: Iterable[ReleasePath], manifests: Iterable[Manifest]) -> Facts:
    """Of releases, with what their shards took; of manifests alone, with what the recipe states."""
    facts: Facts = {}
    for manifest in manifests:
        facts |= _facts(manifest, None)
    for release in releases:
        facts |= _facts(read_manifest(release), release)
    return facts


def _facts(manifest: Manifest, release: "ReleasePath | None") -> Facts:
    if manifest.kind == "real":
        return {}
    found: Facts = {}
    chain: list[str] = []
    words: list[str] = []
    for stage in manifest.origin.get("stages", ()):
        config = str(stage["resolution"])
        chain.append(config)
        sampler = sampler_words(stage["sampler"]) if "sampler" in stage else "sampler unknown"
        words.append(f"{config} px: {sampler}")
        seconds, basis = _cost(manifest, release, chain)
        found[manifest.content_sha256, config] = Made("; ".join(words), seconds, basis)
    for view in stated_views(manifest):
        made = found.get((manifest.content_sha256, view.source))
        if made is not None:
            found[manifest.content_sha256, view.name] = made
    return found


def sampler_words(settings: dict[str, Any]) -> str:
    """Method and steps, then what is not as by default: "ddim, 50 steps, guidance 1.5"."""
    words = [str(settings["method"]), f"{settings['steps']} steps"]
    for name, value in settings.items():
        if name not in UNNAMED and value != DEFAULT.get(name):
            words.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(words)


def _recipe_stages(manifest: Manifest) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = manifest.origin.get("recipe", {}).get("stage", [])
    return [stage for stage in stages if "resolution" in stage]


def _cost(
    manifest: Manifest, release: "ReleasePath | None", configs: list[str]
) -> tuple[float | None, str]:
    """Seconds of one worker for an image of the last configuration, its parents' included."""
    total = 0.0
    stated = {str(s["resolution"]): s.get("cost") for s in _recipe_stages(manifest)}
    basis = ""
    for config in configs:
        shards = [s for s in manifest.shards if s.config == config]
        measured = measured_cost(release, shards) if release is not None and shards else None
        if measured is not None and measured.seconds is not None:
            total += measured.seconds
            basis = "of one worker, writing included, as the finished shards took"
        elif {"seconds", "hardware"} <= (cost := stated.get(config) or {}).keys():
            total += cost["seconds"]
            basis = f"stated by the recipe for {cost['hardware']}"
        else:
            return None, ""
    return total, basis
