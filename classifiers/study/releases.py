"""The releases that a study trains on: which are missing, and making those that it knows how to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from builder.builds.run import Outcome, RunSettings
from builder.cluster.cluster import ClusterOptions
from builder.making import Wanted, build_wanted, import_images
from builder.planning.recipe import load_recipe
from classifiers.study.plan import real_labels, require_as_stated
from classifiers.study.study_file import GeneratedSet, RealSet, Study, needed_per_class
from release.classes.class_list import load_classes
from release.commands.command import say
from release.errors import UserError
from release.files.storage import absolute_if_folder, exists, release_path, split_release
from release.layout.manifest import read_manifest
from release.real_sources.source import SourceName


@dataclass(frozen=True)
class Missing:
    """A release that is not there or too small.

    source: the recipe that builds it, None if the study names none; of the real release what it is
    imported from. have, wanted: images of each class; wanted None of the real one: the whole.
    """

    release: str
    source: str | None
    have: int
    wanted: int | None

    def as_line(self) -> str:
        """For people to read."""
        if self.wanted is None:
            return f"to import: {self.release} from {self.source}"
        line = f"{self.release}: {self.have:,} of {self.wanted:,} images a class are there"
        if self.source is None:
            return f"missing: {line}, and the study names no recipe to build it"
        return f"to build by recipe {self.source}: {line}; `build-dataset --dry-run` tells the cost"


def missing_releases(study: Study) -> list[Missing]:
    """In the order in which they are made. UserError for a recipe that cannot be read."""
    found: dict[str, Missing] = {}
    if not _is_there(study.real.release):
        real = study.real
        found[real.release] = Missing(real.release, real.source, 0, None)
    there = _real_per_class(study.real)
    for generated in study.generated:
        seeds = study.seeds if generated.by_seed else study.seeds[:1]
        for size, seed in product(study.sizes, seeds):
            one = _generated(study, generated, size, seed, there)
            before = found.get(one.release)
            wanted = one.wanted or 0
            if wanted > max(one.have, (before.wanted or 0) if before else 0):
                found[one.release] = one
    for one in found.values():
        if one.wanted is not None and one.source is not None:
            load_recipe(one.source)
    return list(found.values())


def require_recipes(study: Study, missing: Sequence[Missing]) -> None:
    """UserError for a release that is missing and names no recipe, before any is begun."""
    for one in missing:
        if one.source is None:
            raise UserError(f"study {study.name}: {one.as_line()}")


def make_releases(study: Study, missing: Sequence[Missing], options: ClusterOptions) -> None:
    """Import and build them, so that every arm trains on as many images as planned.

    UserError, before any is built, for real images that are others than the study says; for a
    release whose shards keep failing or whose slots stay empty.
    """
    settings = RunSettings(options, say=say, mixing_offered=False)
    for one in (one for one in missing if one.wanted is None):
        _make(one, study.real.views, settings)
    require_as_stated(study.real, real_labels(study.real))
    for one in missing_releases(study):
        if _make(one, study.real.views, settings).quarantined:
            raise UserError(
                f"study {study.name}: {one.release} lacks shards that kept failing, so an arm "
                f"would train on fewer images than planned; see {one.release}/quarantine"
            )
    for one in missing_releases(study):
        raise UserError(
            f"study {study.name}: {one.release} has {one.have:,} images of its rarest class, not "
            f"{one.wanted or 0:,}: slots that its accept rule left empty stay so; ask for smaller "
            "sizes or change the recipe"
        )


def _make(one: Missing, views: Sequence[int], settings: RunSettings) -> Outcome:
    """As `build-dataset` does, but for what it prints."""
    source = one.source or ""
    if one.wanted is None:
        named = SourceName.parse(source)
        name = str(replace(named, name=absolute_if_folder(named.name)))
        outcome, _ = import_images(
            name, one.release, sorted(set(views)), None, settings, quiet=False
        )
        return outcome
    recipe = load_recipe(source)
    classes = load_classes(recipe.classes)
    wanted = Wanted(recipe, recipe.chain(None), classes, classes, one.wanted)
    return build_wanted(wanted, release_path(one.release), settings, quiet=False)


def _generated(
    study: Study, generated: GeneratedSet, size: int | str, seed: int, there: float | None
) -> Missing:
    """there: real images of each class, None where they are not imported yet."""
    wanted = needed_per_class(study, generated, size, there)
    own = generated.of(size, seed)
    return Missing(own.release, own.recipe, _per_class(own.release), wanted)


def _real_per_class(real: RealSet) -> float | None:
    """Real images of each class, on average; None where they are not imported yet."""
    if not _is_there(real.release):
        return None
    return len(real_labels(real)) / len(read_manifest(release_path(real.release)).classes)


def _per_class(release: str) -> int:
    """Generated images of the rarest class; 0 where there is no finished release."""
    if not _is_there(release):
        return 0
    manifest = read_manifest(release_path(split_release(release)[0]))
    counts = manifest.per_class(list(manifest.base.splits())[-1], "train")
    return min(counts[entry.wnid] for entry in manifest.classes)


def _is_there(release: str) -> bool:
    return exists(release_path(split_release(release)[0]) / "manifest.json")
