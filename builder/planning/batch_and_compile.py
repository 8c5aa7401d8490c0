"""How a build runs a stage's networks: how many images they see at once, and whether compiled.

Both may change the last bits of pixels, so they stand in a stage's fingerprint. On a GPU a build
chooses them when a stage is begun: as many images as fit, and compiled where that pays. A release
keeps them while it grows, and its manifest says them with their reasons. Without a GPU, and on a
cluster that runs already, whose GPUs are not known here, a stage runs as its recipe says.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from builder.planning.device_cost import DEFAULT_DEVICE, device_cost
from builder.planning.device_memory import GIB, MemoryNeed, memory_need
from builder.planning.model_facts import StageCost
from builder.planning.plan import Block
from builder.planning.recipe import StageRecipe
from generation.families import generator_source
from generation.networks.gpus import Gpu
from release.errors import UserError

LARGEST = 256  # images at once: more fill a GPU no better
BATCH_SECONDS = 300.0  # that a batch may take: so much work a kill costs at most
USED = 0.8  # of a GPU's memory; the rest is for the driver and what kernels work in
PAYS_FROM = 600.0  # seconds of sampling a worker; compiling takes some 100, saves a fifth or more


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of a GPU: all, and what nobody else has taken."""

    total: int
    free: int

    @property
    def usable(self) -> float:
        """USED of all, where it is free: the same on every GPU of a kind that nobody shares."""
        return min(USED * self.total, float(self.free))


@dataclass(frozen=True)
class Execution:
    """batch: images the networks see at once. compile: whether they run compiled. basis: why, for
    people."""

    batch: int
    compile: bool
    basis: str


@dataclass(frozen=True)
class Means:
    """What a build runs on, and what its user asks for.

    gpus: of this machine, none where it builds elsewhere. workers: on this machine; None: one a
    GPU. batches: one for all stages or one for each, None: chosen. compile: None: where it pays.
    """

    gpus: tuple[GpuMemory, ...] = ()
    workers: int | None = None
    batches: tuple[int, ...] | None = None
    compile: bool | None = None

    @property
    def memory(self) -> float | None:
        """Bytes a worker may take; None without a GPU."""
        if not self.gpus:
            return None
        sharing = ceil((self.workers or len(self.gpus)) / len(self.gpus))
        return min(gpu.usable for gpu in self.gpus) / sharing

    def batch_of(self, position: int, stages: int) -> int | None:
        """What is asked for the stage at `position` of so many; UserError for another number."""
        if self.batches is None:
            return None
        if len(self.batches) not in (1, stages):
            raise UserError(
                f"--batch names {len(self.batches)} batches, the chain has {stages} stages: give "
                "one for all, or one for each"
            )
        return self.batches[position % len(self.batches)]


@dataclass(frozen=True)
class Size:
    """Of a build. images: of each stage; rows: of its largest shard."""

    images: int
    rows: int

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Size":
        """Of shards of those."""
        rows = [block.rows for block in blocks]
        return cls(sum(rows), max(rows, default=1))


AS_RECIPES_SAY = Means()


def as_run(
    chain: Sequence[StageRecipe],
    begun: Collection[str],
    kept: Mapping[str, Execution],
    size: Size,
    means: Means,
) -> tuple[list[StageRecipe], dict[str, Execution]]:
    """The stages as they run, and by resolution how, of those that do not run as the recipe says.

    begun: resolutions that the release has; kept: how those of them run.
    """
    stages, found = list(chain), {}
    for position, stage in enumerate(chain):
        name, asked = str(stage.resolution), means.batch_of(position, len(chain))
        if name in begun:
            before = kept.get(name) or Execution(stage.batch, stage.compile, "")
        else:
            before = _chosen(stage, size, means, asked)
        chosen = _asked(before, asked, means.compile)
        if (chosen.batch, chosen.compile) != (stage.batch, stage.compile):
            stages[position], found[name] = _executed(stage, chosen), chosen
        elif name in kept:  # the recipe is that of the release's manifest, as it was built
            found[name] = chosen
    return stages, found


def _executed(stage: StageRecipe, execution: Execution) -> StageRecipe:
    """What it takes of memory is then of that batch, where it is known."""
    changes: dict[str, object] = {"batch": execution.batch, "compile": execution.compile}
    need = memory_need(stage)
    if stage.cost is not None and need is not None:
        changes["cost"] = _cost(stage.cost, stage.batch, execution.batch, need)
    return stage.model_copy(update=changes)


def _cost(stated: StageCost, before: int, batch: int, need: MemoryNeed) -> StageCost:
    gib = round(need.gib(batch), 1)
    if batch >= before:  # what was stated may hold what is not counted, such as a text encoder
        gib = max(gib, stated.memory_gib)
    source = f"{stated.source}; memory of a batch of {batch} counted: {need}"
    return stated.model_copy(update={"memory_gib": gib, "source": source})


def _asked(execution: Execution, batch: int | None, compiled: bool | None) -> Execution:
    """`execution`, as far as the user asks for nothing else."""
    wanted = (
        execution.batch if batch is None else batch,
        execution.compile if compiled is None else compiled,
    )
    if wanted == (execution.batch, execution.compile):
        return execution
    return Execution(*wanted, basis="asked for")


def _chosen(stage: StageRecipe, size: Size, means: Means, asked: int | None) -> Execution:
    """asked: the batch that its user asks for."""
    memory = means.memory
    if memory is None:
        return Execution(stage.batch, stage.compile, "")
    batch, why = (asked, "batch asked for") if asked else _batch(stage, size.rows, memory)
    compiled, reason = _compiled(stage, size.images / (means.workers or len(means.gpus)))
    return Execution(batch, compiled, f"{why}; {reason}")


def _largest(stage: StageRecipe) -> int:
    """Images at once, whatever the memory; what the recipe says is never too many."""
    cost = device_cost(stage, DEFAULT_DEVICE)
    in_time = LARGEST if cost is None else int(BATCH_SECONDS / cost.seconds)
    return max(stage.batch, min(LARGEST, in_time))


def _batch(stage: StageRecipe, rows: int, memory: float) -> tuple[int, str]:
    """As few batches a shard as fit, of one size; the recipe's where its need is not known."""
    need = memory_need(stage)
    if need is None:
        return stage.batch, "the recipe's batch: what an image needs is not known"
    most = min(_largest(stage), need.most(memory))
    if most == 0:
        raise UserError(
            f"the stage at {stage.resolution} px needs {need.gib(1):.1f} GiB of GPU memory for one "
            f"image at a time, and {memory / GIB:.1f} are there for it: use a larger GPU, or hide "
            "it with CUDA_VISIBLE_DEVICES"
        )
    return _even(
        most, rows
    ), f"batch by memory: {need}, of {memory / GIB:.3g} GiB; shards of {rows:,} images"


def _compiled(stage: StageRecipe, images: float) -> tuple[bool, str]:
    """Whether that pays for a worker that makes so many."""
    if stage.compile:
        return True, "compiled as the recipe says"
    if getattr(generator_source(stage.generator), "SHAPES_VARY", False):
        return False, "not compiled: each step is of another shape"
    cost = device_cost(stage, DEFAULT_DEVICE)
    if cost is None:
        return False, "not compiled: what an image takes is not known"
    seconds = images * cost.seconds
    pays = seconds >= PAYS_FROM
    return pays, f"{'' if pays else 'not '}compiled: a worker samples for some {seconds:,.0f} s"


def batch_line(stage: StageRecipe, size: Size, gpu: Gpu) -> str:
    """For people: the batch as it stands, and what a build on that GPU would take."""
    told = f"batch: {stage.batch}{', compiled' if stage.compile else ''}"
    need = memory_need(stage)
    if need is None:
        return told
    most = need.most(USED * gpu.memory * 1e9)
    if most == 0:
        return f"{told}; {gpu.name} holds no image of it ({need})"
    batch = _even(min(_largest(stage), most), size.rows)
    return f"{told}; on {gpu.name}: {batch}, {need.gib(batch):.3g} GiB ({need})"


def _even(most: int, rows: int) -> int:
    """As few batches as `most` allows, of one size."""
    return ceil(rows / ceil(rows / most))
