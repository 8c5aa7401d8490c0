"""Sampler settings, apart from the sampler so that reading a recipe needs no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from generation.diffusion.edm_levels import edm_calls, flow_time
from generation.diffusion.flow_times import acts_at, flow_times

Prediction = Literal["epsilon", "v", "x0"]
PIXEL_METHODS = ("ddpm", "ddim", "dpm-solver++")
Share = Annotated[float, Field(ge=0, le=1)]
MEAN_FLOW = "mean-flow"  # of networks that say a mean velocity
ODE_METHODS = ("euler", "heun", "heun-euler")
FLOW_METHODS = ("euler", "heun", "euler-maruyama", "heun-euler")  # of networks that say a velocity
EDM = "edm"  # of networks that denoise at EDM's noise levels
NEXT_SCALE = "next-scale"  # of networks that say codes, scale by scale
MASKED = "masked-autoregressive"  # of networks that draw tokens in a random order
WITH_INTERVAL = (*FLOW_METHODS, MEAN_FLOW, EDM, *PIXEL_METHODS)
LATER = (
    *("truncation", "black_point", "guidance_interval", "time_shift", "spacing_power"),
    *("classifier", "stop", "truncated", "temperature", "top_k", "top_p"),
    "diffusion_steps",
)


def steps_made(steps: int, strength: float) -> int:
    """How many of `steps` are made from a start of that strength, in (0, 1]: at least one."""
    return max(1, round(strength * steps))


class ClassifierGuidance(BaseModel):
    """A classifier of noisy images whose gradient steers sampling.

    checkpoint: its folder, of a training of noisy-classifier. scale: s, of the gradient. towards:
    "class", of log p(y | x_t), leads to an image's class (Dhariwal & Nichol 2021, section 4);
    "entropy", of the entropy of p(. | x_t), to images that the classifier is unsure of
    (Askari-Hemmat et al. 2025, "Improving the Scaling Laws of Synthetic Data with Deliberate
    Practice", arXiv 2502.15588). There the classifier is the one that is being trained on the
    images, and sees the one-step estimate of x0; here it is one of noisy images, and sees x_t.
    sha256: of its files; filled in when a build is planned.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    checkpoint: str
    scale: Annotated[float, Field(gt=0)] = 1.0
    towards: Annotated[
        Literal["class", "entropy"], Field(exclude_if=lambda value: value == "class")
    ] = "class"  # named only where it is another: what was built before keeps its fingerprint
    sha256: str | None = None

    @model_serializer(mode="wrap")
    def _hash_where_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {name: value for name, value in content.items() if value is not None}


class SamplerConfig(BaseModel):
    """Sampler settings, named as in Azizi et al. 2023 and Saharia et al. 2022.

    method: "ddpm" is ancestral sampling (Ho et al. 2020), "ddim" Song et al. 2021 with `eta`,
    "dpm-solver++" the second-order multistep solver 2M of Lu et al. 2022 (algorithm 2). Four are
    of networks that say a velocity (generation/diffusion/flow.py): "euler", "heun" and
    "heun-euler", whose last step is Euler's, solve the ODE, "euler-maruyama" the SDE. "mean-flow"
    goes along a network's mean velocity (Geng et al. 2025), which is told guidance and interval and
    runs once a step. "edm" is Karras et al. 2022, algorithm 1, of Heun's steps
    (generation/diffusion/edm.py). "next-scale" draws codes coarse to fine (Tian et al. 2024), with
    w at the finest scale, in one step. "masked-autoregressive" draws tokens in a random order, some
    at each of `steps`, by a diffusion of `diffusion_steps` each (Li et al. 2024); w grows to the
    last step. Two are not ours: "native" is a diffusers pipeline's own
    scheduler with `steps` and `guidance`, "truncation" one pass of a GAN whose noise is scaled by
    `truncation` (Brock et al. 2019, section 3.1).
    guidance: w in uncond + w * (cond - uncond); w = 1 runs no unconditional pass. With a stage's
    guide, a weaker network, w in guide + w * (network - guide).
    guidance_interval: the least and greatest share of noise, 1 for noise alone, at which guidance
    acts (Kynkäänniemi et al. 2024, arXiv 2404.07724, who name sigma); at others the network is run
    told the class alone, and a guide is not asked. The share is sigma / (alpha + sigma) of
    alpha x0 + sigma eps: of a flow 1 - t, of "edm" sigma / (1 + sigma), of "ddpm", "ddim" and
    "dpm-solver++" that of a step of the noise schedule. Equal shares are equal ratios of signal and
    noise.
    time_shift: of an ODE, shift; its steps are at shift t / (1 + (shift - 1) t), t evenly from 0,
    noise, to 1.
    spacing_power: of "ddpm", "ddim" and "dpm-solver++", p; of the schedule's T steps those at
    (T - 1) (1 - i / n)^p are made, so more of them where there is little noise: 1 is evenly, 2 the
    quadratic spacing of Song et al. 2021, appendix D.2.
    top_k, top_p: of "next-scale", codes are drawn among the k likeliest, and of those among the
    likeliest that add up to p.
    gamma: log-variance coefficient, logvar = gamma*log(beta) + (1 - gamma)*log(beta~).
    noise_augmentation: how much noise the low-resolution input gets, in [0, 1), as a share of T.
    stop: the reverse process ends with that much noise left, a level as of noise_augmentation; the
    image is stored noisy, its range made narrower, for a next stage whose parents are truncated.
    truncated: parents are such images of the level that noise_augmentation names (Ho et al. 2022,
    section 3.2), which gets no noise more.
    temperature: of VQ-VAE-2's codes, drawn from softmax(logits / temperature); of
    "masked-autoregressive", what a diffusion's noise is multiplied by. The papers' is 1.
    classifier: guidance by a classifier of noisy images, of generators that take it.
    black_point: grey levels up to this one become black, 0, in the finished image. For sets with a
    background that is exactly black, which no network says exactly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal[
        "ddpm",
        "ddim",
        "dpm-solver++",
        "euler",
        "heun",
        "euler-maruyama",
        "heun-euler",
        "mean-flow",
        "edm",
        "next-scale",
        "masked-autoregressive",
        "native",
        "truncation",
    ] = "ddpm"
    steps: Annotated[int, Field(gt=0)] = 1000
    guidance: Annotated[float, Field(ge=0)] = 1.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    threshold: Literal["none", "static", "dynamic"] = "static"
    dynamic_percentile: Annotated[float, Field(gt=0, le=1)] = 0.995
    noise_augmentation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    truncation: Annotated[float, Field(gt=0, le=1)] | None = None
    black_point: Annotated[int, Field(ge=0, lt=255)] = 0
    spacing_power: Annotated[float, Field(gt=0, le=4)] = 1.0
    guidance_interval: tuple[Share, Share] | None = None
    time_shift: Annotated[float, Field(gt=0)] | None = None
    classifier: ClassifierGuidance | None = None
    stop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    truncated: bool = False
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    diffusion_steps: Annotated[int, Field(gt=0, le=1000)] | None = None

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if self.gamma != 0 and self.method != "ddpm":
            raise ValueError(f"gamma = {self.gamma} has no effect on {self.method}, only on ddpm")
        if self.eta != 0 and self.method != "ddim":
            raise ValueError(f"eta = {self.eta} has no effect on {self.method}, only on ddim")
        if (self.truncation is not None) != (self.method == "truncation"):
            raise ValueError("truncation goes with method = 'truncation', and only with it")
        if self.black_point and (self.threshold != "static" or self.method not in PIXEL_METHODS):
            raise ValueError(
                "black_point is of images: it goes with threshold = 'static' and a method among "
                + ", ".join(PIXEL_METHODS)
            )
        if self.time_shift is not None and self.method not in ODE_METHODS:
            raise ValueError("time_shift goes with a method among " + ", ".join(ODE_METHODS))
        if self.spacing_power != 1 and self.method not in PIXEL_METHODS:
            raise ValueError("spacing_power goes with a method among " + ", ".join(PIXEL_METHODS))
        self._check_interval()
        self._check_codes()
        self._check_denoising()
        return self

    def _check_denoising(self) -> None:
        """Of settings that networks alone have which denoise images."""
        if self.method not in PIXEL_METHODS and (self.classifier is not None or self.stop):
            name = "stop" if self.classifier is None else "classifier"
            raise ValueError(f"{name} goes with a method among {', '.join(PIXEL_METHODS)}")
        if self.stop and self.black_point:
            raise ValueError("stop leaves noise in an image: black_point has no effect on it")
        if self.temperature != 1 and self.method not in ("native", MASKED):
            raise ValueError(f"temperature is of codes: it has no effect on {self.method}")
        if self.truncated and self.noise_augmentation == 0:
            raise ValueError("truncated goes with the noise_augmentation that parents stopped at")

    def _check_codes(self) -> None:
        if self.method == NEXT_SCALE and self.steps != 1:
            raise ValueError(f"{NEXT_SCALE} goes over a network's own scales: steps = 1")
        if self.method != NEXT_SCALE and (self.top_k or self.top_p):
            raise ValueError(f"top_k and top_p go with method = {NEXT_SCALE!r}")
        if (self.diffusion_steps is not None) != (self.method == MASKED):
            raise ValueError(f"diffusion_steps goes with method = {MASKED!r}, and only with it")

    def _check_interval(self) -> None:
        if self.guidance_interval is None:
            return
        if self.method not in WITH_INTERVAL or self.guidance == 1:
            raise ValueError(
                "guidance_interval goes with a guidance other than 1 and a method among "
                + ", ".join(WITH_INTERVAL)
            )
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(f"guidance_interval: {low} is not below {high}")

    @model_serializer(mode="wrap")
    def _newer_settings_where_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Named only where set: a release built before there was a choice keeps its fingerprint."""
        content: dict[str, Any] = dump(self)
        for name in LATER:
            if getattr(self, name) == type(self).model_fields[name].default:
                del content[name]
        return content

    @property
    def network_evaluations(self) -> int:
        """Network evaluations an image takes, those that guidance takes included."""
        return self.own_evaluations + self.guiding_evaluations

    @property
    def own_evaluations(self) -> int:
        """Of the network, told the class."""
        if self.method in ("truncation", NEXT_SCALE):
            return 1
        times = self._call_times()
        return self.steps if times is None else len(times)

    @property
    def guiding_evaluations(self) -> int:
        """Unconditional ones, or of a stage's guide.

        ValueError where a noise schedule decides: guided_steps of steps.py knows them.
        """
        if not self.guides:
            return 0
        if self.interval_of_steps:
            raise ValueError("a noise schedule decides at which steps guidance acts")
        times = self._call_times()
        if times is None:
            return self.own_evaluations
        return sum(acts_at(self.guidance_interval, t) for t in times)

    @property
    def guides(self) -> bool:
        """Whether guidance costs evaluations."""
        return self.guidance != 1 and self.method not in ("truncation", MEAN_FLOW)

    @property
    def interval_of_steps(self) -> bool:
        """Whether guidance acts at some of a noise schedule's steps, which only that tells."""
        return self.guidance_interval is not None and self.method in PIXEL_METHODS

    def _call_times(self) -> list[float] | None:
        """Of each call on a linear path, from 0, noise, to 1, data; None for other methods, which
        call once a step."""
        if self.method == EDM:
            return [flow_time(sigma) for sigma in edm_calls(self.steps)]
        if self.method not in FLOW_METHODS:
            return None
        return flow_times(self.method, self.steps, self.time_shift)
