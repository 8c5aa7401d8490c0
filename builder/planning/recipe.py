"""A recipe: the whole of what decides a release's images, as its author writes it (TOML)."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.exemplars.recipe import ExemplarRecipe
from builder.planning.model_facts import ModelFacts, PublishedScore, StageCost
from builder.planning.prompts import PromptRecipe
from generation.diffusion.sampler_config import PIXEL_METHODS, SamplerConfig, steps_made
from release.classes.class_list import load_classes
from release.commands.toml_recipes import load_toml
from release.errors import UserError
from release.files.formats import Encoding, ShardFormat
from release.layout.origin import Regime

BUILTIN = Path(__file__).parents[1] / "recipes"
MOST_ROWS = 1_000_000  # of a shard
PARENT_ENCODING: Encoding = "webp-lossless"
Positive = Annotated[int, Field(gt=0)]


class AcceptRecipe(BaseModel):
    """Which images of a stage are kept; the others are tried again from seeds of their own.

    rule: a built-in accept rule or a dotted module; all other fields are that rule's own. Without
    one only images that the generator itself refuses are rejected. attempts: images a slot may
    cost before it stays empty (quarantined).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    rule: str | None = None
    attempts: Annotated[int, Field(ge=1, le=2**15)] = 8

    @property
    def settings(self) -> dict[str, Any]:
        """The rule's own fields."""
        return self.model_extra or {}

    @model_validator(mode="after")
    def _settings_have_a_rule(self) -> "AcceptRecipe":
        if self.rule is None and self.settings:
            raise ValueError(f"{next(iter(self.settings))} is a rule's setting: name the rule")
        return self


class GuideRecipe(BaseModel):
    """A weaker network of the stage's generator, which guidance leads away from.

    Autoguidance (Karras et al. 2024, arXiv 2406.02507): guide + w * (network - guide), w the
    sampler's guidance, both told the class. sha256: as of the stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    sha256: str | None = None


class StageRecipe(BaseModel):
    """One stage of the chain. sha256: the checkpoint's hash, refused if another is found.

    batch: images the network sees at once; fixed, so that pixels do not depend on grouping. A build
    on a GPU may choose another, and compiling (builder/planning/batch_and_compile.py).
    accept: the rule by which images are kept; by default all are.
    compile: run the networks compiled, faster after minutes of warming up; pixels differ slightly.
    precision: "fp8", where the model's authors publish it so (generation/networks/fp8/); by default
    that of its family.
    guide: what guidance leads away from; by default the network itself, told no class.
    exemplars: real images that sampling begins from, of a first stage; by default noise alone.
    For people, deciding no pixel and no fingerprint: regime, of this stage's model where it differs
    from the recipe's; sampler_source, model, cost, published.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Positive
    generator: str
    checkpoint: str
    sha256: str | None = None
    sampler: SamplerConfig = SamplerConfig()
    batch: Positive = 50
    accept: AcceptRecipe | None = None
    compile: bool = False
    # named in files only where they are set: manifests of before stay as they are
    precision: Annotated[Literal["fp8"] | None, Field(exclude_if=lambda value: value is None)] = (
        None
    )
    guide: Annotated[GuideRecipe | None, Field(exclude_if=lambda value: value is None)] = None
    exemplars: Annotated[ExemplarRecipe | None, Field(exclude_if=lambda value: value is None)] = (
        None
    )
    regime: Regime | None = None
    sampler_source: str = ""
    model: ModelFacts | None = None
    cost: StageCost | None = None
    published: tuple[PublishedScore, ...] = ()

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The network's, and its guide's where there is one."""
        return (self.checkpoint, *([] if self.guide is None else [self.guide.checkpoint]))

    @property
    def counted_sampler(self) -> SamplerConfig:
        """By which network evaluations are counted: its steps are those that are made."""
        if self.exemplars is None:
            return self.sampler
        steps = steps_made(self.sampler.steps, self.exemplars.strength)
        return self.sampler.model_copy(update={"steps": steps})

    @model_validator(mode="after")
    def _exemplars_have_a_method(self) -> "StageRecipe":
        if self.exemplars is not None and self.sampler.method not in PIXEL_METHODS:
            raise ValueError(
                f"[stage.exemplars] goes with a method among {', '.join(PIXEL_METHODS)}, not with "
                f"{self.sampler.method}"
            )
        return self

    @model_validator(mode="after")
    def _authors_allow_the_precision(self) -> "StageRecipe":
        if self.precision is not None and not (self.model and self.model.fp8):
            raise ValueError(
                'precision = "fp8" is for models whose authors publish them so: say where in '
                "[stage.model] fp8, or leave precision out"
            )
        return self

    @model_validator(mode="after")
    def _guidance_asks_the_guide(self) -> "StageRecipe":
        if self.guide is not None and self.sampler.guidance == 1:
            raise ValueError(
                "[stage.guide] has no effect at guidance 1: set the sampler's guidance, or leave "
                "the guide out"
            )
        return self


class ShardRecipe(BaseModel):
    """Size of a shard: a block of classes times a block of indices, classes interleaved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: Positive = 10
    indices: Positive = 25

    @model_validator(mode="after")
    def _fits_in_memory(self) -> "ShardRecipe":
        if self.classes * self.indices > MOST_ROWS:
            raise ValueError(
                f"a shard of {self.classes:,} classes x {self.indices:,} images is too large: "
                f"at most {MOST_ROWS:,} images, since a worker holds them in memory"
            )
        return self


class Recipe(BaseModel):
    """A release's recipe.

    classes: a built-in class list or a CSV. dataset: the real data set those classes come from.
    regime: a key of REGIMES. license: of the images, with what the model's licence says of sharing
    them.
    format: of the files, Parquet or Arrow IPC.
    prompts: several of each class; by default each has one, that of its list.
    encoding: of the stage that a build ends at; those before it, its parents, are always lossless.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str
    description: str
    classes: str
    dataset: str
    regime: Regime
    license: str
    license_note: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 2023
    encoding: Encoding = "webp-lossless"
    format: ShardFormat = "parquet"
    shard: ShardRecipe = ShardRecipe()
    # named in files only where it is set: manifests of before stay as they are
    prompts: Annotated[PromptRecipe | None, Field(exclude_if=lambda value: value is None)] = None
    stages: Annotated[tuple[StageRecipe, ...], Field(alias="stage", min_length=1)]

    @model_validator(mode="after")
    def _resolutions_rise(self) -> "Recipe":
        resolutions = [stage.resolution for stage in self.stages]
        if resolutions != sorted(set(resolutions)):
            raise ValueError(f"the stages' resolutions must rise, not {resolutions}")
        return self

    @model_validator(mode="after")
    def _exemplars_begin_the_chain(self) -> "Recipe":
        for position, stage in enumerate(self.stages):
            if stage.exemplars is None:
                continue
            if position:
                raise ValueError(
                    f"[stage.exemplars] at {stage.resolution} px: only a first stage begins from "
                    "exemplars, a later one from the images of the stage before"
                )
            regime = stage.regime or self.regime
            if regime != "C":
                raise ValueError(
                    f"[stage.exemplars] at {stage.resolution} px begins from real images: set "
                    f'regime = "C", not "{regime}"'
                )
        return self

    @model_validator(mode="after")
    def _regime_covers_the_stages(self) -> "Recipe":
        for stage in self.stages:
            if stage.regime is not None and stage.regime > self.regime:
                raise ValueError(
                    f"regime {self.regime} cannot hold for a chain whose stage at "
                    f"{stage.resolution} px is regime {stage.regime}"
                )
        return self

    def lossless(self) -> "Recipe":
        """The recipe for a release that others are made from."""
        return self.model_copy(update={"encoding": PARENT_ENCODING})

    def chain(self, resolution: int | None, option: str = "--res") -> tuple[StageRecipe, ...]:
        """The stages that lead to `resolution` (None: all); UserError if there is none.

        option: where the user named the resolution.
        """
        known = [stage.resolution for stage in self.stages]
        if resolution is not None and resolution not in known:
            raise UserError(
                f"recipe {self.name} has no stage at {option} {resolution}; "
                f"it has {', '.join(map(str, known))}"
            )
        last = known.index(resolution) if resolution is not None else len(known) - 1
        return self.stages[: last + 1]


def load_recipe(source: str) -> Recipe:
    """A built-in recipe by name, or a TOML file; UserError names what is wrong in it."""
    recipe = load_toml(Recipe, "recipe", BUILTIN, source)
    if recipe.prompts is None:
        return recipe
    prompts = recipe.prompts.complete(load_classes(recipe.classes), Path(source).parent)
    return recipe.model_copy(update={"prompts": prompts})
