"""What a study takes of a GPU, by counted work: its trainings, and the releases that it builds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builder.planning.device_cost import (
    Device,
    DeviceCost,
    Evaluations,
    device_cost,
    evaluations_of,
)
from builder.planning.recipe import load_recipe
from classifiers.study.cost import Cost
from classifiers.study.releases import Missing
from release.commands.duration import duration

SHORT_HOURS = 1 / 60  # work so small that starting kernels takes longer than computing


@dataclass(frozen=True)
class GpuCost:
    """Of one classifier's trainings, or of one release. flops: None where a stage's recipe states
    its seconds instead; hours: None where a stage's network is not counted, as of small U-Nets."""

    what: str
    flops: float | None
    hours: float | None
    hardware: str

    def as_line(self) -> str:
        """For people to read."""
        if self.hours is None:
            return f"{self.what}: not counted; `build-dataset --dry-run` times a batch here"
        counted = "" if self.flops is None else f"{self.flops:.2g} FLOPs, "
        small = "; small networks take far longer" if self.hours < SHORT_HOURS else ""
        return f"{self.what}: {counted}{duration(self.hours)} on {self.hardware}{small}"


def gpu_costs(
    costs: Sequence[Cost], missing: Sequence[Missing], classes: int, device: Device
) -> list[GpuCost]:
    """Of what is not finished: trainings on `device`, then builds. classes: of the study."""
    return [
        *(_of_trainings(cost, device) for cost in costs),
        *_of_builds(missing, classes, device),
    ]


def _of_trainings(cost: Cost, device: Device) -> GpuCost:
    flops = 2 * cost.multiply_adds
    hours = device.gpu.seconds(flops, cost.precision, device.utilisation) / 3600
    return GpuCost(cost.model, flops, hours, str(device))


def _of_builds(missing: Sequence[Missing], classes: int, device: Device) -> Iterator[GpuCost]:
    for one in missing:
        if one.wanted is None or one.source is None:  # imported, or nobody knows how it is made
            continue
        images = (one.wanted - one.have) * classes
        chain = load_recipe(one.source).chain(None)
        stages = [(stage, device_cost(stage, device)) for stage in chain]
        what = f"{images:,} images of {one.source}"
        if None in (cost for _, cost in stages):
            yield GpuCost(what, None, None, str(device))
            continue
        known = [(evaluations_of(stage), cost) for stage, cost in stages if cost]
        each = [_flops(evaluations, cost) for evaluations, cost in known]
        flops = None if None in each else images * sum(filter(None, each))
        hours = images * sum(cost.seconds for _, cost in known) / 3600
        hardware = " and ".join(dict.fromkeys(cost.hardware for _, cost in known))
        yield GpuCost(what, flops, hours, hardware)


def _flops(evaluations: Evaluations | None, cost: DeviceCost) -> float | None:
    """Of one image of a stage, its decoding included."""
    if cost.work is None or evaluations is None:
        return None
    return float(evaluations.total * cost.work.evaluation + cost.work.decoding)
