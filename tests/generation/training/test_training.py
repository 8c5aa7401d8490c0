"""Training a stage: exact resume, accumulation, averages, what a batch is made of."""

import itertools
import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from generation.diffusion.losses import hybrid_term, variational_terms
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler import predicted_x0, split_variance
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.data.images import DrawnImages, TrainingImages, drawn_images
from generation.training.data.order import Visits, batch_rows
from generation.training.denoising import NoisyTraining
from generation.training.pictures import loss_curve, loss_table
from generation.training.run import loop_settings
from release.errors import UserError
from tests.forked_commands import run, worker_forks
from tests.models.tiny_network import PROMPTS, tiny_network
from tests.models.train_tiny import BASE, STEPS, UPSCALER, tiny_data, train_stage, train_stages

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


# ---------------------------------------------------------------- resume


@dataclass
class Training:
    """A process that trains the tiny stages, and what it says after each step."""

    process: BaseProcess
    steps: Connection

    def steps_to_its_end(self) -> int:
        """How many more it takes."""
        count = 0
        with suppress(EOFError):
            for count in itertools.count():  # noqa: B007
                self.steps.recv()
        self.process.join()
        return count


Start = Callable[[Path], Training]
LOSSES = {  # of tests/models/train_tiny.py since its random numbers follow an image's place
    "base": (0.95458, 0.74646, 0.61088, 0.84008, 0.83138, 0.67857, 0.81727, 0.61193, 0.85353),
    "upscaler": (0.58229, 0.76653, 0.69259, 0.62283, 0.80944, 0.59109),
}


@pytest.fixture
def start_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Train the tiny stages into a folder, in a process that does not outlive the test."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    forking, started = multiprocessing.get_context("forkserver"), list[Training]()

    def start(folder: Path) -> Training:
        steps, said = forking.Pipe(duplex=False)
        started.append(Training(forking.Process(target=train_stages, args=(folder, said)), steps))
        started[-1].process.start()
        said.close()
        return started[-1]

    with worker_forks():
        yield start
        for training in started:
            training.process.kill()
            training.process.join()
            training.steps.close()


def kill_when(training: Training, ready: Callable[[int], bool]) -> None:
    """kill -9 once `ready`, asked after each step with their number; a step may go on meanwhile."""
    for steps in itertools.count():
        if ready(steps):
            break
        training.steps.recv()
    training.process.kill()
    training.process.join()


def assert_same(first: object, second: object, where: str) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}.{i}")
    elif isinstance(first, Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def test_a_killed_run_ends_as_an_uninterrupted_one_bit_for_bit(
    start_training: Start, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    uninterrupted = start_training(whole)
    first = random.randint(1, 8)  # of the base's 9 steps; the assertion names it
    kill_when(start_training(stopped), lambda steps: steps == first)
    kill_when(start_training(stopped), lambda _: (stopped / "upscaler" / "state.pt").exists())
    for stage in ("base", "upscaler"):
        half = stopped / stage / ".state.pt.0123.tmp"  # killed while it saved
        half.write_bytes(b"half a state")
    resumed = start_training(stopped)
    steps = resumed.steps_to_its_end()
    assert resumed.process.exitcode == 0
    assert uninterrupted.steps_to_its_end() == STEPS
    assert uninterrupted.process.exitcode == 0
    assert steps <= UPSCALER.steps - 2, f"{first}: super-resolution was not resumed"
    for stage in ("base", "upscaler"):
        states = [torch.load(f / stage / "state.pt", weights_only=True) for f in (whole, stopped)]
        assert_same(*states, f"killed after {first}, {stage}")
        np.testing.assert_allclose(states[0]["losses"]["loss"], LOSSES[stage], rtol=1e-3)


def test_a_run_killed_at_write_after_write_leaves_what_an_undisturbed_one_leaves(
    tmp_path: Path,
) -> None:
    program = ["python", "-m", "tests.campaigns.kill_at_each_write", tmp_path]
    kills = run(program, CUDA_VISIBLE_DEVICES="")
    assert kills.returncode == 0, kills.stderr
    assert int(kills.stdout) > 3
    whole, stopped = (
        {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "whole", tmp_path / "stopped")
    )
    assert whole.keys() == stopped.keys()
    assert not any(name.endswith((".tmp", ".half")) for name in stopped)
    for name, path in whole.items():
        if path.suffix == ".pt":
            states = [torch.load(p, weights_only=True) for p in (path, stopped[name])]
            assert_same(*states, name)
        else:
            assert path.read_bytes() == stopped[name].read_bytes(), name


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    network = tiny_network()
    data, calls = tiny_data(network), []
    config = BASE.model_copy(update={"steps": 2})
    average, losses = train_stage(network, data, config, tmp_path, calls.append, quiet)
    again, same_losses = train_stage(tiny_network(), data, config, tmp_path, calls.append, quiet)
    assert calls == [0, 1, 1, 2]
    assert losses == same_losses
    for one, other in zip(average.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- the update


def quiet(*_: object) -> None:
    pass


def draw(
    data: TrainingImages, config: PixelUNetTraining, places: np.ndarray, step: int = 0
) -> DrawnImages:
    """The images that have these places in the batch of a step, as the training draws them."""
    rows, _ = batch_rows(Visits.once(len(data)), config.batch, config.seed, step)
    rng = ImageRandom(config.seed, step, torch.from_numpy(places))
    return drawn_images(next(data.read(iter([rows[places]]), CPU)), rng, flip=config.flip)


def noisy_training(
    config: PixelUNetTraining,
    schedule: NoiseSchedule,
    null: int = len(PROMPTS) - 1,
    prediction: Prediction = "v",
) -> NoisyTraining:
    dropout, most = config.caption_dropout, config.max_augmentation
    return NoisyTraining(prediction, schedule, null, dropout, most)


@pytest.mark.parametrize(("steps", "window"), [(1, 1), (40, 4), (499, 49), (500, 50), (2000, 50)])
def test_a_short_training_has_a_loss_curve_too(steps: int, window: int) -> None:
    losses = [1 / (step + 1) for step in range(steps)]
    header, first, *rest = loss_table({"loss": losses}).decode().splitlines()
    assert header == f"step,mean_loss_of_{window}"
    assert first == f"{window},{np.mean(losses[:window]):.6f}"
    assert len(rest) == steps // window - 1
    assert len(loss_curve({"loss": losses})) > 1000


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_accumulation_takes_the_step_of_the_mean_gradient(tmp_path: Path, parts: int) -> None:
    config = PixelUNetTraining(steps=50, batch=8, accumulation=parts, warmup=0, learning_rate=0.01)
    network = tiny_network()
    data, schedule = tiny_data(network), NoiseSchedule(network.config.schedule)
    expected = tiny_network().train().requires_grad_(True).to(memory_format=torch.channels_last)
    weights = list(expected.parameters())
    gradients = [torch.zeros_like(weight) for weight in weights]
    for part in range(parts):
        training = noisy_training(config, schedule)
        places = np.arange(8).reshape(parts, -1)[part]
        loss = training.loss(expected, draw(data, config, places))
        for gradient, g in zip(gradients, torch.autograd.grad(loss, weights), strict=True):
            gradient.add_(g, alpha=1 / parts)
    # one step of Adam from zero moments: lr * g / (|g| + 1e-8), lr of step 0 of 50
    for weight, g in zip(weights, gradients, strict=True):
        weight.data -= loop_settings(config, CPU).rate(0) * g / (g.abs() + 1e-8)

    class Stop(Exception):  # noqa: N818
        pass

    def stop_after_one(steps: int) -> None:
        if steps == 1:
            raise Stop

    with pytest.raises(Stop):
        train_stage(network, data, config, tmp_path, stop_after_one, quiet)
    for given, wanted in zip(network.parameters(), weights, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-6, rtol=0)


def test_the_average_warms_up_and_then_keeps_its_decay(tmp_path: Path) -> None:
    config = PixelUNetTraining(steps=6, batch=2, warmup=0, ema=0.3, save_every=1)
    network = tiny_network()
    state = tmp_path / "state.pt"
    names = [name for name, _ in network.named_parameters()]
    expected = [p.clone().double() for p in network.parameters()]
    updates = []

    def follow(*_: object) -> None:
        saved = torch.load(state, weights_only=True)
        decay = min(0.3, (1 + len(updates)) / (10 + len(updates)))
        for mean, name in zip(expected, names, strict=True):
            mean.mul_(decay).add_(saved["modules"]["network"][name].double(), alpha=1 - decay)
        updates.append(decay)

    average, _ = train_stage(network, tiny_data(network), config, tmp_path, quiet, follow)
    follow()
    assert updates == [0.1, 2 / 11, 0.25, 0.3, 0.3, 0.3]
    for given, mean in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(given.double(), mean, atol=1e-6, rtol=0)
    assert not average.training


def test_the_learning_rate_rises_then_falls_along_a_half_cosine() -> None:
    config = PixelUNetTraining(steps=110, warmup=10, learning_rate=0.5)
    rates = [loop_settings(config, CPU).rate(step) for step in range(111)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(rates[10:], 0.25 * (1 + np.cos(np.pi * np.arange(101) / 100)))


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    network = tiny_network()
    config = PixelUNetTraining(steps=1, batch=5, accumulation=2)
    with pytest.raises(UserError, match="batch = 5"):
        train_stage(network, tiny_data(network), config, tmp_path, quiet, quiet)


# ---------------------------------------------------------------- a batch


def seen_by_the_network(data: TrainingImages, config: PixelUNetTraining, size: int) -> list[Tensor]:
    seen: list[Tensor] = []

    def network(*inputs: Tensor) -> Tensor:
        seen.extend(inputs)
        return torch.zeros_like(inputs[0])

    schedule = NoiseSchedule(ScheduleConfig())
    config = config.model_copy(update={"batch": size})
    noisy_training(config, schedule, null=99).loss(network, draw(data, config, np.arange(size)))
    return seen


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_the_share_of_dropped_captions(share: float) -> None:
    count, size = 16, 40_000
    data = TrainingImages(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), None, torch.arange(count))
    config = PixelUNetTraining(steps=1, caption_dropout=share)
    _, t, prompt = seen_by_the_network(data, config, size)
    dropped = float((prompt == 99).float().mean())
    assert abs(dropped - share) <= 4 * np.sqrt(share * (1 - share) / size)
    assert torch.equal(data.conditions, torch.arange(count))
    assert np.all(np.bincount(t, minlength=1000) > 10)  # 40 of each expected
    assert len(np.bincount(t)) == 1000


@pytest.mark.parametrize("flip", [False, True])
def test_images_parents_and_prompts_stay_together(flip: bool) -> None:
    """Image i is a ramp that starts at level i, its parent the same at half the size."""
    levels, size = torch.arange(100, dtype=torch.uint8), 5000
    ramp = torch.arange(8, dtype=torch.uint8) * 10
    images = (levels.view(-1, 1, 1, 1) + ramp).expand(100, 1, 8, 8)
    data = TrainingImages(images, images[:, :, ::2, ::2], levels.long())
    config = PixelUNetTraining(steps=1, caption_dropout=0, flip=flip, max_augmentation=0.5)
    x, t, prompt, parent, level = seen_by_the_network(data, config, size)

    def mirrored(i: int, signal: Tensor, side: int) -> bool:
        line = (ramp[:: 8 // side].float() + prompt[i]) / 127.5 - 1
        straight, turned = ((signal - ln).abs().mean() for ln in (line, line.flip(0)))
        assert min(straight, turned) < 0.06  # noise of the cleanest ones
        return bool(turned < straight)

    share = (level / 1000).double()
    clean = torch.nonzero((t < 15) & (share < 0.02)).flatten().tolist()
    assert len(clean) > 1
    turns = [mirrored(i, x[i, 0], 8) for i in clean]
    assert turns == [mirrored(i, parent[i, 0], 4) for i in clean]
    assert any(turns) == flip
    # what is added to a parent is noise of the level that the network is told
    angle = (share * np.pi / 2).view(-1, 1, 1, 1)
    original = torch.stack([data.parents[p] for p in prompt.tolist()]).double() / 127.5 - 1
    if not flip:
        noise = ((parent - angle.cos() * original) / angle.sin())[share > 0.05]
        assert abs(float(noise.mean())) < 0.02
        assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float(share.max()) < 0.5
    assert float(share.mean()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["epsilon", "v", "x0"])
def test_the_target_is_what_the_sampler_reads(kind: str, scale: float) -> None:
    """A network that knows the one image there is has no loss, and the sampler finds it."""
    image = torch.randint(0, 256, (1, 1, 4, 4), dtype=torch.uint8)
    x0 = (image.double() / 127.5 - 1) * scale
    schedule = NoiseSchedule(ScheduleConfig(name="cosine", input_scale=scale))

    def oracle(x: Tensor, t: Tensor, _: Tensor) -> Tensor:
        abar = torch.from_numpy(schedule.alphas_cumprod)[t].view(-1, 1, 1, 1)
        signal, spread = abar.sqrt(), (1 - abar).sqrt()
        noise = (x - signal * x0) / spread
        out = {"epsilon": noise, "x0": x0, "v": signal * noise - spread * x0}[kind]
        found = predicted_x0(out, kind, x.double(), signal, spread)
        torch.testing.assert_close(found, x0.expand_as(found), atol=1e-6, rtol=0)
        return out.expand(x.shape)

    data = TrainingImages(image, None, torch.zeros(1, dtype=torch.long))
    config = PixelUNetTraining(steps=1, batch=2000)
    drawn = draw(data, config, np.arange(2000))
    loss = noisy_training(config, schedule, null=1, prediction=kind).loss(oracle, drawn)
    assert float(loss) < 1e-6


# ---------------------------------------------------------------- learned variance


def reference_bound(
    v: float, estimate: float, x0: float, t: int, abar: np.ndarray, b: float
) -> float:
    """-log p of Nichol & Dhariwal's eq. 4 and 5 for one number, from the densities themselves."""
    before = abar[t - 1] if t else 1.0
    beta = 1 - abar[t] / before
    first = (1 - abar[0]) / (1 - abar[1]) * (1 - abar[1] / abar[0])
    beta_tilde = (1 - before) / (1 - abar[t]) * beta if t else first
    variance = np.exp((v + 1) / 2 * np.log(beta) + (1 - v) / 2 * np.log(beta_tilde))
    if t == 0:
        level, deviation = x0 / b, np.sqrt(variance) / b
        low = -np.inf if level <= -1 else level - 1 / 255
        high = np.inf if level >= 1 else level + 1 / 255
        return -np.log(np.diff(norm.cdf([low, high], estimate / b, deviation))[0])
    means = [np.sqrt(before) * beta / (1 - abar[t]) * c for c in (x0, estimate)]
    # KL(q || p) by quadrature, not by its closed form
    x = means[0] + np.sqrt(beta_tilde) * np.linspace(-9, 9, 20_001)
    q = norm.pdf(x, means[0], np.sqrt(beta_tilde))
    log_q = norm.logpdf(x, means[0], np.sqrt(beta_tilde))
    return np.trapezoid(q * (log_q - norm.logpdf(x, means[1], np.sqrt(variance))), x)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_bound_is_the_divergence_of_the_densities(scale: float) -> None:
    schedule = NoiseSchedule(ScheduleConfig(name="cosine", input_scale=scale))
    t = torch.tensor([0, 0, 0, 1, 2, 10, 300, 998, 999])
    levels = torch.tensor([0, 255, 100, 0, 255, 17, 60, 200, 90])
    x0 = ((levels.double() / 127.5 - 1) * scale).view(-1, 1, 1, 1)
    estimate = x0 + torch.linspace(-0.02, 0.03, 9, dtype=torch.float64).view(-1, 1, 1, 1)
    v = torch.linspace(-1.1, 1.0, 9, dtype=torch.float64).roll(4).view(-1, 1, 1, 1)
    given = variational_terms(v, estimate, x0, t, schedule).flatten()
    expected = [
        reference_bound(*(float(a[i]) for a in (v, estimate, x0)), int(t[i]), abar, scale)
        for abar in [schedule.alphas_cumprod]
        for i in range(9)
    ]
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-5, atol=1e-8)
    term = hybrid_term(v, estimate, x0, t, schedule)
    assert float(term) == pytest.approx(np.mean(expected) / np.log(2), rel=1e-5)


def test_the_hybrid_term_teaches_v_alone() -> None:
    """The prediction's gradient is the simple loss's; the variance channels have their own."""
    network = tiny_network(variance="learned")
    data, config = tiny_data(network), PixelUNetTraining(steps=1)
    schedule = NoiseSchedule(network.config.schedule)

    def gradient_at_the_output(channels: int) -> Tensor:
        leaf = []

        def cut(*inputs: Tensor) -> Tensor:
            leaf.append(network(*inputs)[:, :channels].detach().requires_grad_())
            return leaf[0]

        drawn = draw(data, config, np.arange(16))
        noisy_training(config, schedule).loss(cut, drawn).backward()
        return leaf[0].grad

    prediction, v = split_variance(gradient_at_the_output(2), 1)
    torch.testing.assert_close(prediction, gradient_at_the_output(1), atol=0, rtol=1e-6)
    assert float(v.abs().min()) > 0


def test_the_best_v_is_the_one_that_explains_the_error() -> None:
    """At t > 0 the bound is least where the variance is beta~ + (error of the mean)^2."""
    schedule = NoiseSchedule(ScheduleConfig(name="linear"))
    abar = schedule.alphas_cumprod
    t, error = 40, 0.05
    alpha = abar[t] / abar[t - 1]
    beta, tilde = 1 - alpha, (1 - abar[t - 1]) / (1 - abar[t]) * (1 - alpha)
    best = tilde + (np.sqrt(abar[t - 1]) * beta / (1 - abar[t]) * error) ** 2
    v = 2 * (np.log(best) - np.log(tilde)) / (np.log(beta) - np.log(tilde)) - 1
    guesses = torch.tensor(v, dtype=torch.float64).view(1, 1, 1, 1).requires_grad_(True)
    x0 = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    variational_terms(guesses, x0 + error, x0, torch.tensor([t]), schedule).sum().backward()
    assert float(guesses.grad.abs()) < 1e-9
