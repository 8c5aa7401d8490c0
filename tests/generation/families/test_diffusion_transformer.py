"""DiT and SiT, networks of ours: against diffusers' network, their papers and a known answer."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from generation.denoisers.checkpoint import load_checkpoint
from generation.denoisers.learning import Questions
from generation.diffusion.flow import LAST_STEP, flow_sample
from generation.diffusion.noise import image_noise
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families import generator_source, load_training_recipe, trainable
from generation.families.diffusion_transformer.converter import authors_state, convert
from generation.families.diffusion_transformer.objective import hybrid_loss, velocity_loss
from generation.families.diffusion_transformer.recipe import LINEAR, SIZES
from generation.families.diffusion_transformer.sampling import sampled_latents
from generation.families.dit.sampling import embed_times_as_trained, guided_denoiser
from generation.generator import ImageBatch, Screened
from generation.networks.guided_transformer import GuidedTransformer
from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.autoencoder import load_autoencoder, sampled
from generation.training.data.images import DrawnImages
from release.errors import UserError
from tests.generation.training.hybrid_loss_reference import hybrid_loss as reference_hybrid
from tests.generation.training.hybrid_loss_reference import linear, noisy
from tests.models.tiny_models import tiny_dit
from tests.models.tiny_transformers import (
    FAMILIES,
    PLAN,
    from_diffusers,
    published,
    save_denoiser,
    save_published,
    tiny_denoiser,
    tiny_recipe,
)

FLOW = SamplerConfig(method="heun", steps=3, guidance=1.5, threshold="none")
DDPM = SamplerConfig(steps=4, guidance=1.5, threshold="none")
SETTINGS = {"dit": DDPM, "sit": FLOW}


def batch(prompts: list[str], labels: list[int], seeds: list[int], side: int = 16) -> ImageBatch:
    return ImageBatch(prompts, labels, seeds, None, side)


# ---------------------------------------------------------------- the network


@torch.no_grad()
def test_the_network_says_what_diffusers_says_of_the_same_weights() -> None:
    """Once that is told what the authors' code has: its frequencies, and 1e-6 in every norm, where
    diffusers adds 1e-5 before the MLP."""
    torch.manual_seed(1)
    theirs = embed_times_as_trained(tiny_dit(side=8, classes=5)).double()
    for block in theirs.transformer_blocks:
        block.norm3.eps = 1e-6
    ours = convert(from_diffusers(theirs), "tiny", heads=2).double()
    x, t, y = torch.randn(3, 4, 8, 8).double(), torch.tensor([0, 500, 999]), torch.tensor([1, 0, 5])
    wanted = theirs(x, t, y, return_dict=False)[0]
    np.testing.assert_allclose(ours(x, t, y), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "patch", "millions"),
    [("S", 2, 33), ("S", 8, 33), ("B", 2, 130), ("B", 4, 130), ("L", 2, 458), ("XL", 2, 675)],
)
def test_full_networks_have_the_published_sizes(size: str, patch: int, millions: int) -> None:
    """Peebles & Xie 2023, table 4; the fixed positions counted, as their code counts them."""
    width, depth, heads = SIZES[size]
    with torch.device("meta"):
        network = Transformer(TransformerPlan(32, 4, 8, 1001, patch, width, depth, heads))
    count = sum(p.numel() for p in network.parameters()) + network.positions().numel()
    assert int(count / 1e6) == millions or round(count / 1e6) == millions
    if (size, patch) == ("XL", 2):
        assert count == 675_129_632  # what their code prints


def test_every_key_of_the_authors_layout_is_mapped_once() -> None:
    """Of XL/2: no tensor is left, none is missing; the way back gives the same."""
    width, depth, heads = SIZES["XL"]
    with torch.device("meta"):
        network = Transformer(TransformerPlan(32, 4, 8, 1001, 2, width, depth, heads))
    state = authors_state(network)
    assert len(state) == len(network.state_dict()) + 1 == 2 + 2 * 5 + 28 * 10
    assert state["pos_embed"].shape == (1, 256, 1152)
    assert state["blocks.27.attn.qkv.weight"].shape == (3456, 1152)
    assert sum(t.numel() for t in state.values()) == 675_129_632
    tiny = published()
    again = convert(tiny.state, "tiny")
    assert again.plan == PLAN
    for name, tensor in tiny.network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks.0.attn.extra": torch.zeros(1)}, "it has blocks.0.attn.extra, which is not known"),
        ({"blocks.1.mlp.fc1.bias": None}, "lacks blocks.1.first.bias"),
        ({"pos_embed": None}, "is no DiT or SiT in its authors' layout"),
        ({"pos_embed": torch.zeros(1, 4, 384)}, "trained with other positions than DiT's"),
        ({"t_embedder.mlp.0.bias": torch.zeros(3)}, r"time.first.bias is \(3,\), not \(384,\)"),
    ],
)
def test_other_layouts_are_refused_in_a_line(change: dict[str, Any], words: str) -> None:
    state: dict[str, Any] = published().state | change
    with pytest.raises(UserError, match=words):
        convert({name: tensor for name, tensor in state.items() if tensor is not None}, "file.pt")


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        network = published().network.train().requires_grad_(True)
        if checkpointing:
            network.set_grad_checkpointing()
        torch.manual_seed(2)
        network(
            torch.randn(2, 4, 4, 4), torch.rand(2), torch.tensor([0, 3])
        ).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


# ---------------------------------------------------------------- the objectives


class Said(torch.nn.Module):
    """Says what it was given, and remembers what it was asked."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, None]:
        self.x, self.time, self.condition = x, time, condition
        return self.said, None


def drawn(n: int = 16) -> DrawnImages:
    torch.manual_seed(3)
    images = torch.randn(n, 4, 8, 8)
    return DrawnImages(images, None, torch.arange(n) % 3, ImageRandom(7, 5, torch.arange(n)))


def numbers(n: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers or uniforms, normals, and which classes are dropped: in the order of the losses."""
    rng = ImageRandom(7, 5, torch.arange(n))
    steps = rng.integers(1000).numpy()
    noise = rng.normal(4, 8, 8).double().numpy()
    return steps, noise, (rng.uniform() < 0.1).numpy()


def test_dits_objective_is_the_papers() -> None:
    said, v = torch.randn(16, 4, 8, 8), torch.tanh(torch.randn(16, 4, 8, 8))
    network, images = Said(torch.cat([said, v], dim=1)), drawn()
    questions = Questions(tiny_recipe("dit"), null=3)
    found = float(hybrid_loss(network, images, questions))
    t, noise, dropped = numbers()
    x0 = images.images.double().numpy()
    abar = linear(1000)
    wanted = reference_hybrid(abar, x0, noise, t, said.double().numpy(), v.double().numpy())
    assert abs(found - wanted) <= 1e-6 * max(1, abs(wanted))
    np.testing.assert_allclose(network.x.numpy(), noisy(abar, x0, noise, t), atol=2e-6)
    np.testing.assert_array_equal(network.time.numpy(), t)
    conditions = np.where(dropped, 3, np.arange(16) % 3)
    np.testing.assert_array_equal(network.condition.numpy(), conditions)


def test_sits_objective_is_the_papers() -> None:
    said, images = torch.randn(16, 8, 8, 8), drawn()
    network = Said(said)
    found = float(velocity_loss(network, images, Questions(tiny_recipe("sit"), null=3)))
    rng = ImageRandom(7, 5, torch.arange(16))
    t = rng.uniform().double().numpy()[:, None, None, None]
    noise = rng.normal(4, 8, 8).double().numpy()
    x0 = images.images.double().numpy()
    wanted = np.square(x0 - noise - said[:, :4].double().numpy()).mean()
    assert abs(found - wanted) <= 1e-6
    np.testing.assert_allclose(network.x.numpy(), t * x0 + (1 - t) * noise, atol=1e-6)
    np.testing.assert_allclose(network.time.numpy(), t.ravel(), atol=0)


def test_a_posterior_is_sampled_by_its_moments() -> None:
    moments = torch.tensor([[2.0, 4 * math.log(2)]]).view(1, 2, 1, 1)
    noise = torch.full((1, 1, 1, 1), -0.5)
    assert float(sampled(moments, noise, 0.5, 1.0)) == pytest.approx((2 - 0.5 * 4 - 1) * 0.5)
    point = sampled(torch.full((1, 1, 1, 1), 3.0), noise, 2.0, 0.0)
    assert float(point) == 6.0


# ---------------------------------------------------------------- samplers, on a known answer


MEAN, STD = 0.7, 0.4


def gaussian_velocity(x: Tensor, t: float) -> Tensor:
    """E[x1 - eps | x_t] where the data are N(MEAN, STD^2), exact."""
    variance = (t * STD) ** 2 + (1 - t) ** 2
    slope = (t * STD**2 - (1 - t)) / variance
    return MEAN + slope * (x - t * MEAN)


def noise_of(n: int) -> Any:
    source = image_noise(range(n), (1, 1, 1))
    return lambda: torch.from_numpy(next(source)).double()


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_the_ode_carries_noise_to_its_known_end(method: Any, order: int) -> None:
    """A Gaussian's flow is x = MEAN + STD * eps; the error falls by 2^order as steps double."""
    noise = noise_of(64)()
    errors = []
    for steps in (32, 64, 128):
        settings = SamplerConfig(method=method, steps=steps, threshold="none")
        made = flow_sample(gaussian_velocity, settings, lambda: noise)
        errors.append(float((made - (MEAN + STD * noise)).abs().max()))
    assert errors[-1] < (2e-2 if order == 1 else 5e-4)
    for coarse, fine in pairwise(errors):
        assert 0.8 * 2**order < coarse / fine < 1.3 * 2**order


def test_the_sde_ends_in_the_datas_distribution() -> None:
    """Euler-Maruyama, 250 steps, on 20,000 numbers; the last step, without noise, narrows a little:
    the exact moments of the chain, in float64, are those that are found."""
    mean, variance = 0.0, 1.0
    step = (1 - LAST_STEP) / 249
    for i in range(250):
        t = i * step
        size, noise = (step, 2 * (1 - t) * step) if i < 249 else (LAST_STEP, 0.0)
        slope = (t * STD**2 - (1 - t)) / ((t * STD) ** 2 + (1 - t) ** 2)
        factor = 1 + size * ((1 + t) * slope - 1)
        mean = factor * mean + size * (1 + t) * (MEAN - slope * t * MEAN)
        variance = factor**2 * variance + noise
    assert mean == pytest.approx(MEAN, abs=5e-3)
    assert math.sqrt(variance) == pytest.approx(STD, abs=2e-2)
    settings = SamplerConfig(method="euler-maruyama", steps=250, threshold="none")
    generator = torch.Generator().manual_seed(1)
    made = flow_sample(
        gaussian_velocity,
        settings,
        lambda: torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=generator),
    )
    assert float(made.mean()) == pytest.approx(mean, abs=4 * STD / math.sqrt(20_000))
    assert float(made.std()) == pytest.approx(math.sqrt(variance), rel=4 / math.sqrt(40_000))


def test_evaluations_are_counted() -> None:
    for method, calls in (("euler", 6), ("heun", 12), ("euler-maruyama", 6)):
        settings = SamplerConfig(method=method, steps=6, threshold="none")
        asked: list[float] = []

        def velocity(x: Tensor, t: float, asked: list[float] = asked) -> Tensor:
            asked.append(t)
            return x

        flow_sample(velocity, settings, lambda: torch.zeros(1, 1, 1, 1))
        assert len(asked) == calls == settings.network_evaluations
        assert 0 <= min(asked) < max(asked) <= 1


@pytest.mark.parametrize(("channels", "guided"), [(4, 3), (6, 6), (1, 1)])
def test_guidance_is_of_the_first_three_of_four_channels(channels: int, guided: int) -> None:
    def network(_: Tensor, __: Tensor, condition: Tensor) -> Tensor:
        return condition.view(-1, 1, 1, 1).expand(-1, 2 * channels, 2, 2).float()

    told = GuidedTransformer(network, torch.tensor([2]), 10, 1.5, torch.float32)
    said, further = told(torch.zeros(1, channels, 2, 2), 0.5)
    assert said[0, :, 0, 0].tolist() == [10 + 1.5 * (2 - 10)] * guided + [2.0] * (channels - guided)
    assert further.shape == said.shape
    assert set(further.ravel().tolist()) == {2.0}


@torch.no_grad()
def test_dits_sampler_is_that_of_diffusers_folder() -> None:
    """Whose steps tests/generation/families/test_dit.py compares with the paper; of one set of
    weights, and one noise."""
    torch.manual_seed(1)
    theirs = embed_times_as_trained(tiny_dit(side=8, classes=5))
    for block in theirs.transformer_blocks:
        block.norm3.eps = 1e-6
    ours = convert(from_diffusers(theirs), "tiny", heads=2)
    labels, settings = torch.tensor([4, 0]), DDPM.model_copy(update={"steps": 20})
    guided = GuidedTransformer(ours, labels, 5, settings.guidance, torch.float32)
    schedule = NoiseSchedule(LINEAR)
    made = sampled_latents(guided, schedule, (4, 8, 8), [5, 6], settings, "cpu")
    source = image_noise([5, 6], (4, 8, 8))
    wanted = sample(
        guided_denoiser(theirs, labels, settings.guidance, torch.float32),
        schedule,
        "epsilon",
        settings,
        lambda: torch.from_numpy(next(source).copy()),
    )
    assert float((made - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


# ---------------------------------------------------------------- checkpoints, sampled


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_ours_is_sampled_and_decoded(family: str, tmp_path: Path) -> None:
    source = generator_source(family)
    folder = save_denoiser(tmp_path / family, family)
    assert source.locate(str(folder)) == folder
    assert source.trained_resolution(folder) == 16
    assert source.unconditional(folder) is False
    assert source.size_problem(folder, 16, None) is None
    assert "makes images of 16 px" in source.size_problem(folder, 32, None)
    generator = source.load(folder, compiled=False)
    asked = batch(["plum", "apple", "plum"], [0, 0, 0], [1, 2, 3])
    images = generator.sample(asked, SETTINGS[family])
    assert not isinstance(images, Screened)
    assert (images.shape, images.dtype) == ((3, 16, 16, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 3
    turned = generator.sample(
        batch(["plum", "apple", "plum"], [0] * 3, [3, 2, 1]), SETTINGS[family]
    )
    np.testing.assert_array_equal(turned[::-1], images)
    other = generator.sample(batch(["plum", "pear", "plum"], [0] * 3, [1, 2, 3]), SETTINGS[family])
    assert (other != images).any(axis=(1, 2, 3)).tolist() == [False, True, False]
    with pytest.raises(UserError, match="class 'fig' is not among the 3"):
        generator.sample(batch(["fig"], [0], [1]), SETTINGS[family])


@torch.no_grad()
def test_latents_are_decoded_at_their_own_scale(tmp_path: Path) -> None:
    """One Euler step from noise, by hand: x + v, over the factor, through diffusers' decoder."""
    folder = save_denoiser(tmp_path / "sit", "sit")
    network = load_checkpoint(trainable("sit").family, folder)
    x = torch.from_numpy(next(image_noise([5], (4, 8, 8))).copy())
    v = network(x, torch.zeros(1), torch.tensor([1]))[0][:, :4]
    decoder = AutoencoderKL.from_pretrained(tmp_path / "sit-vae").eval()
    wanted = decoder.decode((x + v) / 0.5).sample
    levels = ((wanted + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    settings = SamplerConfig(method="euler", steps=1, threshold="none")
    made = (
        generator_source("sit")
        .load(folder, compiled=False)
        .sample(batch(["pear"], [0], [5]), settings)
    )
    np.testing.assert_allclose(made[0].astype(int), levels[0].permute(1, 2, 0).int(), atol=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_in_the_authors_layout_is_sampled(family: str, tmp_path: Path) -> None:
    file = save_published(tmp_path / "XL-2.pt")
    source = generator_source(family)
    assert source.locate(str(file)) == file
    generator = source.load(file, compiled=False)
    asked = batch(["a", "b", "c"], [0, 2, 1], [1, 2, 3], 8)
    images = generator.sample(asked, SETTINGS[family])
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 3
    with pytest.raises(UserError, match="label 3 is not among the 3 classes"):
        generator.sample(batch(["a"], [3], [1], 8), SETTINGS[family])
    training = {"model": {}, "ema": torch.load(file), "opt": {}}
    torch.save(training, tmp_path / "0050000.pt")
    again = source.load(tmp_path / "0050000.pt", compiled=False).sample(asked, SETTINGS[family])
    np.testing.assert_array_equal(again, images)
    before = source.sha256(file)
    (tmp_path / "sd-vae-ft-ema" / "config.json").write_text(
        (tmp_path / "sd-vae-ft-ema" / "config.json").read_text().replace("0.5", "0.25")
    )
    assert source.sha256(file) != before


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        (
            "sit",
            {"method": "ddpm"},
            "is sampled by euler, heun, euler-maruyama, heun-euler, not by ddpm",
        ),
        ("sit", {"threshold": "static"}, "a flow has no estimate to clip"),
        ("dit", {"method": "heun"}, "method heun belongs to other generators"),
        ("dit", {"gamma": 0.5}, "gamma has no effect"),
        ("dit", {"threshold": "static"}, "which have no bounds to clip to"),
        ("dit", {"stop": 0.2}, "decodes latents, which must be clean"),
        ("dit", {"noise_augmentation": 0.2}, "knows no noise in parents"),
    ],
)
def test_settings_without_effect_are_refused(
    family: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    generator = generator_source(family).load(save_denoiser(tmp_path / "c", family), compiled=False)
    settings = SETTINGS[family].model_copy(update=changes)
    with pytest.raises(UserError, match=words):
        generator.sample(batch(["plum"], [0], [1]), settings)


def test_a_copy_of_the_autoencoder_in_the_checkpoint_will_do(tmp_path: Path) -> None:
    folder = save_denoiser(tmp_path / "sit", "sit")
    source, asked = generator_source("sit"), batch(["plum"], [0], [1])
    images, sha256 = source.load(folder, compiled=False).sample(asked, FLOW), source.sha256(folder)
    (tmp_path / "sit-vae").rename(folder / "autoencoder")
    load_autoencoder.cache_clear()
    np.testing.assert_array_equal(source.load(folder, compiled=False).sample(asked, FLOW), images)
    assert source.sha256(folder) == sha256
    (folder / "autoencoder").rename(tmp_path / "gone")
    load_autoencoder.cache_clear()
    with pytest.raises(UserError, match="neither a folder nor a model's name on the Hub"):
        source.locate(str(folder))


def test_another_autoencoder_of_the_same_name_is_refused(tmp_path: Path) -> None:
    folder = save_denoiser(tmp_path / "dit", "dit")
    generator = generator_source("dit").load(folder, compiled=False)
    config = tmp_path / "dit-vae" / "config.json"
    config.write_text(config.read_text().replace("0.5", "0.25"))
    load_autoencoder.cache_clear()
    with pytest.raises(UserError, match="is another one here"):
        generator.sample(batch(["plum"], [0], [1]), DDPM)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stage": {"prediction": "x0"}}, "DiT predicts epsilon"),
        ({"stage": {"low_resolution": 8}}, "enlarges no images"),
        ({"network": {"patch": 3}}, "patch 3 does not divide 8"),
        ({"network": {"size": "XL"}}, "give size, or width, depth and heads, not both"),
        ({"network": {"width": None}}, "give size, one of S, B, L, XL"),
    ],
)
def test_recipes_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_recipe("dit", **change)


def test_a_thousand_classes_are_told_apart() -> None:
    network = tiny_denoiser("sit", tuple(f"thing {i}" for i in range(1000)))
    assert network.null_condition == 1000
    x, t = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1), torch.full((3,), 0.5)
    told = network.conditions(["thing 0", "thing 517", "thing 999"])
    assert len({tuple(row.ravel().tolist()) for row in network(x, t, told)[0]}) == 3


@pytest.mark.parametrize("name", ["imagenet-dit-256", "imagenet-sit-256"])
def test_the_imagenet_recipes_have_the_published_settings(name: str) -> None:
    recipe = load_training_recipe(name)
    training = recipe.training
    assert (training.batch, training.learning_rate, training.ema) == (256, 1e-4, 0.9999)
    assert (training.weight_decay, training.schedule, training.class_dropout) == (
        0,
        "constant",
        0.1,
    )
    assert training.batch * training.steps == 256 * 7_000_000
    memory = trainable(recipe.generator).memory(recipe, 8)
    assert memory.parameters == 675_129_632 - 256 * 1152
