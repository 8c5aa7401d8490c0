"""The plan: which shards a release has, and each image's identity and seed. Pure functions.

A release grows by build requests. Each adds the images its classes still lack; the shards of
earlier requests never change. Nothing here depends on workers, time, or what is on disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from builder.accept import LocatedRule
from builder.exemplars.located import LocatedExemplars
from builder.planning.checkpoints import LocatedGuide
from builder.planning.prompts import PromptChoice, choose_prompts
from builder.planning.recipe import PARENT_ENCODING, Recipe, StageRecipe
from generation.diffusion.sampler_config import SamplerConfig
from release.classes.class_list import ClassEntry
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.files.formats import ShardFormat
from release.layout.shard_files import FORMAT, shard_name

MOST_SHARDS = 200_000  # a stage: 50 million images in shards of the usual size


@dataclass(frozen=True)
class BuildRequest:
    """Make `per_class` images of each of `classes` (wnids), less what there is already."""

    classes: tuple[str, ...]
    per_class: int


@dataclass(frozen=True)
class Block:
    """Images start <= index < stop of each of `classes`: the rows of one shard."""

    classes: tuple[ClassEntry, ...]
    start: int
    stop: int
    prompts: PromptChoice = field(default=PromptChoice(), compare=False)

    @property
    def rows(self) -> int:
        return len(self.classes) * (self.stop - self.start)

    def cells(self) -> Iterator[tuple[ClassEntry, int]]:
        """(class, index) of each row, classes interleaved so that any run of rows is mixed."""
        return ((c, index) for index in range(self.start, self.stop) for c in self.classes)


@dataclass(frozen=True)
class StagePlan:
    """One stage with all that decides its images, and the hash of it.

    rule: what keeps them. prompts: the hash of the recipe's own, None where there are none.
    classifier: the folder of the one that guides the sampler.
    guide: the network that guidance leads away from.
    exemplars: real images that sampling begins from.
    """

    recipe: StageRecipe
    encoding: str
    checkpoint_sha256: str
    fingerprint: str
    rule: LocatedRule | None = None
    format: ShardFormat = "parquet"
    prompts: str | None = None
    classifier: Path | None = None
    guide: LocatedGuide | None = None
    exemplars: LocatedExemplars | None = None

    @property
    def sampler(self) -> SamplerConfig:
        """As a worker needs it, which may run elsewhere: its classifier by an absolute path."""
        settings = self.recipe.sampler
        if settings.classifier is None or self.classifier is None:
            return settings
        place = settings.classifier.model_copy(update={"checkpoint": str(self.classifier)})
        return settings.model_copy(update={"classifier": place})

    @property
    def attempts(self) -> int:
        """Images that a slot may cost."""
        return self.recipe.accept.attempts if self.recipe.accept else 1


@dataclass(frozen=True)
class ShardPlan:
    """One shard: a block at one stage. path and parent_path are relative to their releases."""

    stage: StagePlan
    block: Block
    path: str
    parent_path: str | None

    @property
    def fingerprint(self) -> str:
        return self.stage.fingerprint

    @property
    def planned(self) -> int:
        return self.block.rows


def plan_stages(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    classes: Sequence[ClassEntry],
    checkpoint_hashes: Sequence[str],
    rules: Sequence[LocatedRule | None] | None = None,
    encodings: Sequence[str] | None = None,
    guides: Sequence[LocatedGuide | None] | None = None,
    exemplars: LocatedExemplars | None = None,
) -> tuple[StagePlan, ...]:
    """Fingerprint each stage of `chain`; a stage's includes its parent's, none includes counts.

    checkpoint_hashes, rules, encodings, guides: one a stage; a stage without an accept rule or a
    guide has None.
    encodings: by default those of `stage_encodings`. exemplars: of the first stage.
    """
    encodings = encodings or stage_encodings(recipe, chain)
    rules = rules if rules is not None else [None] * len(chain)
    guides = guides if guides is not None else [None] * len(chain)
    common = _common_identity(recipe, classes)
    stages: list[StagePlan] = []
    for stage, checkpoint, rule, encoding, guide in zip(
        chain, checkpoint_hashes, rules, encodings, guides, strict=True
    ):
        content = common | {
            "checkpoint": checkpoint,
            "encoding": encoding,
            "parent": stages[-1].fingerprint if stages else None,
            **_stage_identity(stage, rule, guide),
        }
        begins_from = None if stages else exemplars
        if begins_from is not None:
            content["exemplars"] = begins_from.identity()
        guidance = stage.sampler.classifier
        stages.append(
            StagePlan(
                recipe=stage,
                encoding=encoding,
                checkpoint_sha256=checkpoint,
                fingerprint=sha256_text(canonical_json(content)),
                rule=rule,
                format=recipe.format,
                prompts=common.get("prompts"),
                classifier=None if guidance is None else Path(guidance.checkpoint).absolute(),
                guide=guide,
                exemplars=begins_from,
            )
        )
    return tuple(stages)


def _common_identity(recipe: Recipe, classes: Sequence[ClassEntry]) -> dict[str, Any]:
    """What decides the images of all stages. Settings that came later are named only where they are
    set: a release built before there was a choice goes on."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "seed": recipe.seed,
        "classes": sha256_text(
            canonical_json([[c.label, c.wnid, c.name, c.prompt] for c in classes])
        ),
    }
    if recipe.format != "parquet":
        content["container"] = recipe.format
    if recipe.prompts is not None:
        told = canonical_json(recipe.prompts.model_dump(mode="json"))
        content["prompts"] = sha256_text(told)
    return content


def _stage_identity(
    stage: StageRecipe, rule: LocatedRule | None, guide: LocatedGuide | None
) -> dict[str, Any]:
    """What a stage's own settings add; later ones as above."""
    content: dict[str, Any] = {
        "resolution": stage.resolution,
        "generator": stage.generator,
        "sampler": _identity(stage.sampler),
        "batch": stage.batch,
        **accept_identity(stage, rule),
    }
    if stage.compile:
        content["compile"] = True
    if stage.precision is not None:
        content["precision"] = stage.precision
    if guide is not None:
        content["guide"] = guide.sha256
    return content


def _identity(sampler: SamplerConfig) -> dict[str, Any]:
    """What of its settings decides images: of a classifier its hash, not where it lies."""
    content = sampler.model_dump()
    if sampler.classifier is not None:
        del content["classifier"]["checkpoint"]
    return content


def stage_encodings(recipe: Recipe, chain: Sequence[StageRecipe]) -> tuple[str, ...]:
    """The recipe's encoding for the last stage of `chain`; a parent is always lossless."""
    return (*[str(PARENT_ENCODING)] * (len(chain) - 1), recipe.encoding)


def accept_identity(stage: StageRecipe, rule: LocatedRule | None) -> dict[str, Any]:
    """What decides which images are kept; nothing for a stage that keeps all of them."""
    if stage.accept is None:
        return {}
    return {"accept": {"attempts": stage.accept.attempts} | (rule.identity() if rule else {})}


def asked_for(requests: Sequence[BuildRequest], classes: Sequence[ClassEntry]) -> list[ClassEntry]:
    """Those of `classes` that one of the requests names, in their order."""
    asked = {wnid for request in requests for wnid in request.classes}
    return [entry for entry in classes if entry.wnid in asked]


def plan_blocks(
    recipe: Recipe, classes: Sequence[ClassEntry], requests: Sequence[BuildRequest]
) -> list[Block]:
    """The blocks of all requests, in order.

    Classes that have as many images as each other share blocks; index blocks end at multiples of
    the recipe's block, so a release extended from there equals one built at once. UserError for
    more than MOST_SHARDS of them, before they are made.
    """
    made: dict[str, int] = {}
    blocks: list[Block] = []
    for request in requests:
        wanted = asked_for([request], classes)
        lacking = [c for c in wanted if made.get(c.wnid, 0) < request.per_class]
        lacking.sort(key=lambda c: (made.get(c.wnid, 0), c.label))
        for count, group in groupby(lacking, key=lambda c: made.get(c.wnid, 0)):
            lot = tuple(group)
            if (
                len(blocks) + _count_blocks(recipe, len(lot), count, request.per_class)
                > MOST_SHARDS
            ):
                raise UserError(
                    f"{request.per_class:,} images of each of {len(wanted):,} classes take more "
                    f"than {MOST_SHARDS:,} shards of {recipe.shard.classes} classes x "
                    f"{recipe.shard.indices} images a stage, the most of a release: make fewer "
                    "images (--per-class), or larger shards ([shard] in the recipe)"
                )
            blocks += _blocks_of(recipe, lot, count, request.per_class)
        made.update({c.wnid: request.per_class for c in lacking})
    return blocks


def _count_blocks(recipe: Recipe, classes: int, start: int, stop: int) -> int:
    """How many _blocks_of makes."""
    width, height = recipe.shard.classes, recipe.shard.indices
    return -(-classes // width) * (-(-stop // height) - start // height)


def _blocks_of(
    recipe: Recipe, classes: tuple[ClassEntry, ...], start: int, stop: int
) -> Iterator[Block]:
    width, height = recipe.shard.classes, recipe.shard.indices
    for first in range(0, len(classes), width):
        lot = classes[first : first + width]
        prompts = choose_prompts(recipe.prompts, recipe.seed, lot)
        low = start
        while low < stop:
            high = min(stop, (low // height + 1) * height)
            yield Block(lot, low, high, prompts)
            low = high


def plan_shards(stages: Sequence[StagePlan], blocks: Sequence[Block]) -> list[ShardPlan]:
    """Every block at every stage, parents before children."""
    return [
        ShardPlan(
            stage=stage,
            block=block,
            path=shard_path(stage, block),
            parent_path=shard_path(stages[position - 1], block) if position else None,
        )
        for position, stage in enumerate(stages)
        for block in blocks
    ]


def shard_path(stage: StagePlan, block: Block) -> str:
    """Where the block's file stands; its name ends in a hash of all that decides its content."""
    first = block.classes[0].label
    wnids = [c.wnid for c in block.classes]
    content = sha256_text(canonical_json([stage.fingerprint, wnids, block.start, block.stop]))
    name = f"c{first:04d}-i{block.start:06d}-{content[:10]}"
    return shard_name(str(stage.recipe.resolution), "train", name, stage.format)
