"""What a manifest says of how its images were made, as far as its shape goes.

Every key may be missing: whoever needs one says so. What is there has the type that readers count
on, so that a manifest which was tampered with ends in one line. The content stays a plain dict:
keys that later versions add are kept.
"""

from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from release.files.formats import Encoding

Regime = Literal["A", "B", "C"]
REGIMES = {
    "A": "the generator never saw the data set",
    "B": "the generator was trained or fine-tuned on the data set",
    "C": "the generator is conditioned on real images of the data set",
}
Count = Annotated[int, Field(strict=True, ge=0, lt=2**48)]  # of images, of bytes of a file
Resolution = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
# of a training view: never that of a resolution, which is a number
ViewName = r"^([0-9]+[_-]|[0-9]*[A-Za-z])[A-Za-z0-9_-]*$"
# folders of a release that are no configuration's
OWN_FOLDERS = ("markers", "sidecars", "rejections", "quarantine", "lease", "_earlier")
TAKEN = frozenset({*OWN_FOLDERS, "index", "latents", "halfway"})
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


class AcceptOrigin(TypedDict, total=False):
    """How a stage's images were judged; see builder/accept/."""

    attempts: Required[Count]
    rule: str
    settings: dict[str, Any]
    sha256: str


class SamplerOrigin(TypedDict, total=False):
    """Sampler settings, see generation/diffusion/sampler_config.py; a setting
    that is not named here has its type there."""

    method: Required[str]
    steps: Required[Count]


class BaseOrigin(TypedDict):
    """Another model of a stage: what its checkpoint was fine-tuned from, or its guide."""

    checkpoint: str
    sha256: str


class ExemplarOrigin(TypedDict):
    """Real images that a stage began from, builder/exemplars/; sha256: of the release's content."""

    release: str
    sha256: str
    config: str
    split: Literal["train", "fit"]
    per_class: Annotated[int, Field(strict=True, gt=0, lt=2**31)]
    strength: Annotated[float, Field(strict=True, gt=0, le=1)]


class ExecutionOrigin(TypedDict):
    """How a stage's networks ran, where a build chose it: builder/planning/batch_and_compile.py."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    batch: Annotated[int, Field(strict=True, gt=0, lt=2**31)]
    compile: bool
    basis: str


class StageOrigin(TypedDict, total=False):
    """A stage as it was built. fine_tuned_from: of a checkpoint that says what it came from.
    guide: the network that guidance led away from. exemplars: what it began from. execution: where
    the build chose it. precision: where the recipe chose it."""

    resolution: Required[Resolution]
    generator: str
    checkpoint: str
    checkpoint_sha256: str
    fine_tuned_from: BaseOrigin
    guide: BaseOrigin
    exemplars: ExemplarOrigin
    execution: ExecutionOrigin
    precision: Literal["fp8"]
    sampler: SamplerOrigin
    encoding: Encoding
    fingerprint: str
    accept: AcceptOrigin


class CostOrigin(TypedDict, total=False):
    """What the recipe says an image of a stage takes: of a device, or nothing but its memory."""

    seconds: float
    hardware: str


class RecipeStageOrigin(TypedDict, total=False):
    """A stage of the recipe, as far as people are told of it."""

    resolution: Resolution
    generator: str
    checkpoint: str
    sampler_source: str
    model: dict[str, Any] | None
    regime: Regime | None
    cost: CostOrigin | None


class RecipeOrigin(TypedDict, total=False):
    """The recipe; builder/builds/planned.py reads it as a whole."""

    name: str
    description: str
    license_note: str
    stage: list[RecipeStageOrigin]


class RequestOrigin(TypedDict):
    """One request of those that the release grew by."""

    classes: list[str]
    per_class: Count


class EnvironmentOrigin(TypedDict):
    """What shards were made with."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    device: str
    versions: dict[str, str]


class TrainingViewOrigin(TypedDict):
    """A configuration of images that were made smaller; see release/layout/training_views.py."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Annotated[str, Field(pattern=ViewName)]
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    size: Resolution
    rule: Literal["short-side"]
    encoding: Literal["jpeg"]
    quality: Annotated[int, Field(strict=True, ge=1, le=100)]
    subsampling: Subsampling
    codec: Annotated[str, Field(pattern=r"^[A-Za-z0-9 .,+-]{1,100}$")]  # names and versions


class Origin(TypedDict, total=False):
    """Of a synthetic release: recipe, stages, requests; of a real one: source and rules."""

    # built when it is first asked: commands that read no manifest start sooner
    __pydantic_config__ = ConfigDict(defer_build=True)  # type: ignore[misc]

    recipe: RecipeOrigin
    stages: list[StageOrigin]
    requests: list[RequestOrigin]
    source: str
    crop_rule: str
    tuning_rule: str
    test_rule: str
    environments: list[EnvironmentOrigin]
    quarantined_shards: dict[str, str]
    waiting_shards: list[str]
    training_views: list[TrainingViewOrigin]


ORIGIN = TypeAdapter(Origin)
