"""Images a second of our DiT adapter over diffusers' stock DiTPipeline, random weights.

Both load one checkpoint, saved here with random weights, and make as many images with the same
steps, guidance and dtype, decoding included. Ours draws its noise per image, uses the learned
variance, and runs compiled on a GPU unless --no-compile. Rounds are interleaved, medians compared;
ours must be the same twice. The last line is one JSON object; `ratio` is ours over the pipeline's.

    python benchmarks/speed/dit_sampling.py        # DiT-XL/2 at 256 px on a GPU
    python benchmarks/speed/dit_sampling.py --size tiny --device cpu --no-compile \\
        --rounds 3 --steps 5
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.dit.sampling import DiT
from generation.generator import ImageBatch
from generation.networks.placement import Placement

TRANSFORMERS = {
    "tiny": {"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 16, "sample_size": 8},
    "xl-256": {"sample_size": 32},
    "xl-512": {"sample_size": 64},
}
WIDTHS = {"tiny": (16, 16, 16, 16), "xl-256": (128, 256, 512, 512), "xl-512": (128, 256, 512, 512)}
CLASSES = 1000


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_random(Path(temporary), arguments.size, dtype)
        ours, compile_s = our_loop(folder, arguments, dtype)
        loops = {"pipeline": pipeline_loop(folder, arguments, dtype), "ours": ours}
    loops["pipeline"]()
    same = np.array_equal(ours(), ours())
    seconds = interleaved(loops, arguments)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        rate = arguments.batch / medians[name]
        spread = f"{min(values):.2f} to {max(values):.2f} s"
        print(f"{name:10s} {rate:8.2f} images/s   median of {len(values)} rounds, {spread}")
    report = {
        "ratio": medians["pipeline"] / medians["ours"],
        "images_per_s": {name: arguments.batch / m for name, m in medians.items()},
        "seconds": seconds,
        "same_twice": same,
        "compile_s": compile_s,
        **vars(arguments),
        "machine": machine(arguments.device),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
    }
    if arguments.device == "cuda":
        report["peak_memory_gib"] = torch.cuda.max_memory_allocated() / (1 << 30)
    print(json.dumps(report))
    if not same:
        raise SystemExit("the same seeds made other images")


def parse_arguments() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=TRANSFORMERS, default="xl-256" if gpu else "tiny")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--batch", type=int, default=32 if gpu else 4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="as a worker has")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if gpu else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=gpu)
    arguments = parser.parse_args()
    arguments.dtype = arguments.dtype or ("bfloat16" if arguments.device == "cuda" else "float32")
    return arguments


def save_random(folder: Path, size: str, dtype: torch.dtype) -> Path:
    """A checkpoint in the published layout; fresh weights, whose zeros cost as much as others."""
    torch.manual_seed(0)
    transformer: Any = DiTTransformer2DModel(out_channels=8, **TRANSFORMERS[size])
    transformer.to(dtype).save_pretrained(folder / "transformer")
    widths = WIDTHS[size]
    autoencoder: Any = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=2,
        norm_num_groups=16,
        scaling_factor=0.18215,
    )
    autoencoder.save_pretrained(folder / "vae")
    scheduler: Any = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


Loop = Callable[[], np.ndarray]


def our_loop(folder: Path, arguments: argparse.Namespace, dtype: torch.dtype) -> tuple[Loop, float]:
    """What a worker runs for a batch, and the seconds its first call took: compiling included."""
    generator = DiT(folder, Placement(arguments.device, dtype, arguments.compile))
    settings = SamplerConfig(steps=arguments.steps, guidance=arguments.guidance, threshold="none")
    labels = [i % CLASSES for i in range(arguments.batch)]
    side = 8 * TRANSFORMERS[arguments.size]["sample_size"]
    batch = ImageBatch([""] * arguments.batch, labels, range(arguments.batch), None, side)

    def loop() -> np.ndarray:
        made = generator.sample(batch, settings)
        assert isinstance(made, np.ndarray)  # a DiT refuses none
        return made

    started = time.perf_counter()
    loop()
    return loop, time.perf_counter() - started


def pipeline_loop(folder: Path, arguments: argparse.Namespace, dtype: torch.dtype) -> Loop:
    """The stock pipeline, as its documentation calls it."""
    pipeline = DiTPipeline.from_pretrained(folder, dtype=dtype).to(arguments.device)
    pipeline.set_progress_bar_config(disable=True)
    labels = [i % CLASSES for i in range(arguments.batch)]

    def loop() -> np.ndarray:
        images: np.ndarray = pipeline(
            class_labels=labels,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance,
            generator=torch.Generator(arguments.device).manual_seed(0),
            output_type="np",
        ).images
        return images

    return loop


def interleaved(loops: dict[str, Loop], arguments: argparse.Namespace) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for i in range(arguments.rounds):
        for name in names[i % 2 :] + names[: i % 2]:
            started = time.perf_counter()
            loops[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="__array__ implementation")  # diffusers, numpy 2
    main()
