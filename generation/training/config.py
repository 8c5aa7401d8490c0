"""Training settings, apart from the training so that reading a recipe needs no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

OptimizerName = Literal["adafactor", "adam", "adamw", "lamb", "momentum", "sgd"]
RateName = Literal["constant", "cosine", "inverse-square-root", "linear"]
WITH_BETAS = ("adam", "adamw", "lamb")  # optimizers that keep two moments
PrecisionName = Literal["float32", "float16", "bfloat16"]
PRECISION_NAMES: dict[str, PrecisionName] = {
    "no": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
# Settings that came later: a record names them only where they are used, so that a run whose record
# is of before goes on.
LATER = (
    *("schedule", "betas", "eps", "weight_decay", "clip"),
    *("sharding", "gradient_checkpointing", "compile"),
)
SHARDED = ("adam", "adamw", "momentum", "sgd")  # optimizers that go weight by weight
Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(BaseModel):
    """How a generator of any family is trained.

    batch: images an optimiser step sees, over all processes and accumulation steps together.
    optimizer: the paper's is adafactor for a base, adam for super-resolution. adafactor is torch's
    (Shazeer & Stern 2018): its step is relative to each weight's size, by `learning_rate` or, where
    that is less, 1/sqrt(step). sgd has Nesterov's momentum of 0.9, momentum the plain one.
    learning_rate rises over `warmup` steps, then follows `schedule`: it stays (constant), falls to
    zero along a half cosine (cosine) or a line (linear), or as 1/sqrt(step) (inverse-square-root).
    betas, eps: of adam, adamw and lamb; left out, the optimizer's own.
    weight_decay: of weights, not of biases and normalisation; L2 for adam, decoupled for adamw.
    clip: greatest norm of the gradient, 0 for none. ema: decay of the averaged weights.
    keep_every: steps between the averaged checkpoints that stay, to select from; 0 for none.
    sharding: "full" shares weights, average and optimizer state out over all processes (FSDP2);
    "none" keeps all of them in each. gradient_checkpointing: compute blocks again in the backward
    pass instead of keeping what is within them. compile: call the network through torch.compile.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=0)] = 64
    accumulation: Annotated[int, Field(gt=0)] = 1
    optimizer: OptimizerName = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 200
    schedule: RateName = "cosine"
    betas: tuple[Beta, Beta] | None = None
    eps: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["no", "fp16", "bf16"] = "no"
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 2023
    save_every: Annotated[int, Field(gt=0)] = 500
    keep_every: Annotated[int, Field(ge=0)] = 0
    sharding: Literal["none", "full"] = "none"
    gradient_checkpointing: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        for name in ("betas", "eps"):
            if getattr(self, name) is not None and self.optimizer not in WITH_BETAS:
                raise ValueError(
                    f"{name} has no effect on {self.optimizer}, only on {', '.join(WITH_BETAS)}"
                )
        return self

    @model_validator(mode="after")
    def _shards_are_enough(self) -> Self:
        if self.sharding == "none":
            return self
        if self.optimizer not in SHARDED:
            raise ValueError(
                f'{self.optimizer} looks at whole weights, which sharding = "full" keeps nowhere: '
                f"take one of {', '.join(SHARDED)}"
            )
        if self.precision == "fp16":
            raise ValueError('sharding = "full" goes with precision = "bf16" or "no"')
        return self

    @model_serializer(mode="wrap")
    def _later_ones_where_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        for name in LATER:
            if name in content and getattr(self, name) == type(self).model_fields[name].default:
                del content[name]
        return content
