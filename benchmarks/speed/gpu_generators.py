"""Images a second of five ImageNet recipes, with random weights, over the barest possible loop.

    python -m benchmarks.speed.gpu_generators --out gpu-generators.md    # a GPU, 8 minutes at most
    python -m benchmarks.speed.gpu_generators --tiny                     # any machine

Each network is saved at its published shape with random weights, in its authors' layout, beside an
autoencoder. The builder's generator loads it from there and samples by the recipe's sampler, in at
most --steps steps: speed does not depend on what weights say. It samples as many images as a build
would at once (builder/planning/batch_and_compile.py), but --batch at most, and on a GPU also
compiled; its first round then tells what compiling took. The bare loop calls the same network on
noise of one generator, in the same precision, as often, adds what it says and decodes the batch at
once. Of two batches ("beside") the first is decoded while the second is sampled. Rounds take turns;
medians are compared. On a GPU the peak of the builder's memory stands beside what its plan counts.

Then FLUX.2-klein's transformer alone, with random weights at its published shape: evaluations a
second at 1024 px, in bfloat16 and in fp8 where the GPU has it. --seconds ends the script between
recipes; what was measured until then is written.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, Flux2Transformer2DModel
from torch import Tensor, nn

from builder.planning.batch_and_compile import Means, Size, as_run
from builder.planning.device_memory import GIB, memory_need
from builder.planning.gpu_memory import gpus_here
from builder.planning.recipe import StageRecipe, load_recipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, work_of
from generation.families.diffusers.kinds import FLUX2_BASE, SHAPES
from generation.families.diffusion_transformer import converter
from generation.families.diffusion_transformer.work import published_plan
from generation.families.mean_flow import converter as mean_flow
from generation.families.mean_flow.network import MeanFlowNetwork, MeanFlowPlan
from generation.families.mean_flow.work import published_plan as mean_flow_plan
from generation.generator import ImageBatch
from generation.networks.flops import counted_flops
from generation.networks.fp8.running import fp8_problem
from generation.networks.placement import best_placement
from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.autoencoder_shapes import STABLE_DIFFUSION
from generation.pretrained.decoding import DecodingGenerator
from release.environment import device_kind

NAMES = ("imf-256", "imf-2-steps-256", "dit-256", "sit-256", "repa-256")
AUTOENCODERS = ("sd-vae-ft-ema", "sd-vae-ft-mse")  # where files in the authors' layouts look
SCALE = 0.18215
COLUMNS = (
    *("recipe", "batch", "steps", "images/s", "compiled", "compiling, s", "beside"),
    *("bare loop", "ratio"),
    *("TFLOP/s", "GiB", "counted"),
)
TINY_DECODER = STABLE_DIFFUSION | {"block_out_channels": (8,) * 4, "norm_num_groups": 4}
TINY = TransformerPlan(32, 4, 8, 1001, patch=8, width=384, depth=1, heads=6)
TINY_MEAN_FLOW = MeanFlowPlan(32, 4, 1001, 8, 16, 2, 2, 24)
FLUX = SHAPES[FLUX2_BASE][1]
TINY_FLUX = FLUX | {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1}
TEXTS = 512  # tokens of a prompt


@dataclass(frozen=True)
class Speed:
    """Images a second. compiling: seconds. beside: of two batches, by the network compiled where it
    was. gib, counted: memory of the builder's loop, measured and as its plan counts it. flops: that
    the builder's reach at best."""

    recipe: str
    batch: int
    sampler: SamplerConfig
    ours: float
    bare: float
    compiled: float | None
    compiling: float | None
    beside: float
    gib: float | None
    counted: float | None
    flops: float | None

    def row(self) -> str:
        """Of the table."""
        best = max(self.ours, self.compiled or 0, self.beside)
        numbers = [self.ours, self.compiled, self.compiling, self.beside]
        numbers += [self.bare, best / self.bare]
        numbers += [self.flops and self.flops / 1e12, self.gib, self.counted]
        told = " | ".join("" if number is None else f"{number:.3g}" for number in numbers)
        return f"| `{self.recipe}` | {self.batch} | {self.sampler.steps} | {told} |"


def main() -> None:
    arguments = parse_arguments()
    started = time.perf_counter()
    print(f"{device_kind()}, torch {torch.__version__}; {arguments.rounds} rounds, random weights")
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"|---{'|--:' * (len(COLUMNS) - 1)}|",
    ]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as place:
        save_autoencoders(Path(place), tiny=arguments.tiny)
        for name in NAMES:
            if time.perf_counter() - started > arguments.seconds:
                break
            lines.append(measured(f"imagenet-{name}", Path(place), arguments).row())
            print(lines[-1], flush=True)
            write(arguments.out, lines)
    if time.perf_counter() - started < arguments.seconds:
        more = ["", *precisions(arguments)]
        print("\n".join(more))
        write(arguments.out, [*lines, *more])


def write(out: Path | None, lines: list[str]) -> None:
    if out is not None:
        out.write_text("\n".join([f"{device_kind()}", "", *lines]) + "\n")


def precisions(arguments: argparse.Namespace) -> list[str]:
    """FLUX.2-klein's transformer in bfloat16, and in fp8: a table."""
    side, batch = (4, 2) if arguments.tiny else (64, 2)
    problem = None if arguments.tiny else fp8_problem()
    lines = [
        "| FLUX.2-klein's transformer | batch | evaluations/s | TFLOP/s | first call, s |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, fp8 in (("bfloat16", False), ("fp8", True)):
        if fp8 and problem is not None:
            lines.append(f"| fp8: {problem} | | | | |")
            continue
        first, seconds, flops = evaluation(side, batch, fp8=fp8, arguments=arguments)
        rate = batch / seconds
        lines.append(f"| {name} | {batch} | {rate:.3g} | {rate * flops / 1e12:.3g} | {first:.3g} |")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return lines


def evaluation(
    side: int, batch: int, *, fp8: bool, arguments: argparse.Namespace
) -> tuple[float, float, int]:
    """Seconds of a first call of so many images and of later ones; operations of one image."""
    best = best_placement(arguments.compile)
    placement = replace(best, dtype=torch.bfloat16, fp8=fp8)
    shape = TINY_FLUX if arguments.tiny else FLUX

    def inputs(count: int, device: str) -> dict[str, Tensor]:
        def zeros(*of: int) -> Tensor:
            return torch.zeros(*of, device=device, dtype=placement.dtype)

        tokens = side**2
        return {
            "hidden_states": zeros(count, tokens, FLUX["in_channels"]),
            "encoder_hidden_states": zeros(count, TEXTS, FLUX["joint_attention_dim"]),
            "timestep": zeros(count),
            "img_ids": zeros(tokens, 4),
            "txt_ids": zeros(TEXTS, 4),
        }

    counted = flux(shape, "meta")
    with torch.device("meta"):
        flops = counted_flops(lambda: counted(**inputs(1, "meta")))
    network = placement.place(with_random_weights(flux(shape, placement.device)))
    given = inputs(batch, placement.device)

    @torch.inference_mode()
    def call() -> Tensor:
        said: Tensor = network(**given, return_dict=False)[0]
        return said[:, :1].float().cpu()

    first, seconds = interleaved({"call": call}, arguments.rounds)
    return first["call"], seconds["call"], flops


def flux(shape: dict[str, Any], device: str) -> Any:
    """Made in bfloat16: diffusers warns of a cast."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return Flux2Transformer2DModel(**shape)
    finally:
        torch.set_default_dtype(before)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the table, as Markdown")
    parser.add_argument("--steps", type=int, default=10, help="at most, of each sampler")
    parser.add_argument("--batch", type=int, default=64, help="images at once, at most")
    parser.add_argument("--rounds", type=int, default=3)
    gpu = torch.cuda.is_available()
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=gpu)
    parser.add_argument("--seconds", type=float, default=400, help="no recipe begins after them")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, two images a batch")
    return parser.parse_args()


def save_autoencoders(place: Path, *, tiny: bool) -> None:
    shape: dict[str, Any] = TINY_DECODER if tiny else STABLE_DIFFUSION
    for name in AUTOENCODERS:
        network: Any = AutoencoderKL(**shape, scaling_factor=SCALE)
        network.save_pretrained(place / name)


def measured(recipe: str, place: Path, arguments: argparse.Namespace) -> Speed:
    """Of one recipe, whose file is gone afterwards."""
    whole = load_recipe(recipe)
    rows = whole.shard.classes * whole.shard.indices
    means = Means(gpus_here(), compile=False)
    ((stage,), _) = as_run(whole.stages, (), {}, Size(rows, rows), means)
    steps = min(stage.sampler.steps, arguments.steps)
    settings = stage.sampler.model_copy(update={"steps": steps})
    batch = 2 if arguments.tiny else min(stage.batch, arguments.batch)
    suffix = ".pth" if stage.generator == "mean-flow" else ".pt"
    file = place / f"{recipe}{suffix}"
    torch.save(random_state(stage, tiny=arguments.tiny), file)
    fastest = loaded(stage, file)
    ours = builders(fastest, settings, asked(stage, batch))
    gib = peak_gib(ours)
    loops = {"ours": ours, "bare": bare(stage, settings, file, batch)}
    if arguments.compile:
        fastest = loaded(stage.model_copy(update={"compile": True}), file)
        loops["compiled"] = builders(fastest, settings, asked(stage, batch))
    loops["beside"] = beside(fastest, settings, asked(stage, batch))
    file.unlink()
    first, seconds = interleaved(loops, arguments.rounds)
    images = {name: batch / taken for name, taken in seconds.items()}
    images["beside"] *= 2
    best = max(images[name] for name in images if name != "bare")
    need = None if arguments.tiny else memory_need(stage)
    return Speed(
        recipe,
        batch,
        settings,
        images["ours"],
        images["bare"],
        images.get("compiled"),
        first["compiled"] - seconds["compiled"] if arguments.compile else None,
        images["beside"],
        gib,
        None if need is None else need.gib(batch),
        None if arguments.tiny else best * flops_of_an_image(stage, settings),
    )


def flops_of_an_image(stage: StageRecipe, settings: SamplerConfig) -> int:
    work = work_of(stage.generator, stage.checkpoint, stage.resolution)
    assert work is not None  # the recipes are built in
    return settings.network_evaluations * work.evaluation + work.decoding


def peak_gib(loop: Callable[[], object]) -> float | None:
    """Of a GPU's memory that the loop takes, weights included; None without one."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    loop()
    return torch.cuda.max_memory_reserved() / GIB


def random_state(stage: StageRecipe, *, tiny: bool) -> dict[str, Tensor]:
    """A network of the recipe's published shape, in its authors' layout."""
    torch.manual_seed(0)
    if stage.generator == "mean-flow":
        plan = TINY_MEAN_FLOW if tiny else mean_flow_plan(Path(stage.checkpoint).name)
        network: Any = with_random_weights(MeanFlowNetwork(plan))
        return mean_flow.authors_state(network, plan.depth // 2)
    says = 4 if stage.generator == "repa" else 8
    network = with_random_weights(Transformer(TINY if tiny else published_plan(256, says)))
    return converter.authors_state(network)


def with_random_weights(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network


def loaded(stage: StageRecipe, file: Path) -> DecodingGenerator:
    """The recipe's generator."""
    generator = generator_source(stage.generator).load(file, stage.compile)
    assert isinstance(generator, DecodingGenerator)  # all of NAMES are
    return generator


def asked(stage: StageRecipe, batch: int) -> ImageBatch:
    labels = [i % 1000 for i in range(batch)]
    return ImageBatch([""] * batch, labels, range(batch), None, stage.resolution)


def builders(
    generator: DecodingGenerator, settings: SamplerConfig, batch: ImageBatch
) -> Callable[[], object]:
    """As a worker without a GPU calls it."""
    return lambda: generator.sample(batch, settings)


def beside(
    generator: DecodingGenerator, settings: SamplerConfig, batch: ImageBatch
) -> Callable[[], object]:
    """As one with a GPU does, twice."""

    def loop() -> list[object]:
        begun = [generator.begin(batch, settings) for _ in range(2)]
        return [one.result() for one in begun]

    return loop


def bare(
    stage: StageRecipe, settings: SamplerConfig, file: Path, batch: int
) -> Callable[[], object]:
    """The same network called as often; what it says is added, the batch is decoded."""
    placement = best_placement(stage.compile)
    state, device = torch.load(file, weights_only=True), placement.device
    folder = file.parent / AUTOENCODERS[0]
    decoder: Any = AutoencoderKL.from_pretrained(folder).to(device).eval()
    labels = torch.arange(batch, device=device) % 1000
    evaluate = evaluations(stage, settings, state, labels)

    @torch.inference_mode()
    def loop() -> Tensor:
        x = torch.randn(batch, 4, 32, 32, device=device)
        for said in evaluate(x):
            x = x + said.float() / settings.steps
        images: Tensor = decoder.decode(x / SCALE, return_dict=False)[0]
        return images.clamp(-1, 1).cpu()

    return loop


def evaluations(
    stage: StageRecipe, settings: SamplerConfig, state: dict[str, Tensor], labels: Tensor
) -> Callable[[Tensor], Iterator[Tensor]]:
    """Of x: what the network says, step by step; guided as often as the recipe guides."""
    placement = best_placement(stage.compile)
    if stage.generator == "mean-flow":
        network: Any = placement.place(mean_flow.convert(state, 32, "random"), torch.float32)
        one = torch.ones(len(labels), device=placement.device)

        def mean(x: Tensor) -> Iterator[Tensor]:
            for _ in range(settings.steps):
                yield network(x, one, labels, 4 * one, (one, one))

        return mean
    body: Any = placement.place(converter.convert(state, "random"))
    both = torch.cat([labels, torch.full_like(labels, 1000)])
    pairs = settings.network_evaluations - settings.steps

    def instant(x: Tensor) -> Iterator[Tensor]:
        for i in range(settings.steps):
            told = both if i < pairs else labels
            inputs = torch.cat([x, x])[: len(told)].to(placement.dtype)
            time_now = torch.full((len(told),), 0.5, device=placement.device)
            yield body(inputs, time_now, told)[: len(x), :4]

    return instant


def interleaved(
    loops: dict[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the first round, which warms up, and medians of the others; a loop ends with its
    images here."""
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds + 1):
        for name, loop in loops.items():
            started = time.perf_counter()
            loop()
            taken[name].append(time.perf_counter() - started)
    first = {name: seconds[0] for name, seconds in taken.items()}
    return first, {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
