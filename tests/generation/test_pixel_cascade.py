"""The pixel cascade through the builder: the embedded one, and a chain of three tiny networks."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from builder.planning.recipe import BUILTIN as RECIPES
from builder.planning.recipe import load_recipe
from generation.families.pixel_unet.checkpoint import load_checkpoint, save_checkpoint
from generation.families.pixel_unet.checkpoint_files import BUILTIN, checkpoint_sha256
from generation.families.pixel_unet.network import PixelUNet, StageConfig, build_unet
from generation.prompts.text_encoder import PromptEmbeddings
from release.images.views import make_view
from release.layout.image_sets import load_images
from release.real_sources.opening import open_source
from tests.conftest import release_bytes
from tests.forked_commands import run

TINY = {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 2,
}


def tiny_network(resolution: int, low: int | None) -> PixelUNet:
    """An untrained stage for the three classes of the test's class list."""
    prompts = ("apple", "pear", "plum", "")
    generator = torch.Generator().manual_seed(resolution)
    tokens = torch.randn(4, 2, 8, generator=generator)
    embeddings = PromptEmbeddings(prompts, tokens, torch.ones(4, 2), tokens.mean(1))
    config = StageConfig(
        resolution=resolution,
        channels=3,
        patch=1 if low is None else 2,
        low_resolution=low,
        text_encoder="none",
        prompts=prompts,
    )
    torch.manual_seed(resolution)
    return build_unet(config, embeddings, TINY)


@pytest.fixture(scope="module")
def chain_recipe(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of three tiny networks, 8 to 16 to 32 px."""
    folder = tmp_path_factory.mktemp("chain")
    text = stand_in_recipe.read_text().replace("tests.stand_in", "pixel-unet")
    for resolution, low in ((8, None), (16, 8), (32, 16)):
        checkpoint = folder / str(resolution)
        save_checkpoint(tiny_network(resolution, low), checkpoint, torch.float16)
        guidance = "guidance = 1.5, guidance_interval = [0.2, 0.9]"
        settings = f'sampler = {{ method = "ddpm", steps = 4, gamma = 0.3, {guidance} }}'
        text = text.replace(
            f'checkpoint = "{resolution}"', f'checkpoint = "{checkpoint}"\n{settings}'
        )
    recipe = folder / "chain.toml"
    recipe.write_text(text)
    return recipe


def test_a_chain_of_three_networks_makes_the_same_bytes_at_one_and_two_workers(
    chain_recipe: Path, tmp_path: Path
):
    releases = []
    for workers in ("1", "2"):
        release = tmp_path / workers / "release"
        result = run(
            [
                *("build-dataset", "--recipe", chain_recipe, "--per-class", "6"),
                *("--out", release, "--workers", workers, "--json"),
            ]
        )
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["rows"] == {r: {"train": 18} for r in ("8", "16", "32")}
        releases.append(release_bytes(release))
    assert releases[0] == releases[1]


def test_a_stage_can_be_built_later_and_alone(chain_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    build = ["build-dataset", "--recipe", chain_recipe, "--per-class", "2", "--out", release]
    assert run([*build, "--res", "8"]).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in release.rglob("*.parquet")}
    assert run(build).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert pq.read_table(release / "32").num_rows == 6


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    network = tiny_network(16, 8)
    save_checkpoint(network, tmp_path, torch.float32)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == network.config
    for name, value in network.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], value), name
    save_checkpoint(loaded, tmp_path / "again", torch.float32)
    assert checkpoint_sha256(tmp_path / "again") == checkpoint_sha256(tmp_path)


EMBEDDED = sorted(
    path.stem for path in RECIPES.glob("*.toml") if '"builtin:' in path.read_text(encoding="utf-8")
)


def test_the_embedded_recipes_are_found() -> None:
    assert EMBEDDED == ["fashion-mnist", "fashion-mnist-ddpm", "fashion-mnist-fast"]


@pytest.mark.parametrize("recipe", EMBEDDED)
def test_the_embedded_weights_are_the_ones_the_recipe_names_and_their_record_fits(recipe: str):
    for stage in load_recipe(recipe).stages:
        folder = BUILTIN / stage.checkpoint.removeprefix("builtin:")
        assert checkpoint_sha256(folder) == stage.sha256
        record = json.loads((folder / "training.json").read_text())
        assert record["recipe"]["stage"]["resolution"] == stage.resolution
        assert record["data"]["split"] == "fit"
        network = load_checkpoint(folder)
        assert sum(p.numel() for p in network.parameters()) < 3e6
    weights = BUILTIN.rglob("*.safetensors")
    assert sum(path.stat().st_size for path in weights) < 18e6


def test_embedded_images_are_nearest_to_their_own_class(tmp_path: Path):
    """Nearest class mean of real training images: 68% of real test images, chance is 10%."""
    release = tmp_path / "release"
    build = ["build-dataset", "--recipe", "fashion-mnist", "--per-class", "5", "--out", release]
    result = run(build)
    assert result.returncode == 0, result.stderr
    made = load_images(release, "32", "train")
    train = open_source("fashion-mnist").splits["train"]
    labels = np.array(train.labels[:5000])
    views = np.stack([make_view(Image.fromarray(i), 32, "pad") for i in train.images[:5000]])
    means = np.stack([views[labels == label, ..., 0].mean(0).ravel() for label in range(10)])
    distances = ((made.images[..., :1].reshape(50, 1, -1) - means) ** 2).sum(-1)
    assert (distances.argmin(1) == made.labels).mean() > 0.5
