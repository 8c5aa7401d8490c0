"""The DeepFloyd IF chain on tiny models of the real classes, saved in the Hub's own layout.

The chain is 8 → 32 → 128 px: the factors of 64 → 256 → 1024. Nothing is fetched.
"""

import gc
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)

from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families import exemplar_source, generator_source
from generation.families.deepfloyd_if.pipeline import (
    DeepFloydIF,
    add_noise,
    enlarge,
    guided_denoiser,
)
from generation.generator import Exemplars, Generator, ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.diffusers_folder import noise_schedule
from generation.prompts.prompt_cache import PromptCache
from release.errors import UserError
from tests.conftest import run
from tests.generation.families.references.tiny_deepfloyd import (
    PROMPTS,
    STAGES,
    if_scheduler,
    save_chain,
)

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute")

SEEDS = (11, 22, 33, 44)
BASE = SamplerConfig(steps=3, guidance=2.0, threshold="dynamic")
LARGER = SamplerConfig(steps=3, guidance=1.0, gamma=0.1, threshold="dynamic")
LATENT = SamplerConfig(method="ddim", steps=3, guidance=1.5, threshold="none")
SETTINGS = (BASE, LARGER, LATENT)
SIDES = (8, 32, 128)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chain(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prompt cache of the test's own; the Hub's cache is empty and its network off."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def load(folder: Path) -> Generator:
    source = generator_source("deepfloyd-if")
    return source.load(source.locate(str(folder)), compiled=False)


def run_chain(models: Path, seeds: Sequence[int] = SEEDS) -> list[np.ndarray]:
    """The images of the three stages."""
    images: list[np.ndarray] = []
    for stage, settings, side in zip(STAGES, SETTINGS, SIDES, strict=True):
        parents = images[-1] if images else None
        batch = ImageBatch(PROMPTS, range(4), seeds, parents, side)
        images.append(load(models / stage).sample(batch, settings))
    return images


@pytest.fixture(scope="module")
def images(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return run_chain(models)


# ---------------------------------------------------------------- the chain


def test_the_chain_makes_images_of_each_resolution(images: list[np.ndarray]) -> None:
    assert [x.shape for x in images] == [(4, 8, 8, 3), (4, 32, 32, 3), (4, 128, 128, 3)]
    assert all(x.dtype == np.uint8 for x in images)
    for stage in images:
        assert all(image.std() > 5 for image in stage)
        assert all((stage[i] != stage[j]).any() for i in range(4) for j in range(i))


def test_the_base_stage_begins_from_exemplars_and_each_image_from_its_own(models: Path) -> None:
    """The last of three steps: what an exemplar of another colour changes is its own image."""
    assert exemplar_source("deepfloyd-if").exemplar_channels(models / STAGES[0]) == 3
    base = load(models / STAGES[0])
    real = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    other = real.copy()
    other[2] = 255 - other[2]
    found = [
        base.sample(ImageBatch(PROMPTS, range(4), SEEDS, None, 8, Exemplars(one, 0.3)), BASE)
        for one in (real, other)
    ]
    same = [bool((a == b).all()) for a, b in zip(*found, strict=True)]
    assert same == [True, True, False, True]


def test_the_chain_gives_the_same_bytes_twice(models: Path, images: list[np.ndarray]) -> None:
    again = run_chain(models)
    assert [x.tobytes() for x in again] == [x.tobytes() for x in images]


def test_a_changed_seed_changes_its_image_only(models: Path, images: list[np.ndarray]) -> None:
    for old, new in zip(images, run_chain(models, (11, 22, 99, 44)), strict=True):
        assert [(a != b).any() for a, b in zip(old, new, strict=True)] == [
            False,
            False,
            True,
            False,
        ]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_image_does_not_depend_on_its_place(
    models: Path, images: list[np.ndarray], stage: int
) -> None:
    order = [2, 0, 3, 1]
    parents = images[stage - 1][order] if stage else None
    seeds = [SEEDS[i] for i in order]
    prompts = [PROMPTS[i] for i in order]
    batch = ImageBatch(prompts, order, seeds, parents, SIDES[stage])
    moved = load(models / STAGES[stage]).sample(batch, SETTINGS[stage])
    np.testing.assert_array_equal(moved, images[stage][order])


@pytest.mark.parametrize("stage", [1, 2])
def test_an_enlarged_image_depends_on_its_parent_prompt_and_augmentation(
    models: Path, images: list[np.ndarray], stage: int
) -> None:
    generator, settings = load(models / STAGES[stage]), SETTINGS[stage]
    parents, prompts = images[stage - 1], list(PROMPTS)
    darker = parents.copy()
    darker[1] //= 2
    other = generator.sample(ImageBatch(prompts, range(4), SEEDS, darker, SIDES[stage]), settings)
    changed = [(a != b).any() for a, b in zip(other, images[stage], strict=True)]
    assert changed == [False, True, False, False]
    batch = ImageBatch([*prompts[:3], "crane bird"], range(4), SEEDS, parents, SIDES[stage])
    other = generator.sample(batch, settings)
    changed = [(a != b).any() for a, b in zip(other, images[stage], strict=True)]
    assert changed == [False, False, False, True]
    noisier = settings.model_copy(update={"noise_augmentation": 0.3})
    batch = ImageBatch(prompts, range(4), SEEDS, parents, SIDES[stage])
    other = generator.sample(batch, noisier)
    assert (other != images[stage]).any(axis=(1, 2, 3)).all()


def test_bfloat16_runs_through_the_chain_and_stays_close(
    models: Path, images: list[np.ndarray]
) -> None:
    """The GPU's precision, on the CPU: types agree everywhere, and the images are the same ones."""
    for i, stage in enumerate(STAGES):
        batch = ImageBatch(PROMPTS, range(4), SEEDS, images[i - 1] if i else None, SIDES[i])
        half = DeepFloydIF(models / stage, Placement("cpu", torch.bfloat16)).sample(
            batch, SETTINGS[i]
        )
        difference = np.abs(half.astype(int) - images[i]).mean()
        assert 0 < difference < 4


# ---------------------------------------------------------------- prompts


def test_prompts_are_encoded_once_for_every_stage_with_the_encoder(
    models: Path, images: list[np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ImageBatch(PROMPTS, range(4), SEEDS, None, 8)
    load(models / "if-1").sample(batch, BASE)
    assert len(list(cache.rglob("*.safetensors"))) == len(PROMPTS) + 1  # and the null prompt
    assert not [x for x in gc.get_objects() if type(x) is T5EncoderModel]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the text encoder was loaded again")

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", refuse)
    np.testing.assert_array_equal(load(models / "if-1").sample(batch, BASE), images[0])


def test_prompts_are_encoded_in_batches_of_one_shape_whatever_is_missing() -> None:
    seen: list[int] = []

    def encode(texts: list[str]) -> dict[str, torch.Tensor]:
        seen.append(len(texts))
        return {"tokens": torch.tensor([[[float(len(text))]] for text in texts])}

    cache = PromptCache("encoder")
    cache.fill(["a", "bb"], encode)
    wanted = ["a" * n for n in range(1, 12)] + ["bb", "a"]
    assert cache.missing(wanted) == ["a" * n for n in range(2, 12)]
    cache.fill(cache.missing(wanted), encode)
    assert cache.load(wanted)["tokens"].flatten().tolist() == [*range(1, 12), 2, 1]
    assert seen == [8, 8, 8]
    assert PromptCache("another encoder").missing(["a"]) == ["a"]


def test_a_prompt_too_long_for_the_encoder_is_refused(models: Path) -> None:
    batch = ImageBatch(["crane " * 100], [0], [1], None, 8)
    with pytest.raises(UserError, match=r"prompt 'crane crane .* is over 77 tokens"):
        load(models / "if-1").sample(batch, BASE)


# ---------------------------------------------------------------- against diffusers' pipelines


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS[:2]]


def torch_noise(
    streams: list[torch.Generator], *shape: int, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """What a pipeline of that precision draws from its generators."""
    return torch.cat([torch.randn(1, *shape, generator=stream, dtype=dtype) for stream in streams])


def exact_tables(scheduler: DDPMScheduler, schedule: NoiseSchedule) -> DDPMScheduler:
    """The scheduler with tables in float64: near pure noise float32's error is magnified 20,000
    times, and how much of it is left depends on the CPU's kernels."""
    theirs, ours = scheduler.alphas_cumprod, torch.from_numpy(schedule.alphas_cumprod)
    torch.testing.assert_close(theirs.double(), ours, atol=1e-6, rtol=1e-4)
    scheduler.alphas_cumprod = ours
    scheduler.betas = 1 - ours / torch.cat([ours.new_ones(1), ours[:-1]])
    return scheduler


THIRD_OF_A_LEVEL = 2 / 255 / 3  # the embeddings of ours are float32


def t5_parts(folder: Path) -> dict[str, Any]:
    """In float64: both sides then compute the same to many digits."""
    return {
        "tokenizer": T5Tokenizer.from_pretrained(folder / "tokenizer"),
        "text_encoder": T5EncoderModel.from_pretrained(folder / "text_encoder").double(),
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet").double(),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }


def our_text(folder: Path, guidance: float) -> torch.Tensor:
    """The adapter's own embeddings, conditional half first."""
    batch = ImageBatch(PROMPTS[:2], range(2), SEEDS[:2], None, 8)
    generator = DeepFloydIF(folder, Placement("cpu", torch.float32))
    return generator._text(batch, SamplerConfig(guidance=guidance))


@pytest.mark.parametrize(("gamma", "variance"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
@torch.no_grad()
def test_the_base_stage_is_ifpipeline_with_the_recipes_variance(
    models: Path, gamma: float, variance: str
) -> None:
    """Three steps of guided ddpm with dynamic thresholding, on the pipeline's noise."""
    folder, steps = models / "if-1", [999, 500, 0]
    parts = t5_parts(folder)
    schedule, kind = noise_schedule(folder / "scheduler")
    scheduler = if_scheduler(
        variance_type=variance, dynamic_thresholding_ratio=0.9, sample_max_value=1e6
    )
    pipeline = IFPipeline(scheduler=exact_tables(scheduler, schedule), **parts)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        list(PROMPTS[:2]),
        timesteps=steps,
        guidance_scale=3.0,
        generator=generators(),
        output_type="pt",
        clean_caption=False,
    ).images
    settings = SamplerConfig(
        steps=3, guidance=3.0, gamma=gamma, threshold="dynamic", dynamic_percentile=0.9
    )
    text = our_text(folder, 3.0).double()
    denoise = guided_denoiser(parts["unet"].eval(), text, 3.0, None, 0)
    streams = generators()
    x0 = sample(denoise, schedule, kind, settings, lambda: torch_noise(streams, 3, 8, 8))
    torch.testing.assert_close(x0, expected, atol=THIRD_OF_A_LEVEL, rtol=0)
    assert x0.std() > 0.1


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@torch.no_grad()
def test_super_resolution_is_ifsuperresolutionpipeline(models: Path, guidance: float) -> None:
    folder, level = models / "if-2", 250
    parts = t5_parts(folder)
    parent = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5)).double() * 2 - 1
    schedule, kind = noise_schedule(folder / "scheduler")
    noising, _ = noise_schedule(folder / "image_noising_scheduler")
    scheduler = if_scheduler(variance_type="fixed_small", sample_max_value=1.0)
    pipeline = IFSuperResolutionPipeline(
        scheduler=exact_tables(scheduler, schedule),
        image_noising_scheduler=exact_tables(
            DDPMScheduler(beta_schedule="squaredcos_cap_v2"), noising
        ),
        **parts,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        list(PROMPTS[:2]),
        image=parent,
        timesteps=[999, 500, 0],
        guidance_scale=guidance,
        noise_level=level,
        generator=generators(),
        output_type="pt",
        clean_caption=False,
    ).images
    streams = generators()
    start, added = torch_noise(streams, 3, 32, 32), torch_noise(streams, 3, 32, 32)
    noised = add_noise(enlarge(parent, 32), added, noising, level)
    text = our_text(folder, guidance).double()
    denoise = guided_denoiser(parts["unet"].eval(), text, guidance, noised, level)
    settings = SamplerConfig(steps=3, guidance=guidance, threshold="static")
    noise = chain([start], (torch_noise(streams, 3, 32, 32) for _ in range(2)))
    x0 = sample(denoise, schedule, kind, settings, lambda: next(noise))
    torch.testing.assert_close(x0, expected, atol=THIRD_OF_A_LEVEL, rtol=0)
    assert (x0.abs() < 0.99).float().mean() > 0.4  # a good part is not clipped


@torch.no_grad()
def test_a_step_of_the_upscaler_is_stable_diffusions_pipelines(models: Path) -> None:
    folder, level = models / "x4", 20
    pipeline = StableDiffusionUpscalePipeline(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        low_res_scheduler=DDPMScheduler.from_pretrained(folder / "low_res_scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    parent = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    expected = pipeline(
        list(PROMPTS[:2]),
        image=parent / 2 + 0.5,
        num_inference_steps=1,
        guidance_scale=3.0,
        noise_level=level,
        generator=generators(),
        output_type="latent",
    ).images
    streams = generators()
    added, start = (torch_noise(streams, c, 16, 16, dtype=torch.float32) for c in (3, 4))
    noising, _ = noise_schedule(folder / "low_res_scheduler")
    noised = add_noise(parent, added, noising, level)
    denoise = guided_denoiser(pipeline.unet, our_text(folder, 3.0), 3.0, noised, level)
    settings = SamplerConfig(method="ddim", steps=1, guidance=3.0, threshold="none")
    schedule, kind = noise_schedule(folder / "scheduler")
    x0 = sample(denoise, schedule, kind, settings, lambda: start)
    torch.testing.assert_close(x0, expected, atol=1e-3, rtol=1e-4)


def test_half_precision_weights_in_shards_are_preferred(
    models: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    """As DeepFloyd publishes them: *.fp16*.safetensors beside, or instead of, the full ones."""
    folder = shutil.copytree(models / "if-1", tmp_path / "if-1")
    source = generator_source("deepfloyd-if")
    full = source.sha256(folder)
    encoder = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float16)
    encoder.save_pretrained(folder / "text_encoder", variant="fp16", max_shard_size="3KB")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float16)
    unet.save_pretrained(folder / "unet", variant="fp16")
    assert len(list((folder / "text_encoder").glob("*fp16*.safetensors"))) > 1
    beside = source.sha256(folder)
    assert beside != full
    for component, name in (("text_encoder", "model"), ("unet", "diffusion_pytorch_model")):
        (folder / component / f"{name}.safetensors").unlink()
    assert source.sha256(folder) == beside
    made = load(folder).sample(ImageBatch(PROMPTS, range(4), SEEDS, None, 8), BASE)
    assert 0 <= np.abs(made.astype(int) - images[0]).mean() < 1


def test_parents_that_do_not_fit_are_refused(models: Path, images: list[np.ndarray]) -> None:
    with_parents = ImageBatch(PROMPTS, range(4), SEEDS, images[0], 8)
    without = ImageBatch(PROMPTS, range(4), SEEDS, None, 8)
    with pytest.raises(UserError, match="must be a first stage"):
        load(models / "if-1").sample(with_parents, BASE)
    with pytest.raises(UserError, match="cannot be a first stage"):
        load(models / "if-2").sample(without, LARGER)
    from_32 = ImageBatch(PROMPTS, range(4), SEEDS, images[1], 32)
    with pytest.raises(UserError, match="makes 32 px images from 8 px ones, got 32 px"):
        load(models / "if-2").sample(from_32, LARGER)


def test_settings_that_do_not_fit_the_upscaler_are_refused(
    models: Path, images: list[np.ndarray]
) -> None:
    batch = ImageBatch(PROMPTS, range(4), SEEDS, images[1], 128)
    clipped = LATENT.model_copy(update={"threshold": "static"})
    with pytest.raises(UserError, match='needs threshold = "none"'):
        load(models / "x4").sample(batch, clipped)
    noisy = LATENT.model_copy(update={"noise_augmentation": 0.5})
    with pytest.raises(UserError, match=r"at most 0\.35"):
        load(models / "x4").sample(batch, noisy)


def test_the_default_recipe_without_weights_ends_in_one_line(tmp_path: Path) -> None:
    command = ["build-dataset", "--res", "1024", "--per-class", "1200", "--out", tmp_path / "out"]
    result = run(command, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for advice in ("DeepFloyd/IF-I-XL-v1.0", "licence", "hf auth login", "--recipe fashion-mnist"):
        assert advice in result.stderr
