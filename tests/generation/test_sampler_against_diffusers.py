"""Each single step against diffusers' schedulers, and how far whole trajectories drift apart.

Their tables are float32 where ours are float64. With a float64 table in their code every step
agrees to rounding. As shipped, steps agree to 1e-5 down to t = 50; below, 1 - abar has lost up to
three digits and steps differ by up to 1e-4. `pytest -rP` prints both, and the drift.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from generation.diffusion.sampler import apply_threshold, sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig

SHAPE = (4, 3, 4, 4)
T = 1000
THEIR_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
THEIR_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
STEP_TOLERANCE = 1e-5
ROUNDING = 1e-12  # with the same float64 table
CLEAN_TOLERANCE, CLEAN = 1e-4, 50  # as shipped, for steps from t <= CLEAN
DRIFT = 1e-3


def network(x: Tensor, t: int, schedule: NoiseSchedule, kind: str) -> Tensor:
    """A smooth stand-in: the image itself where it is clean, a guess far outside where it is not.

    As networks do, it keeps what it sees at low noise; one image in four goes beyond [-1, 1].
    """
    abar = float(schedule.alphas_cumprod[t])
    reach = torch.tensor([0.5, 0.8, 1.6, 0.3], dtype=x.dtype).view(-1, 1, 1, 1)
    x0 = abar**0.5 * x + (1 - abar) * reach * torch.tanh(2 * x + 0.3 * x.roll(1, 3))
    eps = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
    return {"epsilon": eps, "x0": x0, "v": abar**0.5 * eps - (1 - abar) ** 0.5 * x0}[kind]


@dataclass(repr=False)
class Trajectory:
    """Our run: what the network saw and said, and the noise's generator states."""

    xs: list[Tensor] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    schedule: NoiseSchedule | None = None

    def noise_of_step(self, i: int) -> torch.Generator:
        """A generator about to draw what our step `i` drew; the start is draw 0."""
        generator = torch.Generator()
        generator.set_state(self.states[min(i + 1, len(self.states) - 1)])
        return generator


def run_ours(
    name: str,
    kind: str,
    config: SamplerConfig,
    v: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Trajectory:
    schedule = NoiseSchedule(ScheduleConfig.model_validate({"name": name, "num_steps": T}))
    trajectory, generator = Trajectory(schedule=schedule), torch.Generator().manual_seed(3)

    def draw() -> Tensor:
        trajectory.states.append(generator.get_state())
        return torch.randn(SHAPE, generator=generator, dtype=dtype)

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        trajectory.xs.append(x)
        trajectory.ts.append(t)
        trajectory.outputs.append(network(x, t, schedule, kind))
        return trajectory.outputs[-1], None if v is None else torch.full_like(x, v)

    trajectory.xs.append(sample(denoise, schedule, kind, config, draw))
    return trajectory


Step = Callable[[Tensor, int, Tensor, torch.Generator], Tensor]


def step_differences(ours: Trajectory, step: Step) -> list[float]:
    return [
        float((step(output, t, x, ours.noise_of_step(i)) - after).abs().max())
        for i, (output, t, x, after) in enumerate(
            zip(ours.outputs, ours.ts, ours.xs[:-1], ours.xs[1:], strict=True)
        )
    ]


def drift(ours: Trajectory, kind: str, step: Step) -> float:
    x = ours.xs[0]
    for i, t in enumerate(ours.ts):
        x = step(network(x, t, ours.schedule, kind), t, x, ours.noise_of_step(i))
    return float((x - ours.xs[-1]).abs().max())


def check(name: str, ours: Trajectory, kind: str, make_step: Callable[[bool], Step]) -> None:
    """`make_step(True)` is their code on our float64 table, `make_step(False)` as shipped."""
    exact = max(step_differences(ours, make_step(True)))
    shipped = step_differences(ours, make_step(False))
    noisy = max(d for d, t in zip(shipped, ours.ts, strict=True) if t > CLEAN)
    whole = drift(ours, kind, make_step(False))
    print(
        f"{name}: a step {exact:.0e} on a float64 table; as shipped {noisy:.0e} to t = {CLEAN}, "
        f"{max(shipped):.0e} below; whole trajectory {whole:.0e}"
    )
    assert exact <= ROUNDING
    assert noisy <= STEP_TOLERANCE
    assert max(shipped) <= CLEAN_TOLERANCE
    assert whole <= DRIFT


def thresholds(threshold: str) -> dict[str, object]:
    if threshold == "static":
        return {"clip_sample": True}
    if threshold == "dynamic":
        ratio = {"dynamic_thresholding_ratio": 0.9, "sample_max_value": 1e6}
        return {"clip_sample": False, "thresholding": True, **ratio}
    return {"clip_sample": False}


@pytest.mark.parametrize("kind", THEIR_PREDICTIONS)
@pytest.mark.parametrize("schedule", THEIR_SCHEDULES)
@pytest.mark.parametrize(
    ("gamma", "variance_type", "steps", "threshold"),
    [
        (0.0, "fixed_small", 1000, "static"),
        (1.0, "fixed_large", 128, "static"),
        (0.0, "learned_range", 128, "static"),
        (0.3, "learned_range", 1000, "static"),
        (0.3, "learned_range", 128, "dynamic"),
        (1.0, "learned_range", 128, "dynamic"),
    ],
)
def test_ddpm(
    gamma: float, variance_type: str, steps: int, threshold: str, schedule: str, kind: str
) -> None:
    config = SamplerConfig(steps=steps, gamma=gamma, threshold=threshold, dynamic_percentile=0.9)
    ours = run_ours(schedule, kind, config)

    def make_step(exact: bool) -> Step:
        scheduler = DDPMScheduler(
            T,
            beta_schedule=THEIR_SCHEDULES[schedule],
            prediction_type=THEIR_PREDICTIONS[kind],
            variance_type=variance_type,
            timestep_spacing="linspace",
            **thresholds(threshold),
        )
        scheduler.set_timesteps(steps)
        if exact:
            scheduler.alphas_cumprod = torch.from_numpy(ours.schedule.alphas_cumprod)
            scheduler.one = scheduler.one.double()

        def step(output: Tensor, t: int, x: Tensor, generator: torch.Generator) -> Tensor:
            if variance_type == "learned_range":  # gamma as a constant variance channel
                output = torch.cat([output, torch.full_like(output, 2 * gamma - 1)], dim=1)
            return scheduler.step(output, t, x, generator=generator).prev_sample

        return step

    name = f"ddpm {schedule} {kind} {variance_type} gamma={gamma} {steps} {threshold}"
    check(name, ours, kind, make_step)


def test_ddpm_with_a_variance_the_network_gives() -> None:
    ours = run_ours("linear", "epsilon", SamplerConfig(steps=128), 0.37)
    scheduler = DDPMScheduler(T, variance_type="learned_range", timestep_spacing="linspace")
    scheduler.alphas_cumprod = torch.from_numpy(ours.schedule.alphas_cumprod)
    scheduler.one = scheduler.one.double()
    scheduler.set_timesteps(128)

    def step(output: Tensor, t: int, x: Tensor, generator: torch.Generator) -> Tensor:
        output = torch.cat([output, torch.full_like(output, 0.37)], dim=1)
        return scheduler.step(output, t, x, generator=generator).prev_sample

    assert max(step_differences(ours, step)) <= ROUNDING


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("kind", THEIR_PREDICTIONS)
@pytest.mark.parametrize("schedule", THEIR_SCHEDULES)
@pytest.mark.parametrize(("steps", "stride"), [(1000, 1), (28, 37)])
def test_ddim(steps: int, stride: int, schedule: str, kind: str, eta: float) -> None:
    ours = run_ours(schedule, kind, SamplerConfig(method="ddim", steps=steps, eta=eta))

    def make_step(exact: bool) -> Step:
        scheduler = DDIMScheduler(
            T,
            beta_schedule=THEIR_SCHEDULES[schedule],
            prediction_type=THEIR_PREDICTIONS[kind],
            set_alpha_to_one=True,
        )
        # it finds the next step at a fixed stride, ours are evenly spaced from T - 1 to 0
        scheduler.num_inference_steps = T // stride
        if exact:
            scheduler.alphas_cumprod = torch.from_numpy(ours.schedule.alphas_cumprod)
            scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()

        def step(output: Tensor, t: int, x: Tensor, generator: torch.Generator) -> Tensor:
            noise = torch.randn(SHAPE, generator=generator, dtype=x.dtype)
            return scheduler.step(
                output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=noise
            ).prev_sample

        return step

    assert set(-torch.tensor(ours.ts).diff().numpy()) == {stride}
    check(f"ddim {schedule} {kind} eta={eta} {steps}", ours, kind, make_step)


@pytest.mark.filterwarnings(  # diffusers' np.array(tensor)
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
@pytest.mark.parametrize("steps", [8, 24, 100])
@pytest.mark.parametrize(
    ("schedule", "kind"),
    # x0 from epsilon at the cosine's noisiest step is beyond float32, which this scheduler forces
    [("linear", "epsilon"), ("linear", "v"), ("cosine", "v"), ("cosine", "x0")],
)
def test_dpm_solver(schedule: str, kind: str, steps: int) -> None:
    config = SamplerConfig(method="dpm-solver++", steps=steps)
    ours = run_ours(schedule, kind, config, dtype=torch.float32)

    def make_step() -> Step:
        scheduler = DPMSolverMultistepScheduler(
            T,
            beta_schedule=THEIR_SCHEDULES[schedule],
            prediction_type=THEIR_PREDICTIONS[kind],
            thresholding=True,  # with sample_max_value = 1 this is the static threshold
            sample_max_value=1.0,
        )
        scheduler.set_timesteps(steps)
        return lambda output, t, x, _: scheduler.step(output, t, x).prev_sample

    single, whole = max(step_differences(ours, make_step())), drift(ours, kind, make_step())
    print(f"dpm-solver++ {schedule} {kind} {steps}: a step {single:.0e}, whole {whole:.0e}")
    assert single <= STEP_TOLERANCE
    assert whole <= DRIFT


@pytest.mark.parametrize("threshold", ["static", "dynamic"])
def test_thresholds(threshold: str) -> None:
    x0 = torch.randn(SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 1.5
    settings = thresholds("dynamic")
    if threshold == "static":
        settings["sample_max_value"] = 1.0
    expected = DDPMScheduler(**settings)._threshold_sample(x0)
    config = SamplerConfig(threshold=threshold, dynamic_percentile=0.9)
    assert torch.allclose(apply_threshold(x0, config), expected, atol=1e-6)
