"""Images a second of our sampling loop over a plain diffusers loop, on the embedded base stage.

Both run the same network on the same noise: DPM-Solver++(2M), the recipe's steps and guidance
(both halves in one batch), no gradients, float32, static threshold. Rounds are interleaved and
medians compared; the images must be equal within a tolerance. The last line is one JSON
object: eager_ratio is our loop as it stands over diffusers', ratio our best setting (compiled,
channels_last) over the same, compile_s what compiling cost.

    python benchmarks/speed/sampling.py --threads 1 --rounds 9
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families.pixel_unet.checkpoint import load_checkpoint
from generation.families.pixel_unet.checkpoint_files import resolve_checkpoint
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.sampling import guided_denoiser
from generation.networks.placement import Placement

TOLERANCE = 2e-3  # of float32 images in [-1, 1], after all steps
Loop = Callable[[], Tensor]


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    network = placed(arguments.checkpoint, device, compiled=False)
    config = SamplerConfig(
        method="dpm-solver++", steps=arguments.steps, guidance=arguments.guidance
    )
    prompt = torch.arange(arguments.batch, device=device) % (len(network.prompts.prompts) - 1)
    loops: dict[str, Loop] = {
        "diffusers": diffusers_loop(network, prompt, config),
        "eager": our_loop(network, prompt, config),
    }
    compiled = placed(arguments.checkpoint, device, compiled=True)
    loops["best"] = our_loop(compiled, prompt, config)
    started = time.perf_counter()
    loops["best"]()
    compile_s = time.perf_counter() - started
    images = {name: loop() for name, loop in loops.items()}  # warm-up, and what is compared
    seconds = interleaved(loops, arguments.rounds, device)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        rate = arguments.batch / medians[name]
        spread = f"{min(values):.3f} to {max(values):.3f} s"
        print(f"{name:10s} {rate:8.1f} images/s   median of {len(values)} rounds, {spread}")
    report = {
        "eager_ratio": medians["diffusers"] / medians["eager"],
        "ratio": medians["diffusers"] / medians["best"],
        "compile_s": compile_s,
        "images_per_s": {name: arguments.batch / m for name, m in medians.items()},
        "largest_difference": {
            name: float((images[name] - images["diffusers"]).abs().max())
            for name in ("eager", "best")
        },
        "tolerance": TOLERANCE,
        **vars(arguments),
        "machine": machine(device),
        "versions": {name: version(name) for name in ("torch", "diffusers", "numpy")},
    }
    worst = max(report["largest_difference"].values())
    print(json.dumps(report))
    if worst > report["tolerance"]:
        raise SystemExit(f"images differ by {worst:.2g}, more than {report['tolerance']}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="builtin:fashion-mnist-16", help="a base stage")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=1.25)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="as a worker has by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def noise_shape(network: PixelUNet) -> tuple[int, int, int]:
    config = network.config
    return config.channels, config.resolution, config.resolution


def our_loop(network: PixelUNet, prompt: Tensor, config: SamplerConfig) -> Loop:
    """What a worker runs for a batch, noise drawn per image included."""
    schedule, kind = NoiseSchedule(network.config.schedule), network.config.prediction

    def loop() -> Tensor:
        noise = image_noise(range(len(prompt)), noise_shape(network))
        with torch.inference_mode(), ahead_of_need(noise) as draw:
            denoise = guided_denoiser(network, prompt, config.guidance, None, 0.0)
            return sample(
                denoise, schedule, kind, config, lambda: torch.from_numpy(draw()).to(prompt.device)
            )

    return loop


def diffusers_loop(network: PixelUNet, prompt: Tensor, config: SamplerConfig) -> Loop:
    """The loop of diffusers' pipelines around the same network; its start noise is given."""
    table = NoiseSchedule(network.config.schedule).alphas_cumprod
    betas = 1 - table / np.append(1.0, table[:-1])
    start = torch.from_numpy(next(image_noise(range(len(prompt)), noise_shape(network))))
    start = start.to(prompt.device)
    null = torch.full_like(prompt, len(network.prompts.prompts) - 1)
    kinds = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}

    @torch.no_grad()
    def loop() -> Tensor:
        scheduler: Any = DPMSolverMultistepScheduler(
            len(table),
            trained_betas=betas,
            prediction_type=kinds[network.config.prediction],
            thresholding=True,  # static, with sample_max_value = 1
            sample_max_value=1.0,
        )
        scheduler.set_timesteps(config.steps, device=prompt.device)
        prompts, x = torch.cat([prompt, null]), start
        for t in scheduler.timesteps:
            out = network(torch.cat([x, x]), t.expand(len(prompts)), prompts)
            conditional, unconditional = out.chunk(2)
            guided = unconditional + config.guidance * (conditional - unconditional)
            x = scheduler.step(guided, t, x, return_dict=False)[0]
        return x

    return loop


def placed(checkpoint: str, device: torch.device, compiled: bool) -> PixelUNet:
    """The stage's network as a worker has it; compiled: as a recipe's `compile = true` asks for."""
    network = load_checkpoint(resolve_checkpoint(checkpoint))
    return Placement(device.type, torch.float32, compiled).place(network)


def interleaved(
    loops: dict[str, Loop], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:  # each comes first in turn
            started = time.perf_counter()
            loops[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="__array__ implementation")  # diffusers, numpy 2
    main()
