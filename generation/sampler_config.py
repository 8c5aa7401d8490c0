"""Sampler settings, apart from the sampler so that reading a recipe needs no torch."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Prediction = Literal["epsilon", "v", "x0"]


class SamplerConfig(BaseModel):
    """Sampler settings, named as in Azizi et al. 2023 and Saharia et al. 2022.

    method: "ddpm" is ancestral sampling (Ho et al. 2020), "ddim" Song et al. 2021 with `eta`,
    "dpm-solver++" the second-order multistep solver 2M of Lu et al. 2022 (algorithm 2).
    guidance: w in uncond + w * (cond - uncond); w = 1 runs no unconditional pass.
    gamma: log-variance coefficient, logvar = gamma*log(beta) + (1 - gamma)*log(beta~).
    noise_augmentation: how much noise the low-resolution input gets, in [0, 1), as a share of T.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["ddpm", "ddim", "dpm-solver++"] = "ddpm"
    steps: Annotated[int, Field(gt=0)] = 1000
    guidance: Annotated[float, Field(ge=0)] = 1.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    threshold: Literal["none", "static", "dynamic"] = "static"
    dynamic_percentile: Annotated[float, Field(gt=0, le=1)] = 0.995
    noise_augmentation: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if self.gamma != 0 and self.method != "ddpm":
            raise ValueError(f"gamma = {self.gamma} has no effect on {self.method}, only on ddpm")
        if self.eta != 0 and self.method != "ddim":
            raise ValueError(f"eta = {self.eta} has no effect on {self.method}, only on ddim")
        return self

    @property
    def network_evaluations(self) -> int:
        """Network evaluations an image takes, the unconditional ones included."""
        return self.steps * (1 if self.guidance == 1 else 2)
