"""What each shard of a synthetic release ought to be, derived from the plan in its manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.builds.planned import PlannedRelease, planned_release, stated_state
from builder.exemplars.images import ExemplarImages
from builder.exemplars.located import LocatedExemplars
from builder.planning.image_seeds import image_id, image_seed
from builder.planning.plan import ShardPlan
from builder.release.checks.shards import (
    Columns,
    ImageRow,
    ShardCheck,
    read_columns,
)
from builder.shards.shard import columns_of
from builder.state import STATE_FILE, SyntheticState, goes_on_from, standing_state
from release.errors import UserError
from release.files.commit import canonical_json
from release.files.storage import ReleasePath, exists
from release.images.decoding import is_marked_synthetic
from release.layout.findings import Problem, differing
from release.layout.manifest import MANIFEST_FILE, Manifest, ShardRecord
from release.layout.parquet import image_features, table_schema
from release.layout.shard_files import flat_path


def plan_checks(release: ReleasePath, manifest: Manifest) -> tuple[list[ShardCheck], list[Problem]]:
    """A check of each shard that is planned and listed, and what is wrong with the list."""
    planned = planned_release(manifest)
    plans = {plan.path: plan for plan in planned.shards}
    schemas = {
        stage.recipe.resolution: table_schema(
            image_features(manifest.classes, columns_of(stage.recipe)), manifest.classes
        )
        for stage in planned.stages
    }
    seed = planned.recipe.seed
    at_hand = _at_hand(planned.stages[0].exemplars, [entry.wnid for entry in manifest.classes])
    places = {flat_path(record.path): record.path for record in manifest.shards}
    checks = [
        ShardCheck(
            record=record,
            schema=schemas[plans[flat_path(record.path)].stage.recipe.resolution],
            rows=_RowCheck(release, record, plans[flat_path(record.path)], seed, places, at_hand),
            image=_ImageCheck(plans[flat_path(record.path)].stage.recipe.resolution),
        )
        for record in manifest.shards
        if flat_path(record.path) in plans
    ]
    return checks, [
        *_fingerprint_problems(planned, manifest.shards),
        *_list_problems(manifest, planned),
        *_balance_problems(manifest, planned),
        *_state_problems(release, manifest, planned),
    ]


def _at_hand(exemplars: LocatedExemplars | None, class_ids: Sequence[str]) -> ExemplarImages | None:
    """What the first stage began from, where the recipe names a folder that is here as it was.

    No URL is opened because a manifest names it.
    """
    if exemplars is None or "://" in exemplars.release:
        return None
    try:
        images = ExemplarImages.open(exemplars)
        images.require_enough(class_ids)
    except UserError:
        return None
    return images


class _RowCheck:
    """Rows of one shard against its plan: identity, seed, prompt, settings, parents, exemplars."""

    def __init__(
        self,
        release: ReleasePath,
        record: ShardRecord,
        plan: ShardPlan,
        seed: int,
        places: Mapping[str, str],
        at_hand: ExemplarImages | None,
    ) -> None:
        self._release, self._plan, self._seed, self._places = release, plan, seed, places
        self._planned, self._at_hand = record.planned, at_hand

    def __call__(self, columns: Columns) -> list[str]:
        plan = self._plan
        written = set(zip(columns["class_id"], columns["index"], strict=True))
        cells = [(e, index) for e, index in plan.block.cells() if (e.wnid, index) in written]
        wanted = [(entry.wnid, index) for entry, index in cells]
        if list(zip(columns["class_id"], columns["index"], strict=True)) != wanted:
            return ["its classes and indices are not the planned ones"]
        if self._planned != plan.block.rows:
            return [f"{plan.block.rows} images planned, {self._planned} written or quarantined"]
        stage = plan.stage
        resolution = stage.recipe.resolution
        names = columns["image_id"]
        identities = [
            (self._seed, resolution, entry.wnid, index, attempt)
            for (entry, index), attempt in zip(cells, columns["attempt"], strict=True)
        ]
        expected: Columns = {
            "image_id": [image_id(*identity) for identity in identities],
            "seed": [image_seed(*identity) for identity in identities],
            "label": [entry.label for entry, _ in cells],
            "prompt": [plan.block.prompts.of(entry, index) for entry, index in cells],
            "generator": [stage.recipe.generator] * len(cells),
            "checkpoint_sha256": [stage.checkpoint_sha256] * len(cells),
            "sampler": [canonical_json(stage.recipe.sampler.model_dump())] * len(cells),
        }
        if stage.guide is not None:
            expected["guide_sha256"] = [stage.guide.sha256] * len(cells)
        found = [
            line
            for name, values in expected.items()
            for line in differing(f"{name} is not the planned one", names, columns[name], values)
        ]
        return [*found, *self._parent_problems(columns), *self._exemplar_problems(columns)]

    def _exemplar_problems(self, columns: Columns) -> list[str]:
        """Against the exemplars; where those are not at hand, against what rows say of each other:
        the same number of a class is the same image, and of a higher number one of a later id."""
        asked = self._plan.stage.exemplars
        if asked is None:
            return []
        found = [one or "" for one in columns["exemplar_image_id"]]
        names = columns["image_id"]
        slots = list(zip(columns["class_id"], columns["index"], strict=True))
        if self._at_hand is not None:
            wanted = self._at_hand.ids_of(slots)
            return differing("exemplar_image_id is not the planned one", names, found, wanted)
        numbered = [(wnid, asked.number(index)) for wnid, index in slots]
        first = dict(zip(reversed(numbered), reversed(found), strict=True))
        ordered = [(wnid, first[wnid, number]) for wnid, number in sorted(first)]
        if "" in found or ordered != sorted(set(ordered)):
            return ["its exemplar_image_id are not the first of each class by id"]
        wanted = [first[one] for one in numbered]
        return differing("exemplar_image_id is another than at its number", names, found, wanted)

    def _parent_problems(self, columns: Columns) -> list[str]:
        parents, names = columns["parent_image_id"], columns["image_id"]
        if self._plan.parent_path is None:
            stated = [parent or "" for parent in parents]  # null in releases of before
            none = [""] * len(names)
            return differing("parent_image_id is set at a first stage", names, stated, none)
        parent = self._places.get(self._plan.parent_path, self._plan.parent_path)
        found = read_columns(self._release / parent, ["class_id", "index", "image_id"])
        if found is None:
            return []  # the parent's own check says so
        cells = zip(found["class_id"], found["index"], strict=True)
        by_cell = dict(zip(cells, found["image_id"], strict=True))
        own = zip(columns["class_id"], columns["index"], strict=True)
        wanted = [by_cell.get(cell, "") for cell in own]
        return differing("parent_image_id is not in the parent shard", names, parents, wanted)


@dataclass(frozen=True)
class _ImageCheck:
    """An image of the stage's size that says it is synthetic."""

    resolution: int

    def __call__(self, row: ImageRow) -> str | None:
        side = self.resolution
        if row.image.size != (side, side) or row.image.mode != "RGB":
            width, height = row.image.size
            return f"is {width} x {height} {row.image.mode}, not {side} x {side} RGB"
        return None if is_marked_synthetic(row.image) else "lacks the mark of synthetic media"


def _fingerprint_problems(planned: PlannedRelease, records: Sequence[ShardRecord]) -> list[Problem]:
    found = []
    for stage, derived in zip(planned.stages, planned.derived, strict=True):
        name = str(stage.recipe.resolution)
        if derived is not None and stage.fingerprint != derived:
            text = f"the fingerprint of stage {name} does not follow from the recipe"
            found.append(Problem(MANIFEST_FILE, text))
        if any(r.config == name and r.fingerprint != stage.fingerprint for r in records):
            text = f"shards of stage {name} carry another fingerprint than the stage"
            found.append(Problem(MANIFEST_FILE, text))
    return found


def _list_problems(manifest: Manifest, planned: PlannedRelease) -> list[Problem]:
    """Shards that are planned and not listed, or listed and not planned."""
    listed = {flat_path(record.path) for record in manifest.shards}
    plans = {plan.path for plan in planned.shards}
    return [
        *(Problem(path, "is planned, and not in the manifest") for path in sorted(plans - listed)),
        *(Problem(path, "is in the manifest, and not planned") for path in sorted(listed - plans)),
    ]


def _balance_problems(manifest: Manifest, planned: PlannedRelease) -> list[Problem]:
    """One line for each configuration whose classes do not have the images they were to have."""
    wanted = planned.per_class()
    found = []
    for stage in planned.stages:
        config = str(stage.recipe.resolution)
        counts = manifest.per_class(config, "train") + manifest.quarantined(config, "train")
        wrong = [w for w in wanted if counts[w] != wanted[w]]
        if wrong:
            first = wrong[0]
            found.append(
                Problem(
                    MANIFEST_FILE,
                    f"configuration {config} has {counts[first]} images of class {first}, planned "
                    f"are {wanted[first]} ({len(wrong)} of {len(wanted)} classes are off)",
                )
            )
    return found


def _state_problems(
    release: ReleasePath, manifest: Manifest, planned: PlannedRelease
) -> list[Problem]:
    """Whether build.json, by which the release grows, is of this release."""
    if not exists(release / STATE_FILE):
        return [Problem(STATE_FILE, "is missing")]
    state = standing_state(release, SyntheticState)
    if state is None:
        return [Problem(STATE_FILE, "cannot be read")]
    if not goes_on_from(state, stated_state(manifest, planned)):
        return [Problem(STATE_FILE, "is of another release than the manifest")]
    return []
