"""What a training will take: memory by part, images, arithmetic, hours, and what fits on how many
GPUs. Nothing is fetched or allocated for it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from generation.networks.gpus import Gpu, Precision, known_gpu
from generation.training.config import PRECISION_NAMES, TrainingConfig
from generation.training.memory import GB, TrainingMemory, fixed_parts, millions
from generation.training.recipe import TrainingRecipe
from release.commands.duration import duration

COUNTS = (1, 8, 64)  # GPUs that a plan shows
TIMES_FORWARD = 3  # a backward pass takes two forward passes' arithmetic (Kaplan et al. 2020)
TIMES_FROZEN = 2  # one of them, where nearly all weights are frozen and have no gradient
ROOM = 0.9  # share of a GPU's memory that is planned with: kernels need work space


@dataclass(frozen=True)
class Share:
    """One of `gpus` equal shares. images: at once, in so many parts (accumulation); bytes by part.

    fits: whether that is in the GPU's memory; if not even one image is, images is 1. problem: why
    the batch cannot be shared so, and then nothing else is known.
    """

    gpus: int
    images: int = 0
    accumulation: int = 0
    bytes: dict[str, int] | None = None
    total: int = 0
    fits: bool = False
    hours: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """All of it. parameters: that are trained; frozen: those that are not. flops_image:
    floating-point operations of one image's forward and backward pass; flops: of the whole
    training."""

    recipe: str
    generator: str
    start: str | None
    parameters: int
    frozen: int
    steps: int
    batch: int
    images: int
    optimizer: str
    precision: str
    flops_image: int
    flops: int
    gpu: Gpu
    utilisation: float
    shares: tuple[Share, ...]

    def as_json(self) -> dict[str, object]:
        """For scripts."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        of = f" from {self.start}" if self.start else ""
        yield (
            f"{self.recipe}: {self.generator}{of}, {millions(self.parameters, self.frozen)}, "
            f"{self.optimizer}, {self.precision}"
        )
        yield f"{self.images:,} images: {self.steps:,} steps of {self.batch:,}"
        image = f"{self.flops_image / 1e9:,.1f} G an image, forward and backward"
        yield f"{self.flops:.2g} FLOPs: {image}"
        yield (
            f"{self.gpu.name}, {self.utilisation:.0%} of its peak (an assumption, --utilisation), "
            f"{ROOM:.0%} of its memory; on each:"
        )
        for share in self.shares:
            yield f"  {_share_line(share)}"


def training_plan(
    recipe: TrainingRecipe, start: str | None, one: TrainingMemory, gpu: str, utilisation: float
) -> TrainingPlan:
    """one: what the training takes of memory in a single process."""
    config, card = recipe.training, known_gpu(gpu, utilisation)
    times = TIMES_FROZEN if one.frozen else TIMES_FORWARD
    flops_image = times * one.flops // one.images
    flops = flops_image * config.batch * config.steps
    precision: Precision = "single" if config.precision == "no" else "half"
    hours = card.seconds(flops, precision, utilisation) / 3600
    return TrainingPlan(
        recipe=recipe.name,
        generator=recipe.generator,
        start=start,
        parameters=one.parameters,
        frozen=one.frozen,
        steps=config.steps,
        batch=config.batch,
        images=config.batch * config.steps,
        optimizer=config.optimizer,
        precision=PRECISION_NAMES[config.precision],
        flops_image=flops_image,
        flops=flops,
        gpu=card,
        utilisation=utilisation,
        shares=tuple(_share(one, config, card, count, hours / count) for count in COUNTS),
    )


def _share(
    one: TrainingMemory, config: TrainingConfig, gpu: Gpu, count: int, hours: float
) -> Share:
    """With as many images at once as fit, since a part of a batch costs what a batch costs."""
    if config.batch % count:
        return Share(count, problem=f"a batch of {config.batch} does not divide over {count} GPUs")
    share = config.batch // count
    parts = fixed_parts(one.parameters, config, count, one.held)
    image = one.activations / one.images
    room = ROOM * gpu.memory * GB - sum(parts.values())
    fitting = [n for n in _divisors(share) if n * image <= room]
    images = max(fitting, default=1)
    parts["activations"] = round(images * image)
    total = sum(parts.values())
    fits = bool(fitting)
    return Share(count, images, share // images, parts, total, fits, hours if fits else None)


def _divisors(number: int) -> Sequence[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _share_line(share: Share) -> str:
    many = f"{share.gpus:>3} GPU{'' if share.gpus == 1 else 's'}"
    if share.bytes is None:
        return f"{many}: {share.problem}"
    parts = ", ".join(f"{name} {size / GB:,.3g}" for name, size in share.bytes.items() if size)
    needs = f"{share.total / GB:,.3g} GB ({parts})"
    if share.hours is None:
        return f"{many}: does not fit; with one image at once it takes {needs}"
    at_once = "1 image" if share.images == 1 else f"{share.images:,} images"
    return (
        f"{many}: {at_once} at once (accumulation = {share.accumulation}), {needs}; "
        f"{duration(share.hours)}"
    )
