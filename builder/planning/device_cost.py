"""What an image of a stage takes of a GPU, before anything is fetched or sampled."""

from dataclasses import dataclass, replace

from builder.planning.recipe import StageRecipe
from generation.families import schedule_of, work_of
from generation.networks.flops import Work
from generation.networks.gpus import GPU, UTILISATION, Gpu, known_gpu
from release.errors import UserError


@dataclass(frozen=True)
class Device:
    """The GPU that hours are told of, and the share of its peak that is assumed."""

    gpu: Gpu
    utilisation: float

    @classmethod
    def named(cls, gpu: str | None, utilisation: float | None) -> "Device":
        """Of the command line; UserError for a GPU that is not known, or a share that is none."""
        share = UTILISATION if utilisation is None else utilisation
        return cls(known_gpu(gpu or GPU, share), share)

    def __str__(self) -> str:
        return f"one {self.gpu.name} at {self.utilisation:.0%} of its peak"


DEFAULT_DEVICE = Device.named(None, None)


@dataclass(frozen=True)
class DeviceCost:
    """seconds: of `hardware`, an image. basis: how that is known. work: what was counted, None
    where the recipe states its seconds."""

    seconds: float
    hardware: str
    basis: str
    work: Work | None = None


@dataclass(frozen=True)
class Evaluations:
    """Of an image: own, of the stage's network, told the class; guiding, of it told none, or of its
    guide."""

    own: int
    guiding: int

    @property
    def total(self) -> int:
        return self.own + self.guiding


def evaluations_of(stage: StageRecipe) -> Evaluations | None:
    """None where guidance acts at some of a schedule's steps and the checkpoint is not known here.

    UserError for a generator that guides at no such interval.
    """
    from generation.diffusion.schedule import NoiseSchedule
    from generation.diffusion.steps import guided_steps

    counted = stage.counted_sampler
    if not counted.interval_of_steps:
        return Evaluations(counted.own_evaluations, counted.guiding_evaluations)
    schedule = schedule_of(stage.generator, stage.checkpoint)
    if schedule is None:
        return None
    strength = 1.0 if stage.exemplars is None else stage.exemplars.strength
    guiding = guided_steps(NoiseSchedule(schedule), stage.sampler, strength)
    return Evaluations(counted.own_evaluations, guiding)


def known_evaluations(stage: StageRecipe) -> int:
    """All of them; UserError where they are not known."""
    found = evaluations_of(stage)
    if found is None:
        raise UserError(
            f"checkpoint {stage.checkpoint} is not here, whose noise schedule tells at which steps "
            "its sampler's guidance_interval acts"
        )
    return found.total


def device_cost(stage: StageRecipe, device: Device) -> DeviceCost | None:
    """As the recipe states it for its hardware, else counted for `device`; None where neither is
    known, and in fp8 on a GPU that has none."""
    stated = stated_cost(stage)
    if stated is not None:
        return stated
    evaluations = evaluations_of(stage)
    if evaluations is None:
        return None
    if stage.guide is not None:
        return _guided_cost(stage, stage.guide.checkpoint, evaluations, device)
    work = work_of(stage.generator, stage.checkpoint, stage.resolution)
    if work is None:
        return None
    if stage.precision is not None:
        if not work.for_fp8 or device.gpu.fp8 is None:
            return None
        work = replace(work, in_fp8=True)
    seconds = work.seconds(evaluations.total, device.gpu, device.utilisation)
    return DeviceCost(seconds, str(device), f"counted: {_counted(work, evaluations.total)}", work)


def _guided_cost(
    stage: StageRecipe, guide: str, evaluations: Evaluations, device: Device
) -> DeviceCost | None:
    """The network's own evaluations, and those of its guide."""
    work = work_of(stage.generator, stage.checkpoint, stage.resolution)
    weaker = work_of(stage.generator, guide, stage.resolution)
    if work is None or weaker is None:
        return None
    weaker = replace(weaker, decoding=0)  # of images that are the network's
    own, guiding = evaluations.own, evaluations.guiding
    seconds = work.seconds(own, device.gpu, device.utilisation)
    seconds += weaker.seconds(guiding, device.gpu, device.utilisation)
    basis = f"counted: {_counted(work, own)}; of the guide {_counted(weaker, guiding)}"
    return DeviceCost(seconds, str(device), basis, work)


def stated_cost(stage: StageRecipe) -> DeviceCost | None:
    """What the recipe says; None where it leaves it to be counted."""
    cost = stage.cost
    if cost is None or cost.seconds is None or cost.hardware is None:
        return None
    return DeviceCost(cost.seconds, cost.hardware, cost.source)


def _counted(work: Work, evaluations: int) -> str:
    times = "one evaluation" if evaluations == 1 else f"{evaluations:,} evaluations"
    single = " in float32" if work.precision == "single" else ""
    fp8 = f", {work.for_fp8 / work.evaluation:.0%} of them in fp8" if work.in_fp8 else ""
    text = f"{times} of {work.evaluation / 1e9:,.4g} GFLOPs{single}{fp8}"
    if not work.decoding:
        return text
    single = " in float32" if work.decoded_in == "single" else ""
    return f"{text}, {work.decoding / 1e9:,.4g} GFLOPs to decode{single}"
