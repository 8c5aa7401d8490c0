"""Every adapter through recipes: a release of three classes by four images each.

All are built at once on one cluster of two worker processes, then again by this process alone.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from builder.builds.build import BuildPlan, plan_build
from builder.builds.live_run import live_run
from builder.builds.run import RunSettings
from builder.cluster.cluster import ClusterOptions
from builder.planning.checkpoints import load_networks
from builder.planning.image_seeds import image_seed
from builder.planning.recipe import Recipe, load_recipe
from builder.release.verify import verify_release
from generation.denoisers.checkpoint_files import WEIGHTS_FILE
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import MODULES, generator_source
from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.generator import ImageBatch
from generation.pretrained.decoding import DecodingGenerator
from release.classes.class_list import load_classes
from release.layout.image_sets import decode
from release.layout.manifest import read_manifest
from tests.conftest import release_bytes
from tests.forked_commands import worker_forks
from tests.generation.families.references import latent_diffusion_reference, openai_reference
from tests.generation.families.references.tiny_deepfloyd import STAGES, save_chain
from tests.models import tiny_biggan, tiny_flows, tiny_transformers
from tests.models.codes.tiny_mar import save_mar
from tests.models.codes.tiny_var import save_var
from tests.models.codes.tiny_vq_vae import save_tiny
from tests.models.tiny_denoisers import KINDS, save_denoiser
from tests.models.tiny_edm2 import save_edm2, tiny_plan
from tests.models.tiny_loras import save_lora
from tests.models.tiny_mean_flow import save_mean_flow
from tests.models.tiny_models import (
    save_biggan,
    save_dit,
    save_flux2_klein,
    save_pixart,
    save_sdxl,
)
from tests.models.tiny_network import tiny_conditioned

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # diffusers with numpy 2
]

HEAD = """
name = "tiny"
description = "tiny"
classes = "{classes}"
dataset = "test"
regime = "B"
license = "other"

[shard]
classes = 2
indices = 4
"""
STAGE = """
[[stage]]
resolution = {resolution}
generator = "{generator}"
checkpoint = "{checkpoint}"
batch = 3
sampler = {{ {sampler} }}
"""
# A stage: generator, resolution, checkpoint below the models' folder, sampler.
Stage = tuple[str, int, str, str]
OPENAI = "steps = 2"
LATENT = 'steps = 3, guidance = 1.5, threshold = "none"'
EDM = 'method = "edm", steps = 3, threshold = "none"'
RECIPES: dict[str, list[Stage]] = {
    "adm": [("adm", 16, "adm", "steps = 3, guidance = 1.5")],
    "cdm": [
        ("pixel-unet", 8, "class", "steps = 3"),
        ("cdm", 16, "cdm", "steps = 3, noise_augmentation = 0.2"),
    ],
    "adm-256": [("adm-256", 16, "adm-256.pt", OPENAI)],
    "adm-64-upsampler": [
        ("adm-64", 16, "adm-64.pt", OPENAI),
        ("adm-upsampler", 64, "adm-upsampler.pt", OPENAI),
    ],
    "biggan": [("biggan", 16, "biggan", 'method = "truncation", truncation = 0.7')],
    "biggan-own": [("biggan", 16, "biggan-own", 'method = "truncation", truncation = 0.7')],
    "deepfloyd-if": [
        ("deepfloyd-if", 8, "if-1", 'steps = 2, guidance = 2.0, threshold = "dynamic"'),
        ("deepfloyd-if", 32, "if-2", 'steps = 2, gamma = 0.1, threshold = "dynamic"'),
        ("deepfloyd-if", 128, "x4", 'method = "ddim", steps = 2, threshold = "none"'),
    ],
    "diffusers": [("diffusers", 16, "pixart", 'method = "native", steps = 2, guidance = 3.0')],
    "diffusers-lora": [("diffusers", 16, "sdxl-lora", 'method = "native", steps = 2')],
    "diffusers-flow-lora": [
        ("diffusers", 16, "flux2-lora", 'method = "native", steps = 2, guidance = 2.0')
    ],
    "dit": [("dit", 8, "dit", LATENT)],
    "edm2": [("edm2", 8, "edm2.safetensors", EDM)],
    "edm2-guided": [("edm2", 64, "latent-edm2/classes.safetensors", f"{EDM}, guidance = 1.5")],
    "iddpm": [("iddpm", 16, "iddpm.pt", OPENAI)],
    "pixel-unet": [  # a class-conditional base, an enlarger that is told nothing
        ("pixel-unet", 8, "class", "steps = 3, guidance = 1.5"),
        ("pixel-unet", 16, "none", "steps = 3, noise_augmentation = 0.2"),
    ],
    "adm-64-guided": [("adm-64", 16, "adm-64.pt", "steps = 2, guidance = 1.5")],
    "ldm-guided": [("ldm", 16, "ldm", "steps = 3, guidance = 1.5")],
    "rin-guided": [("rin", 16, "rin", "steps = 3, guidance = 1.5")],
    "sit-guided": [
        ("sit", 16, "sit", f'method = "heun", guidance_interval = [0.3, 0.8], {LATENT}')
    ],
    "sit-published-guided": [("sit", 8, "SiT.pt", f'method = "euler", {LATENT}')],
    "pixel-unet-guided": [("pixel-unet", 8, "class", "steps = 3, guidance = 1.5")],
    "rin": [("rin", 16, "rin", "steps = 3, guidance = 1.5")],
    "simple-diffusion": [("simple-diffusion", 16, "uvit", "steps = 3, guidance = 1.5")],
    "simple-diffusion-unet": [("simple-diffusion", 16, "unet", "steps = 3")],
    "dit-own": [("dit", 16, "dit-own", LATENT)],
    "dit-published": [("dit", 8, "DiT.pt", LATENT)],
    "sit": [("sit", 16, "sit", f'method = "heun", {LATENT}')],
    "sit-published": [("sit", 8, "SiT.pt", f'method = "euler-maruyama", {LATENT}')],
    "mean-flow": [
        (
            "mean-flow",
            64,
            "iMF.pth",
            'method = "mean-flow", steps = 2, guidance = 4.0, guidance_interval = [0.36, 0.64], '
            'threshold = "none"',
        )
    ],
    "repa": [
        (
            "repa",
            8,
            "REPA.pt",
            f'method = "euler-maruyama", guidance_interval = [0.0, 0.7], {LATENT}',
        )
    ],
    "lightning-dit": [
        (
            "lightning-dit",
            8,
            "LightningDiT.pt",
            f'method = "euler", time_shift = 0.3, guidance_interval = [0.0, 0.875], {LATENT}',
        )
    ],
    "repa-e": [
        (
            "repa-e",
            8,
            "REPA-E.pt",
            f'method = "euler-maruyama", guidance_interval = [0.0, 0.75], {LATENT}',
        )
    ],
    "repa-e-end-to-end": [
        (
            "repa-e-end-to-end",
            8,
            "REPA-E-own.pt",
            f'method = "euler", guidance_interval = [0.0, 0.8], {LATENT}',
        )
    ],
    "jit": [("jit", 32, "JiT.pth", f'method = "heun-euler", {LATENT}')],
    "rae": [("rae", 16, "RAE.pt", f'method = "euler", time_shift = 0.15, {LATENT}')],
    "rae-guided": [("rae", 16, "RAE.pt", f'method = "euler", {LATENT}')],
    "sr3": [("pixel-unet", 8, "class", "steps = 2"), ("sr3", 16, "sr3", "steps = 3")],
    "var": [
        (
            "var",
            6,
            "var.pth",
            'method = "next-scale", steps = 1, guidance = 2.5, top_k = 9, top_p = 0.9, '
            'threshold = "none"',
        )
    ],
    "mar": [
        (
            "mar",
            8,
            "mar/mar.pth",
            'method = "masked-autoregressive", steps = 5, diffusion_steps = 4, guidance = 2.9, '
            'threshold = "none"',
        )
    ],
    "vq-vae-2": [("vq-vae-2", 16, "vq-vae-2", 'method = "native", steps = 1')],
    "ldm-own": [("ldm", 16, "ldm", "steps = 3, guidance = 1.5")],
    "ldm": [("ldm", 32, "ldm.ckpt", f'method = "ddim", {LATENT}')],
}

# Generators that sample something and decode it then, and those on pixels that end as they do.
DECODING = {
    *("dit", "edm2", "jit", "ldm", "lightning-dit", "mar", "mean-flow", "rae", "repa", "repa-e"),
    *("repa-e-end-to-end", "sit", "var"),
}

# Recipes whose first stage a second network guides, by its checkpoint.
GUIDES = {
    "adm-64-guided": "weaker.pt",
    "edm2-guided": "latent-edm2/none.safetensors",
    "ldm-guided": "ldm-weaker",
    "pixel-unet-guided": "weaker",
    "rae-guided": "RAE-weaker.pt",
    "rin-guided": "rin-weaker",
    "sit-guided": "sit-weaker",
    "sit-published-guided": "SiT-weaker.pt",
}
GUIDE = '[stage.guide]\ncheckpoint = "{}"\n'


def save_models(folder: Path) -> None:
    """A tiny checkpoint of every kind, as published."""
    for name in openai_reference.TINY:
        torch.save(openai_reference.tiny(name).state_dict(), folder / f"{name}.pt")
    parts = latent_diffusion_reference.tiny()
    torch.save(latent_diffusion_reference.checkpoint(*parts), folder / "ldm.ckpt")
    save: dict[str, Callable[[Path], Path]] = {
        "biggan": save_biggan,
        "dit": save_dit,
        "flux2": save_flux2_klein,
        "pixart": save_pixart,
        "sdxl": save_sdxl,
    }
    for name, function in save.items():
        function(folder / name)
    for name in ("flux2", "sdxl"):
        save_lora(folder / f"{name}-lora", folder / name)
    save_chain(folder)
    for conditioning, low in (("class", None), ("none", 8)):
        network = tiny_conditioned(conditioning, ("apple", "pear", "plum"), low)
        save_checkpoint(network, folder / conditioning, torch.float16)
    for kind in KINDS:
        save_denoiser(folder / kind, kind, ("apple", "pear", "plum"))
    for name, family in (("dit-own", "dit"), ("sit", "sit")):
        tiny_transformers.save_denoiser(folder / name, family, ("apple", "pear", "plum"))
    tiny_biggan.save_tiny(folder / "biggan-own", 3)
    save_tiny(folder / "vq-vae-2", ("apple", "pear", "plum"))
    for name in ("DiT.pt", "SiT.pt"):
        tiny_transformers.save_published(folder / name)
    tiny_transformers.save_repa(folder / "REPA.pt")
    save_mean_flow(folder / "iMF.pth")
    tiny_flows.save_lightning(folder / "LightningDiT.pt")
    tiny_flows.save_repa_e(folder / "REPA-E.pt")
    tiny_flows.save_repa_e_end_to_end(folder / "REPA-E-own.pt")
    tiny_flows.save_jit(folder / "JiT.pth")
    tiny_flows.save_rae(folder / "RAE.pt")
    tiny_flows.save_rae_guide(folder / "RAE-weaker.pt")
    save_var(folder / "var.pth")
    (folder / "mar").mkdir()
    save_mar(folder / "mar" / "mar.pth")
    save_edm2(folder / "edm2.safetensors")
    (folder / "latent-edm2").mkdir()  # beside its own autoencoder
    for name, count in (("classes", 3), ("none", 0)):
        file = folder / "latent-edm2" / f"{name}.safetensors"
        save_edm2(file, tiny_plan(channels=4, classes=count), count, 4)
    save_weaker(folder)
    assert all((folder / stage).is_dir() for stage in STAGES)


def save_weaker(folder: Path) -> None:
    """The guides: of the same shape, with other weights."""
    classes = ("apple", "pear", "plum")
    weaker = tiny_conditioned("class", classes)
    weaker.unet.conv_out.weight.data.mul_(0.5)
    save_checkpoint(weaker, folder / "weaker", torch.float16)
    for name, file in (("adm-64.pt", "weaker.pt"), ("SiT.pt", "SiT-weaker.pt")):
        state = torch.load(folder / name)
        torch.save({key: halved(key, tensor) for key, tensor in state.items()}, folder / file)
    for name in ("ldm", "rin", "sit"):
        shutil.copytree(folder / name, folder / f"{name}-weaker")
        file = folder / f"{name}-weaker" / WEIGHTS_FILE
        state = {key: halved(key, tensor) for key, tensor in load_file(file).items()}
        save_file(state, file)


def halved(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Weights; a transformer's fixed positions stay."""
    return tensor if key == "pos_embed" else tensor * 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, class_list: Path) -> Iterator[Path]:
    """FOLDER/NAME.toml and the release two processes made of it, FOLDER/two/NAME."""
    folder = tmp_path_factory.mktemp("releases")
    save_models(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        plans = []
        for name, stages in RECIPES.items():
            text = HEAD.format(classes=class_list)
            for generator, resolution, checkpoint, sampler in stages:
                text += STAGE.format(
                    generator=generator,
                    resolution=resolution,
                    checkpoint=folder / checkpoint,
                    sampler=sampler,
                )
            if name in GUIDES:
                text += GUIDE.format(folder / GUIDES[name])
            (folder / f"{name}.toml").write_text(text)
            plans.append(planned(folder, name, "two")[1])
        with worker_forks(), live_run(RunSettings(ClusterOptions(2)), most=2) as live:
            live.build(plans, lambda _: None)
        yield folder


def planned(folder: Path, name: str, where: str) -> tuple[Recipe, BuildPlan]:
    recipe = load_recipe(str(folder / f"{name}.toml"))
    classes = load_classes(recipe.classes)
    return recipe, plan_build(recipe, recipe.stages, classes, 4, folder / where / name)


def test_every_generator_is_here() -> None:
    assert {stage[0] for stages in RECIPES.values() for stage in stages} == set(MODULES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_release_is_the_same_from_one_process_and_from_two(folder: Path, name: str) -> None:
    """Every file's bytes; then images of every stage from their own rows, one seed changed."""
    recipe, plan = planned(folder, name, "one")
    for job in plan.jobs():
        job.run()
    made = {n: d for n, d in release_bytes(folder / "one" / name).items() if ".parquet" in n}
    release = folder / "two" / name
    assert len(made) == 2 * len(recipe.stages)
    assert {n: d for n, d in release_bytes(release).items() if ".parquet" in n} == made
    assert verify_release(release, read_manifest(release), 1, lambda _: None).problems == ()

    before: dict[str, np.ndarray] = {}
    for stage in recipe.stages:
        rows = pq.read_table(release / str(stage.resolution)).to_pylist()
        images = {row["image_id"]: decode(row["image"]["bytes"]) for row in rows}
        assert len({image.tobytes() for image in images.values()}) == len(rows) == 12
        chosen = [rows[i] for i in (7, 7, 2)]
        batch = ImageBatch(
            [row["prompt"] for row in chosen],
            [row["label"] for row in chosen],
            [rows[7]["seed"], image_seed(1, 1, "another", 0, 0), rows[2]["seed"]],
            np.stack([before[row["parent_image_id"]] for row in chosen]) if before else None,
            stage.resolution,
        )
        locate = generator_source(stage.generator).locate
        generator = load_networks(stage, *map(locate, stage.checkpoints))
        again, reseeded, other = np.asarray(generator.sample(batch, stage.sampler))
        np.testing.assert_array_equal(again, images[rows[7]["image_id"]])
        np.testing.assert_array_equal(other, images[rows[2]["image_id"]])
        assert (reseeded != again).any()
        before = images


@pytest.mark.parametrize(
    "name", [name for name, stages in RECIPES.items() if stages[0][0] in DECODING]
)
def test_a_release_is_the_same_where_batches_are_decoded_beside_sampling(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file's bytes; on a GPU it is so by itself."""
    begun: list[int] = []
    begin = DecodingGenerator.begin

    def noted(generator: DecodingGenerator, batch: ImageBatch, settings: SamplerConfig) -> Any:
        begun.append(len(batch.seeds))
        return begin(generator, batch, settings)

    monkeypatch.setattr(DecodingGenerator, "decodes_beside", True)
    monkeypatch.setattr(DecodingGenerator, "begin", noted)
    _, plan = planned(folder, name, "beside")
    for job in plan.jobs():
        job.run()
    assert begun == [3] * 5  # 8 images of one shard, 4 of the other
    made, wanted = (
        {n: d for n, d in release_bytes(folder / where / name).items() if ".parquet" in n}
        for where in ("beside", "two")
    )
    assert made == wanted
