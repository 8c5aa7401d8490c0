"""Improved DDPM and ADM, trained from nothing, against their papers: network, losses, times."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch import Tensor, nn

from generation.denoisers.checkpoint import load_checkpoint
from generation.denoisers.course import denoiser_course
from generation.denoisers.learning import NETWORK, Questions
from generation.denoisers.loss_history import KEPT, LossHistory
from generation.denoisers.source import DenoiserGenerator
from generation.denoisers.start import planned_network
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import load_training_recipe, trainable
from generation.families.adm.converter import openai_state
from generation.families.openai_unet.network import OpenAIUNet, heads_of, plan_of
from generation.generator import ImageBatch
from generation.training.data.images import DrawnImages, TrainingImages
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.run import train_course
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.generation.families.references.openai_reference import OpenAIUNet as Reference
from tests.generation.training.hybrid_loss_reference import cosine, hybrid_loss, noisy
from tests.models.tiny_denoisers import PROMPTS, tiny_denoiser, tiny_recipe

IDDPM = {"head_width": None, "heads": 4, "resblock_updown": False, "multipliers": [1, 2]}
UPSAMPLER = {"low_resolution": 8}


@pytest.mark.parametrize(
    ("network", "stage", "reference"),
    [
        ({}, {}, {"head_width": 16, "mult": (1, 1)}),
        (IDDPM, {}, {"heads": 4, "updown": False, "mult": (1, 2)}),
        ({}, UPSAMPLER, {"head_width": 16, "mult": (1, 1), "in_channels": 6}),
    ],
)
def test_a_network_says_what_the_authors_network_says(
    network: dict[str, Any], stage: dict[str, Any], reference: dict[str, Any]
) -> None:
    own: Any = tiny_denoiser("adm", network=network, stage=stage)
    for weight in own.parameters():
        weight.mul_(0.25)
    theirs = Reference(32, blocks=1, attends=(False, True), classes=4, **reference).eval()
    state = openai_state(own.unet, plan_of(own.config), heads_of(own.config.network))
    theirs.load_state_dict(state | {"label_emb.weight": own.classes.weight})
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 16, 16, generator=generator)
    parent = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1 if stage else None
    t, told = torch.tensor([0, 3, 60, 99]), torch.tensor([0, 1, 2, 3])
    log_snr = torch.logit(torch.from_numpy(cosine(100))[t]).float()
    said, carried = own(x, log_snr, told, parent)
    assert carried is None
    beside = (
        [] if parent is None else [nn.functional.interpolate(parent, (16, 16), mode="bilinear")]
    )
    with torch.no_grad():
        expected = theirs(torch.cat([x, *beside], 1), t.float(), told)
    assert said.shape == (4, 6, 16, 16)
    assert said.std() > 0.01
    assert (said - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


class Fixed(nn.Module):
    """Says what it was given to say."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = said.requires_grad_(True)

    def forward(self, *asked: Any) -> tuple[Tensor, None]:
        self.asked = asked
        return self.said, None


def drawn_and_said(seed: int = 11) -> tuple[DrawnImages, Fixed]:
    rng = np.random.default_rng(5)
    images = torch.from_numpy(rng.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8))
    said = torch.from_numpy(rng.standard_normal((12, 6, 16, 16)).astype(np.float32)).tanh()
    random = ImageRandom(seed, 0, torch.arange(12))
    return DrawnImages(images, None, torch.arange(12) % 3, random), Fixed(said)


def test_the_loss_is_the_hybrid_one_and_cuts_the_bound_s_gradient_to_the_mean() -> None:
    recipe = tiny_recipe("adm", stage={"schedule": {"name": "cosine", "num_steps": 4}})
    drawn, network = drawn_and_said()
    loss = trainable("adm").family.loss(recipe)(network, drawn, Questions(recipe, len(PROMPTS)))
    again = ImageRandom(11, 0, torch.arange(12))
    t, noise = again.integers(4).numpy(), again.normal(3, 16, 16).double().numpy()
    assert set(t) == {0, 1, 2, 3}
    x0 = drawn.images.double().numpy() / 127.5 - 1
    said = network.said.detach().double().numpy()
    expected = hybrid_loss(cosine(4), x0, noise, t, said[:, :3], said[:, 3:])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(network.asked[0].numpy(), noisy(cosine(4), x0, noise, t), atol=1e-5)
    dropped = again.uniform().numpy() < 0.1
    assert network.asked[2].tolist() == np.where(dropped, 3, np.arange(12) % 3).tolist()
    (gradient,) = torch.autograd.grad(loss, network.said)
    simple = 2 * (said[:, :3] - noise) / noise.size
    np.testing.assert_allclose(gradient[:, :3].numpy(), simple, rtol=1e-4, atol=1e-9)
    assert gradient[:, 3:].abs().max() > 0


def test_the_bound_alone_teaches_the_mean_and_a_fixed_variance_is_not_taught() -> None:
    schedule = {"schedule": {"name": "cosine", "num_steps": 4}}
    drawn, network = drawn_and_said()
    recipe = tiny_recipe("adm", stage=schedule, training={"loss": "vlb"})
    bound = trainable("adm").family.loss(recipe)(network, drawn, Questions(recipe, 3))
    again = ImageRandom(11, 0, torch.arange(12))
    t, noise = again.integers(4).numpy(), again.normal(3, 16, 16).double().numpy()
    x0, said = drawn.images.double().numpy() / 127.5 - 1, network.said.detach().double().numpy()
    both = hybrid_loss(cosine(4), x0, noise, t, said[:, :3], said[:, 3:])
    simple = float(((said[:, :3] - noise) ** 2).mean())
    assert float(bound.detach()) == pytest.approx((both - simple) / 0.001, rel=1e-5)
    (gradient,) = torch.autograd.grad(bound, network.said)
    assert gradient[:, :3].abs().max() > 1e-4

    fixed = tiny_recipe("adm", stage=schedule, network={"variance": "fixed"})
    drawn, network = drawn_and_said()
    network.said = network.said.detach()[:, :3]
    loss = trainable("adm").family.loss(fixed)(network, drawn, Questions(fixed, 3))
    assert float(loss.detach()) == pytest.approx(simple, rel=1e-6)


def test_steps_are_drawn_by_the_second_moments_of_their_latest_losses() -> None:
    history, steps = LossHistory(5), 5
    kept: list[list[float]] = [[] for _ in range(steps)]
    rng = np.random.default_rng(2)
    for size in (7, 40, 64, 64):
        t, losses = rng.integers(0, steps, size), rng.random(size).astype(np.float32)
        history.note(torch.from_numpy(t), torch.from_numpy(losses))
        for step, loss in zip(t, losses, strict=True):
            kept[step] = [*kept[step], float(loss)][-KEPT:]
        if size == 7:  # not yet ten of each
            np.testing.assert_allclose(history.probabilities().numpy(), 1 / steps)
    roots = np.array([np.sqrt(np.mean(np.square(losses))) for losses in kept])
    expected = 0.999 * roots / roots.sum() + 0.001 / steps
    np.testing.assert_allclose(history.probabilities().numpy(), expected, rtol=1e-6)
    uniform = torch.linspace(0, 0.99999, 20_001)
    drawn, weights = history.draw(uniform)
    share = np.bincount(drawn.numpy(), minlength=steps) / len(uniform)
    np.testing.assert_allclose(share, expected, atol=1e-3)
    np.testing.assert_allclose(weights.numpy(), (1 / (steps * expected))[drawn], rtol=1e-5)


def noted_by(rank: int, folder: Path, t: Tensor, losses: Tensor) -> None:
    """One of two processes, with its half of a batch."""
    meeting = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=2)
    history = LossHistory(3)
    history.note(t.chunk(2)[rank], losses.chunk(2)[rank])
    torch.save(history.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_note_what_one_does(tmp_path: Path) -> None:
    t, losses = torch.tensor([0, 1, 1, 2, 1, 0] * 4), torch.linspace(0, 1, 24)
    alone = LossHistory(3)
    alone.note(t, losses)
    start = torch.multiprocessing.get_context("fork").Process
    both = [start(target=noted_by, args=(rank, tmp_path, t, losses)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(found[name], kept) for name, kept in alone.state_dict().items())


def test_a_training_that_draws_by_losses_goes_on_with_them_and_keeps_none_in_its_checkpoint(
    tmp_path: Path,
) -> None:
    schedule = {"name": "cosine", "num_steps": 2}
    recipe = tiny_recipe(
        "adm",
        stage={"schedule": schedule},
        network={"dropout": 0.0},
        training={"steps": 6, "times": "loss-second-moment", "loss": "vlb", "save_every": 2},
    )
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=generator)
    data, about = TrainingImages(images, None, torch.arange(24) % 10), trainable("adm")

    def run(folder: Path, stop: int | None) -> dict[str, Tensor]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if done == stop:
                raise KeyboardInterrupt

        processes = PartialState(cpu=True)
        network = about.starting_network(recipe, None)
        course = denoiser_course(about.family, network, recipe, data, processes)
        states = TrainingStates(folder, "key", recipe.training.save_every)
        learner = train_course(course, recipe.training, states, processes, Hooks(advance))
        snapshot = learner.snapshot()
        assert snapshot is not None
        course.save(snapshot, folder / "checkpoint")
        return {k: v.clone() for k, v in learner.modules[NETWORK].state_dict().items()}

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 5)
    resumed = run(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert int(whole["history.seen"].sum()) == 6 * 8
    assert len(set(whole["history.losses"].std(dim=1).tolist())) == 2
    saved = load_checkpoint(about.family, tmp_path / "whole/checkpoint")
    assert isinstance(saved, OpenAIUNet)
    assert saved.history is None


def test_settings_without_effect_and_shapes_that_cannot_be_are_refused() -> None:
    generator = trainable("adm").family.sampler(tiny_denoiser("adm"))
    asked = ImageBatch([PROMPTS[0]], [0], [1], None, 16)
    assert isinstance(generator, DenoiserGenerator)
    with pytest.raises(UserError, match="learned its variance: gamma has no effect"):
        generator.sample(asked, SamplerConfig(steps=2, gamma=0.5))
    for changes, words in (
        ({"network": {"heads": 2}}, "heads or head_width, and not both"),
        ({"network": {"head_width": 24}}, "head_width 24: does not divide"),
        ({"network": {"base_channels": 40}}, "no multiple of groups = 32"),
        ({"network": {"attention": [5]}}, "attention 5 is none of the sides"),
        ({"network": {"multipliers": [1] * 6}}, "do not halve 5 times"),
        ({"network": {"variance": "fixed"}, "training": {"loss": "vlb"}}, "learns the variance"),
        ({"training": {"times": "loss-second-moment", "accumulation": 2}}, "whole batches"),
        ({"stage": {"prediction": "v"}}, "predict epsilon"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny_recipe("adm", **changes)


@pytest.mark.parametrize(
    ("name", "count"),
    [  # published: 270 M, 296 M, 554 M, 312 M; the null class is ours; of CDM none
        ("imagenet-iddpm-64", 273_050_118),
        ("imagenet-adm-64", 295_905_222),
        ("imagenet-adm-256", 553_839_110),
        ("imagenet-adm-upsampler-256", 311_796_678),
        ("imagenet-adm-classifier-64", 65_438_568),  # published: 65 M
        ("imagenet-adm-classifier-256", 54_096_360),  # published: 54 M
        ("imagenet-cdm-32", 825_506_566),
        ("imagenet-cdm-64", 751_691_782),
        ("imagenet-cdm-128", 575_283_715),
        ("imagenet-cdm-256", 634_046_979),
    ],
)
def test_the_parameters_of_the_imagenet_recipes(name: str, count: int) -> None:
    recipe = load_training_recipe(name)
    prompts = tuple(entry.prompt for entry in load_classes(recipe.classes))
    network = planned_network(trainable(recipe.generator).family, recipe, prompts)
    assert sum(p.numel() for p in network.parameters()) == count
