"""Latent diffusion, trained here: its networks and losses anew, then autoencoder to release."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor, nn

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.encode_command import encode
from builder.release.verify import verify_release
from generation.denoisers.learning import Questions
from generation.denoisers.start import planned_network
from generation.diffusion.random_numbers import ImageRandom
from generation.families import generator_source, load_training_recipe, trainable
from generation.families.adm.converter import read_shape, rename
from generation.families.adm.shapes import Heads
from generation.families.latent_diffusion.converter import convert_autoencoder
from generation.families.latent_diffusion.network import LatentUNet
from generation.families.latent_diffusion.objective import noise_loss
from generation.families.vq_autoencoder.objective import AutoencoderObjective, new_objective
from generation.families.vq_autoencoder.trainable import course, with_start
from generation.finetune_generator import finetune_generator
from generation.training.data.images import DrawnImages
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.run import train_course
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.image_sets import load_images
from release.streaming.image_cache import ImageCache
from tests.generation.families.references import latent_diffusion_reference as reference
from tests.in_process import InProcess
from tests.models.codes.tiny_vq import tiny_recipe
from tests.models.tiny_autoencoders import save_autoencoder
from tests.models.tiny_denoisers import tiny_denoiser
from tests.models.tiny_denoisers import tiny_recipe as tiny_ldm
from tests.recipe_text import as_toml, tiny_build
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

SAMPLER = 'method = "ddim", steps = 3, guidance = 1.5, threshold = "none"'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ in colour at 16 px, classes.csv, vq.toml, ldm.toml."""
    folder = tmp_path_factory.mktemp("ldm")
    images = np.stack([paint(i % 4, i, 16, 10) for i in range(40)])
    write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    classes = str(folder / "classes.csv")
    (folder / "vq.toml").write_text(as_toml(tiny_recipe(classes)))
    latents = {"latents": {"channels": 3, "side": 4}}
    recipe = tiny_ldm("ldm", classes, stage=latents, network={"attention": [4, 2]})
    (folder / "ldm.toml").write_text(as_toml(recipe))
    return folder


def drawn_images(images: Tensor, step: int = 0) -> DrawnImages:
    rng = ImageRandom(3, step, torch.arange(len(images)))
    return DrawnImages(images, None, torch.arange(len(images)) % 3, rng)


def some_images(count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


# ---------------------------------------------------------------- the latent U-Net


def test_the_unet_is_that_of_the_paper() -> None:
    theirs, classes, _ = reference.tiny()
    state = theirs.state_dict()
    shape = reference.TINY
    network: dict[str, Any] = {
        "base_channels": shape["width"],
        "multipliers": list(shape["mult"]),
        "blocks": shape["blocks"],
        "context": shape["context"],
        "heads": shape.get("heads", 1),
    }
    halvings = len(shape["mult"]) - 1
    side = 4 << halvings
    network["attention"] = [side >> level for level, a in enumerate(shape["attends"]) if a]
    ours = tiny_denoiser(
        "ldm", stage={"resolution": side, "schedule": {"name": "scaled-linear"}}, network=network
    )
    assert isinstance(ours, LatentUNet)
    found, _ = rename(state, read_shape(state, "reference"), Heads(count=network["heads"]))
    ours.unet.load_state_dict(found)
    with torch.no_grad():
        ours.classes.weight.copy_(classes.weight)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 3, side, side, generator=generator)
    steps, told = torch.tensor([0, 417, 999]), torch.tensor([0, 2, 3])
    table = torch.from_numpy(ours._schedule.log_snr).float()
    with torch.no_grad():
        said, carried = ours(x, table[steps], told)
        wanted = theirs(x, steps.float(), classes(told)[:, None])
    assert carried is None
    assert (said - wanted).abs().max() / wanted.abs().max() < 1e-5


def test_its_loss_is_the_error_of_epsilon_at_even_steps() -> None:
    recipe = tiny_ldm("ldm", training={"class_dropout": 0.4})
    seen: list[tuple[Tensor, ...]] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, told: Tensor, *_: Any) -> tuple[Tensor, None]:
            seen.append((x, log_snr, told))
            return 0.3 * x, None

    images = some_images(64)
    loss = noise_loss(Spy(), drawn_images(images), Questions(recipe, 3))
    rng = ImageRandom(3, 0, torch.arange(64))
    t, noise = rng.integers(100), rng.normal(3, 16, 16)
    roots = np.linspace(1e-4**0.5, 0.02**0.5, 100)
    abar = torch.from_numpy(np.cumprod(1 - roots**2))[t].view(-1, 1, 1, 1)
    clean = images.double() / 127.5 - 1
    x = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    assert abs(float(loss) - float((0.3 * x - noise).square().mean())) < 1e-6
    ((given, log_snr, told),) = seen
    assert (given - x).abs().max() < 1e-5
    assert (log_snr.double() - (abar / (1 - abar)).log().flatten()).abs().max() < 1e-4
    assert 0 < int((told == 3).sum()) < 64
    assert torch.equal(told[told != 3], (torch.arange(64) % 3)[told != 3])


def test_a_new_network_says_nothing_and_other_shapes_are_refused() -> None:
    recipe = tiny_ldm("ldm")
    network = trainable("ldm").starting_network(recipe, None)
    x = torch.ones(2, 3, 16, 16)
    said, _ = network(x, torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert not said.any()
    for change, words in (
        ({"base_channels": 24}, "no multiple of groups = 32"),
        ({"attention": [5, 8]}, "attention 5 is none of the sides"),
        ({"attention": [16]}, "the coarsest level, of side 8, needs attention"),
        ({"multipliers": [1] * 6}, "does not halve 5 times"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny_ldm("ldm", network=change)
    with pytest.raises(ValueError, match="predicts epsilon"):
        tiny_ldm("ldm", stage={"prediction": "v"})


# ---------------------------------------------------------------- the autoencoder


def objective_as_reference() -> tuple[AutoencoderObjective, Any]:
    """The objective of a tiny network, and the reference with its weights."""
    recipe = tiny_recipe(network={"attention": True}, training={"adversarial_start": 1})
    objective = new_objective(recipe, 3)
    theirs = reference.Autoencoder(32, (1, 1, 1), 1, 16)
    network: Any = objective.modules["autoencoder"]
    with torch.no_grad():
        theirs.quantize["embedding"].weight.normal_(std=0.3)
    network.load_state_dict(convert_autoencoder(theirs.state_dict(), 1.0, "x").state_dict())
    return objective, theirs.double()


def discriminated(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The discriminator of two layers, in float64."""

    def weight(name: str) -> Tensor:
        return state[name].double()

    def conv(name: str, y: Tensor, stride: int, bias: bool) -> Tensor:
        shift = weight(f"{name}.bias") if bias else None
        return nn.functional.conv2d(y, weight(f"{name}.weight"), shift, stride, 1)

    y = nn.functional.leaky_relu(conv("first", x, 2, True), 0.2)
    for i, stride in enumerate((2, 1)):
        y = conv(f"convolutions.{i}", y, stride, False)
        grouped = y.reshape(len(y), -1, y.shape[1] // int(np.gcd(32, y.shape[1])), *y.shape[2:])
        flat = grouped.flatten(2)
        flat = (flat - flat.mean(2, keepdim=True)) / (
            flat.var(2, False, keepdim=True) + 1e-5
        ).sqrt()
        y = flat.reshape(y.shape) * weight(f"norms.{i}.weight")[:, None, None]
        y = nn.functional.leaky_relu(y + weight(f"norms.{i}.bias")[:, None, None], 0.2)
    return conv("last", y, 1, True)


@pytest.mark.parametrize("step", [0, 1])
def test_its_losses_are_those_of_the_paper(step: int) -> None:
    objective, theirs = objective_as_reference()
    images = some_images()
    x = images.double() / 127.5 - 1
    latents = theirs.encode(x)
    codes = theirs.quantize["embedding"].weight
    nearest = ((latents.permute(0, 2, 3, 1)[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    quantised = codes[nearest].permute(0, 3, 1, 2)
    made = theirs.decoder(theirs.post_quant_conv(quantised))
    rebuilt = (made - x).abs().mean()
    vq = (quantised - latents).square().mean()
    state = objective.modules["discriminator"].state_dict()
    fooled = -discriminated(state, made).mean()
    last = theirs.decoder.conv_out.weight
    one, other = (
        torch.autograd.grad(y, last, retain_graph=True)[0].norm() for y in (rebuilt, fooled)
    )
    wanted = rebuilt + 1.25 * vq + step * 0.5 * one / (other + 1e-4) * fooled
    found = objective.updates[0].loss(objective.modules, drawn_images(images, step))
    assert abs(found.detach().double() - wanted.detach()) < 1e-6
    real, false = discriminated(state, x), discriminated(state, made.detach())
    hinge = ((1 - real).clamp(min=0).mean() + (1 + false).clamp(min=0).mean()) / 2
    told = objective.updates[1].loss(objective.modules, drawn_images(images, step))
    assert abs(told.detach().double() - step * hinge.detach()) < 1e-6


def test_the_gradient_of_the_decoder_passes_straight_through_the_codes() -> None:
    objective, theirs = objective_as_reference()
    images = some_images()
    network: Any = objective.modules["autoencoder"]
    x = images.float() / 127.5 - 1
    latents = network.encode(x).latents.detach().requires_grad_(True)
    made = network.decode(latents).sample
    made.square().sum().backward()
    codes = theirs.quantize["embedding"].weight.float()
    nearest = ((latents.permute(0, 2, 3, 1)[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    quantised = codes[nearest].permute(0, 3, 1, 2).detach().double().requires_grad_(True)
    theirs.decoder(theirs.post_quant_conv(quantised)).square().sum().backward()
    assert latents.grad is not None
    assert quantised.grad is not None
    assert (latents.grad - quantised.grad).abs().max() / quantised.grad.abs().max() < 1e-4


def test_the_commitment_is_on_the_latents() -> None:
    recipe = tiny_recipe(training={"commitment": 0.0, "adversarial": 0.0, "reconstruction": "l2"})
    objective = new_objective(recipe, 3)
    assert list(objective.modules) == ["autoencoder"]
    network: Any = objective.modules["autoencoder"]
    latents = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    _, loss = network.decode(latents, return_dict=False)
    loss.backward()
    assert not latents.grad.any()
    assert network.quantize.embedding.weight.grad.any()


# ---------------------------------------------------------------- at full size


def test_the_imagenet_recipes_have_the_published_counts() -> None:
    recipe = load_training_recipe("imagenet-ldm-256")
    prompts = tuple(c.prompt for c in load_classes(recipe.classes))
    network = planned_network(trainable("ldm").family, recipe, prompts)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 401.4
    autoencoder = load_training_recipe("imagenet-vq-f4-256")
    with torch.device("meta"):
        networks = new_objective(autoencoder, 3).modules
    counts = [sum(p.numel() for p in m.parameters()) / 1e6 for m in networks.values()]
    assert [round(count, 1) for count in counts] == [55.3, 2.8]


# ---------------------------------------------------------------- by the commands


def train(place: Path, recipe: str, data: str, **given: Any) -> Path:
    options = {"recipe": str(place / f"{recipe}.toml"), "data": str(place / data), "as_json": True}
    finetune_generator(**options | {"out": place / f"{recipe}-run"} | given)
    out: Path = given.get("out", place / f"{recipe}-run")
    return out / "checkpoint"


def test_from_images_to_a_release(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    autoencoder = train(place, "vq", "real")
    config = json.loads((autoencoder / "config.json").read_text())
    assert config["_class_name"] == "VQModel"
    assert sorted(p.name for p in (place / "vq-run").glob("samples-*.png"))
    curve = (autoencoder / "loss.csv").read_text().splitlines()
    assert "discriminator_loss" in curve[0]
    encode(str(place / "real"), str(autoencoder), config="16", name="vq", as_json=True)
    wanted = Wanted(place / "real/latents/vq", "fit", (16,))
    latents = open_training_set(wanted, 1e9, ImageCache(limit=0)).told(torch.arange(4), 3)
    (moments, _), *_ = latents.read(iter([np.arange(len(latents))]), torch.device("cpu"))
    seen = moments.float() * config["scaling_factor"]
    assert 0.8 < float(seen.std()) < 1.25  # of the tuning images, too, the factor was not measured
    checkpoint = train(place, "ldm", "real/latents/vq")
    copy = shutil.copytree(autoencoder, place / "copy")  # the one of its hash, by whatever name
    encode(str(place / "real"), str(copy), config="16", name="again", as_json=True)
    train(place, "ldm", "real/latents/again", start=str(checkpoint), out=place / "onward")
    source = generator_source("ldm")
    assert source.trained_resolution(checkpoint) == 16
    written = tiny_build(place / "classes.csv", "ldm", checkpoint, SAMPLER)
    (tmp_path / "build.toml").write_text(written)
    recipe = load_recipe(str(tmp_path / "build.toml"))
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.stages, classes, 2, tmp_path / "release", classes)
    manifest = build_release(plan, RunSettings(), lambda _: None).manifest
    assert manifest is not None
    assert verify_release(plan.release, manifest, 1, lambda _: None).problems == ()
    made = load_images(tmp_path / "release", "16", "train").images
    assert len({image.tobytes() for image in made}) == 8
    settings = recipe.stages[0].sampler.model_copy(update={"threshold": "static"})
    generator: Any = source.load(checkpoint, compiled=False)
    with pytest.raises(UserError, match="latents, which have no bounds to clip to"):
        generator.require_effect(settings)


def test_an_autoencoder_that_is_killed_goes_on_to_the_same_weights(
    place: Path, tmp_path: Path
) -> None:
    training = {"steps": 5, "accumulation": 2, "flip": True, "save_every": 2}
    recipe = tiny_recipe(str(place / "classes.csv"), training=training)
    images = open_training_set(Wanted(place / "real", "fit", (16,)), 1e9, ImageCache(limit=0))

    def run(folder: Path, stop: int | None) -> dict[str, Tensor]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if done == stop:
                raise KeyboardInterrupt

        processes = PartialState(cpu=True)
        states = TrainingStates(folder, "key", recipe.training.save_every)
        learner = train_course(
            course(recipe, None, images, processes),
            recipe.training,
            states,
            processes,
            Hooks(advance),
        )
        found = nn.ModuleDict(dict(learner.trained)).state_dict()
        return {name: weight.clone() for name, weight in found.items()}

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 3)
    resumed = run(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(name.startswith("discriminator.") for name in whole)


def test_an_autoencoder_goes_on_from_one_of_its_shape_alone(place: Path, tmp_path: Path) -> None:
    start = train(place, "vq", "real", out=tmp_path / "first", steps=2)
    further = train(place, "vq", "real", out=tmp_path / "further", steps=2, start=str(start))
    one, other = (
        load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (start, further)
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UserError, match="has codes 16, the recipe 32"):
        with_start(tiny_recipe(network={"codes": 32}), str(start))
    with pytest.raises(UserError, match="is an AutoencoderKL"):
        with_start(tiny_recipe(), str(save_autoencoder(tmp_path / "vae")))
