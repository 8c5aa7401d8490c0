"""BigGAN-deep trained here: discriminator and losses written anew, then images to a release."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.verify import verify_release
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, load_training_recipe, trained_checkpoint
from generation.families.biggan.discriminator import Discriminator
from generation.families.biggan.network import BatchNorm, BigGAN, truncated_noise
from generation.families.biggan.normalisation import whole
from generation.families.biggan.objective import BigGANObjective, config_of
from generation.families.biggan.recipe import BigGANRecipe
from generation.families.biggan.trainable import course
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.training.data.images import DrawnImages
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.run import train_course
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.image_sets import load_images
from release.streaming.image_cache import ImageCache
from tests.in_process import InProcess
from tests.models.tiny_biggan import tiny_recipe
from tests.recipe_text import as_toml, tiny_build
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

SAMPLER = 'method = "truncation", truncation = 0.5'


def drawn_images(count: int = 6) -> DrawnImages:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    rng = ImageRandom(3, 0, torch.arange(count))
    return DrawnImages(images, None, torch.arange(count) % 4, rng)


def normalised(network: nn.Module) -> dict[str, Tensor]:
    """Weights over the largest singular value that their estimates give, in float64."""
    found: dict[str, Tensor] = {}
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith("parametrizations.weight.original"):
            layer = name.removesuffix(".parametrizations.weight.original")
            u, v = (state[f"{layer}.parametrizations.weight.0._{which}"] for which in "uv")
            found[f"{layer}.weight"] = tensor / (u @ tensor.flatten(1) @ v)
        elif "parametrizations" not in name:
            found[name] = tensor
    return found


def told_apart(s: dict[str, Tensor], shape: Any, x: Tensor, labels: Tensor) -> Tensor:
    """The discriminator anew."""

    def conv(name: str, y: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(y, s[f"{name}.weight"], s.get(f"{name}.bias"), padding=padding)

    def attended(name: str, y: Tensor) -> Tensor:
        query = conv(f"{name}.snconv1x1_theta", y).flatten(2)
        key, value = (
            F.max_pool2d(conv(f"{name}.snconv1x1_{part}", y), 2).flatten(2) for part in ("phi", "g")
        )
        weights = torch.einsum("ncq,nck->nqk", query, key).softmax(2)
        mixed = torch.einsum("nck,nqk->ncq", value, weights).unflatten(2, y.shape[2:])
        return y + s[f"{name}.gamma"] * conv(f"{name}.snconv1x1_o_conv", mixed)

    y, place = conv("enter", x, 1), 0
    for number, (halves, before, after) in enumerate(shape.discriminator):
        if number == shape.discriminator_attention:
            y, place = attended(f"layers.{place}", y), place + 1
        h, name = y, f"layers.{place}"
        for i, padding in enumerate((0, 1, 1)):
            h = conv(f"{name}.convolutions.{i}", h.clamp(min=0), padding)
        h = h.clamp(min=0)
        if halves:
            h, y = (z.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) for z in (h, y))
        if after > before:
            y = torch.cat([y, conv(f"{name}.gained", y)], 1)
        y, place = conv(f"{name}.convolutions.3", h) + y, place + 1
    h = y.clamp(min=0).sum((2, 3))
    projected = (s["classes.weight"][labels] * h).sum(1)
    return h @ s["linear.weight"][0] + s["linear.bias"] + projected


def made_anew(objective: BigGANObjective, images: DrawnImages) -> Tensor:
    """What the generator makes of the images' noise, by the statistics of the batch."""
    network: Any = objective.modules["generator"]
    plain = BigGAN(network.config).double()
    plain.load_state_dict(normalised(network))
    for part in plain.modules():
        if isinstance(part, BatchNorm):
            part.of_batch = True
    rng = ImageRandom(3, 0, torch.arange(len(images.images)))
    return plain(rng.normal(network.config.z_dim).double(), images.conditions, 1.0)


def test_the_losses_are_those_of_the_paper() -> None:
    recipe = tiny_recipe(training={"orthogonal": 0.01})
    torch.manual_seed(0)
    objective = BigGANObjective(recipe, 4)
    for network in objective.modules.values():
        network.eval()  # estimates of singular values stay
        for name, weight in network.named_parameters():
            if name.endswith("gamma"):
                nn.init.constant_(weight, 0.5)
    generator, discriminator = objective.modules["generator"], objective.modules["discriminator"]
    images = drawn_images()
    made = made_anew(objective, images)
    s = normalised(discriminator)
    x = images.images.double() / 127.5 - 1
    real, false = (told_apart(s, recipe.network, z, images.conditions) for z in (x, made))
    hinge = (1 - real).clamp(min=0).mean() + (1 + false).clamp(min=0).mean()
    assert [update.trains for update in objective.updates] == ["discriminator"] * 2 + ["generator"]
    assert [update.rate for update in objective.updates] == [4.0, 4.0, 1.0]
    found = objective.updates[0].loss(objective.modules, images).detach().double()
    assert abs(found - hinge.detach()) < 1e-5
    unlike = torch.zeros(()).double()
    for name, weight in generator.named_parameters():
        if weight.ndim > 1 and not name.startswith("embeddings"):
            rows = weight.detach().double().flatten(1)
            unlike += ((rows @ rows.T) * (1 - torch.eye(len(rows)))).square().sum()
    wanted = -false.mean().detach() + 0.01 * unlike
    again = drawn_images()
    found = objective.updates[2].loss(objective.modules, again).detach().double()
    assert abs(found - wanted) < 1e-5


def test_batch_norms_go_by_the_batch_in_training_and_by_standing_statistics_then() -> None:
    torch.manual_seed(0)
    network: Any = BigGANObjective(tiny_recipe(), 4).modules["generator"]
    done = whole(network, 3, 8)
    assert not any("parametrizations" in name for name in done.state_dict())
    for name, layer in done.named_modules():  # spectral norm is in the weights
        if isinstance(layer, nn.Linear | nn.Conv2d) and name != "embeddings":
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert abs(float(largest) - 1) < 1e-3
    rows = done.config.n_stats
    for row, truncation in enumerate(np.linspace(0, 1, rows)):
        seen: list[Tensor] = []
        first = next(part for part in done.modules() if isinstance(part, BatchNorm))
        handle = first.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        for batch in range(3):
            z = truncated_noise(range(8 * batch, 8 * batch + 8), 8, float(truncation))
            labels = torch.arange(8 * batch, 8 * batch + 8) % 4
            done(torch.from_numpy(z), labels, float(truncation))
        handle.remove()
        means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        deviations = torch.stack([x.var((0, 2, 3), correction=0) for x in seen]).mean(0)
        assert (first.running_means[row] - means).abs().max() < 1e-5
        assert (first.running_vars[row] - deviations).abs().max() < 1e-5
    assert all(part.of_batch for part in network.modules() if isinstance(part, BatchNorm))


def counts(recipe: BigGANRecipe) -> list[int]:
    with torch.device("meta"):
        networks = BigGAN(config_of(recipe, 1000)), Discriminator(recipe.network, 1000)
    return [round(sum(p.numel() for p in network.parameters()) / 1e6) for network in networks]


def test_the_imagenet_recipes_have_the_published_counts() -> None:
    found = {px: counts(load_training_recipe(f"imagenet-biggan-{px}")) for px in (64, 128, 256)}  # type: ignore[arg-type]
    assert found == {64: [50, 35], 128: [50, 35], 256: [56, 38]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": [[False, 4, 4], [True, 2, 2]]}, "a block makes 4 widths, the next takes 2"),
        ({"layers": [[True, 2, 4]]}, "a generator's block cannot widen"),
        ({"discriminator": [[True, 4, 2]]}, "a block cannot narrow"),
        ({"attention": 3}, "attention 3: there are 3 blocks"),
        ({"channel_width": 2, "attention": 2}, "has fewer than 8 channels"),
        ({"layers": [[True, 4, 2]], "attention": 0}, "make images of 8 px, not of 16"),
    ],
)
def test_networks_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_recipe(network=change)


# ---------------------------------------------------------------- by the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ in colour at 16 px, classes.csv, biggan.toml."""
    folder = tmp_path_factory.mktemp("biggan")
    images = np.stack([paint(i % 4, i, 16, 10) for i in range(40)])
    write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    (folder / "biggan.toml").write_text(as_toml(tiny_recipe(str(folder / "classes.csv"))))
    return folder


def test_from_images_to_a_release(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    options: dict[str, Any] = {"recipe": str(place / "biggan.toml"), "data": str(place / "real")}
    finetune_generator(**options, out=tmp_path / "run", as_json=True)
    checkpoint = tmp_path / "run/checkpoint"
    assert (tmp_path / "run/samples-000004.png").is_file()
    found = trained_checkpoint(checkpoint)
    assert (found.generator, found.resolution) == ("biggan", 16)
    written = tiny_build(place / "classes.csv", "biggan", checkpoint, SAMPLER)
    (tmp_path / "build.toml").write_text(written)
    recipe = load_recipe(str(tmp_path / "build.toml"))
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.stages, classes, 2, tmp_path / "release", classes)
    manifest = build_release(plan, RunSettings(), lambda _: None).manifest
    assert manifest is not None
    assert verify_release(plan.release, manifest, 1, lambda _: None).problems == ()
    made = load_images(tmp_path / "release", "16", "train").images
    assert len({image.tobytes() for image in made}) == 8
    generator: Any = generator_source("biggan").load(checkpoint, compiled=False)
    settings = SamplerConfig(method="truncation", truncation=0.5)
    images = generator.sample(ImageBatch(["a"] * 3, [0, 1, 2], [5, 6, 7], None, 16), settings)
    turned = generator.sample(ImageBatch(["a"] * 3, [2, 0, 1], [7, 5, 6], None, 16), settings)
    np.testing.assert_array_equal(turned, images[[2, 0, 1]])
    with pytest.raises(UserError, match="a BigGAN begins from nothing"):
        finetune_generator(**options, out=tmp_path / "on", start=str(checkpoint), as_json=True)


def test_a_training_that_is_killed_goes_on_to_the_same_weights(place: Path, tmp_path: Path) -> None:
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

        processes, config = PartialState(cpu=True), recipe.training
        states = TrainingStates(folder, "key", config.save_every)
        begun = course(recipe, None, images, processes)
        learner = train_course(begun, config, states, processes, Hooks(advance))
        found = nn.ModuleDict(dict(learner.trained)).state_dict()
        return {name: weight.clone() for name, weight in found.items()}

    undisturbed = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 3)
    resumed = run(tmp_path / "stopped", None)
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
