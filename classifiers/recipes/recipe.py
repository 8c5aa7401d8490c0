"""A classifier recipe: all that decides how a classifier is trained, as its author writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generation.networks.timm_classifier import ClassifierModel, Positive
from generation.training.config import OptimizerName, RateName
from release.commands.toml_recipes import load_toml, recipe_names_in
from release.errors import UserError

BUILTIN = Path(__file__).parent

MOST_EPOCHS = 100_000
MOST_IMAGES = 1 << 20  # of a batch
Share = Annotated[float, Field(ge=0, le=1)]
# Settings that came later: a protocol names them only where they are used, so that it stays equal
# to that of results from before.
LATEST_AUGMENTATION = ("colour_distortion", "blur")
LATER_AUGMENTATION = (
    *("resized_crop", "rand_augment", "repeats", "erasing_fill"),
    *LATEST_AUGMENTATION,
)
LATEST = (
    "objective",
    "simclr",
    "mixing",
    "teacher",
)  # a saved classifier names these, too, only where they are used
LATER = ("position", "precision", "clip", "start", "view", "micro_batch", *LATEST)
Fill = Literal["mean", "noise"]


class Augmentation(BaseModel):
    """What is done to each training batch; the default is nothing.

    shift: pixels up to which an image moves along each axis, `border` filling what is uncovered.
    flip: mirror left to right, one image in two. erasing: probability that a random rectangle is
    replaced (Zhong et al. 2020), by the mean or, as erasing_fill says, by normal noise. mixup,
    cutmix: the Beta distribution's parameter (Zhang et al. 2018, Yun et al. 2019), 0 for none; with
    both, each batch gets one of them. resized_crop: least and greatest share of the image's area in
    a crop of aspect 3/4 to 4/3 that is scaled to the resolution (Szegedy et al. 2015), in place of
    shift. rand_augment: timm's name of a policy, such as rand-m9-mstd0.5-inc1 (Cubuk et al. 2020).
    repeats: how often an image comes in a row, each time augmented anew; an epoch then sees so many
    fewer (Hoffer et al. 2020). colour_distortion: strength of SimCLR's, blur: probability of its
    Gaussian blur (Chen et al. 2020, A).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shift: Annotated[int, Field(ge=0)] = 0
    border: Literal["black", "reflect"] = "black"
    flip: bool = False
    erasing: Share = 0.0
    erasing_fill: Fill = "mean"
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    resized_crop: tuple[Share, Share] | None = None
    rand_augment: Annotated[str, Field(pattern=r"^(rand(-[a-z]+[a-z0-9.]*)*)?$")] = ""
    repeats: Positive = 1
    colour_distortion: Share = 0.0
    blur: Share = 0.0

    @property
    def one_by_one(self) -> bool:
        """Whether images are augmented singly, as Pillow images, before they form a batch."""
        singly = self.rand_augment != "" or self.colour_distortion > 0 or self.blur > 0
        return singly or self.resized_crop is not None

    @model_validator(mode="after")
    def _check(self) -> "Augmentation":
        if self.resized_crop is not None:
            if not 0 < self.resized_crop[0] <= self.resized_crop[1]:
                raise ValueError("resized_crop needs two shares of the area, the smaller one first")
            if self.shift:
                raise ValueError("give shift or resized_crop, not both")
        return self


class View(BaseModel):
    """How an image of another size than the recipe's is brought to it.

    crop_share: side of the central square that is kept over the short side, which is scaled to
    resolution / crop_share first; 0.875 is the usual "resize 256, crop 224". Used for testing, and
    for training without resized_crop. interpolation: of every resizing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


DEFAULT_VIEW = View()


class Mixing(BaseModel):
    """How real and generated images are mixed, where a training set has both; by default they are
    one set. A training set of one kind is not touched.

    share: of each batch that is generated; the real ones and the generated ones then have epochs of
    their own. real_last: share of the steps, the last ones, that see real images alone. batch_norm:
    "separate" gives the generated half of each batch statistics and weights of its own, which are
    left out of the trained network (auxiliary batch normalisation, Xie et al. 2020, section 4.2).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    real_last: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_norm: Literal["shared", "separate"] = "shared"

    @model_validator(mode="after")
    def _check(self) -> "Mixing":
        if self.batch_norm == "separate" and (self.share != 0.5 or self.real_last):
            raise ValueError('batch_norm = "separate" goes with share = 0.5, and without real_last')
        if self.share == 1 and not self.real_last:
            raise ValueError("share = 1 leaves real images out: it goes with real_last")
        return self


POOLED = Mixing()


class Simclr(BaseModel):
    """Of the objective "simclr" (Chen et al. 2020): the loss's temperature, and the widths of the
    projection head; hidden is by default that of the features."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: Annotated[float, Field(gt=0)] = 0.5
    hidden: Positive | None = None
    projection: Positive = 128


DEFAULT_SIMCLR = Simclr()


class Teacher(BaseModel):
    """What another classifier, `train-classifier --teacher`, says of each image as it is seen, with
    its augmentation, is learned beside its class (Hinton et al. 2015).

    weight: share of the loss. temperature: both sides' logits are divided by it, and the loss
    multiplied by its square, so that gradients stay as large.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0


class ClassifierRecipe(ClassifierModel):
    """A classifier and its training.

    description: what it is; sources: where its settings come from; expected: its real-only
    accuracy; cost: what a training takes. micro_batch: images that a device takes at once, the
    gradients of a batch's parts being added up; batch normalisation sees one part at a time.
    warmup: share of all steps in which the learning rate rises. Weight decay spares biases and
    normalisation. ema: decay of the averaged weights, which are then the result; 0 for none.
    precision: of the network's activations. clip: greatest norm of the gradient, 0 for none. start:
    the recipe whose trained classifier this one goes on from. objective: "labels" learns classes;
    "simclr" learns features without labels, and beside them a linear classifier of these features.
    """

    description: str
    sources: tuple[str, ...] = ()
    expected: str = ""
    cost: str = ""
    start: str | None = None
    epochs: Annotated[float, Field(gt=0, le=MOST_EPOCHS)]
    batch: Annotated[int, Field(gt=0, le=MOST_IMAGES)]
    micro_batch: Positive | None = None
    optimizer: OptimizerName
    momentum: Share = 0.9
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: RateName = "cosine"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    clip: Annotated[float, Field(ge=0)] = 0.0
    augmentation: Augmentation = Augmentation()
    view: View = DEFAULT_VIEW
    mixing: Mixing = POOLED
    objective: Literal["labels", "simclr"] = "labels"
    simclr: Simclr = DEFAULT_SIMCLR
    teacher: Teacher | None = None

    @model_validator(mode="after")
    def _check(self) -> "ClassifierRecipe":
        if self.augmentation.shift >= self.resolution:
            raise ValueError(f"augmentation.shift must be less than {self.resolution} pixels")
        between = self.augmentation.mixup or self.augmentation.cutmix
        if self.mixing.batch_norm == "separate" and (between or self.micro_batch):
            raise ValueError(
                'mixing.batch_norm = "separate" takes halves of a batch apart: without mixup, '
                "cutmix and micro_batch"
            )
        share = self.mixing.share
        if share is not None and share < 1 and not 0 < round(share * self.batch) < self.batch:
            raise ValueError(f"mixing.share = {share:g} of {self.batch} is no image, or all")
        if self.objective == "simclr":
            self._check_views()
        elif self.simclr != DEFAULT_SIMCLR:
            raise ValueError('[simclr] is of objective = "simclr"')
        return self

    def _check_views(self) -> None:
        """Two views of each image in one batch, and labels that reach the last layer alone."""
        if self.augmentation.repeats != 2 or self.batch % 2 or self.batch < 4:
            raise ValueError(
                'objective = "simclr" compares two views of each image: set augmentation.repeats = '
                "2, and batch, which counts views, to an even number of 4 or more"
            )
        if self.augmentation.mixup or self.augmentation.cutmix:
            raise ValueError('objective = "simclr" mixes no images: leave mixup and cutmix out')
        if self.teacher is not None:
            raise ValueError('objective = "simclr" learns no labels: leave teacher out')
        if self.mixing != POOLED:
            raise ValueError('objective = "simclr" has one set of images: leave mixing out')
        if self.clip:
            raise ValueError(
                'objective = "simclr" takes no clip: the norm would carry labels to the features'
            )
        if self.micro_batch is not None and self.micro_batch < self.batch:
            raise ValueError(
                'objective = "simclr" compares all views of a batch: leave micro_batch out'
            )

    def protocol(self) -> dict[str, Any]:
        """Every setting that decides the result; not what is said about it."""
        words = {"name", "description", "sources", "expected", "cost"}
        settings = self.model_dump(mode="json", exclude=words)
        _drop_defaults(settings, self, LATER)
        if self.micro_batch is not None and self.micro_batch >= self.batch:
            del settings["micro_batch"]
        _drop_defaults(settings["augmentation"], self.augmentation, LATER_AUGMENTATION)
        return settings

    def record(self) -> str:
        """As JSON beside weights: the bytes of a classifier that needs no newer field stay."""
        unused: dict[str, Any] = dict.fromkeys(_at_default(self, LATEST), True)
        unused["augmentation"] = set(_at_default(self.augmentation, LATEST_AUGMENTATION))
        return self.model_dump_json(exclude=unused)


def _at_default(model: BaseModel, names: Sequence[str]) -> list[str]:
    fields = type(model).model_fields
    return [name for name in names if getattr(model, name) == fields[name].default]


def _drop_defaults(settings: dict[str, Any], model: BaseModel, names: Sequence[str]) -> None:
    for name in _at_default(model, names):
        del settings[name]


def recipe_names() -> list[str]:
    """The built-in recipes, sorted."""
    return recipe_names_in(BUILTIN)


def load_recipe(source: str, changes: Sequence[str] = ()) -> ClassifierRecipe:
    """A built-in recipe by name, or a TOML file; UserError names what is wrong in it.

    A file may name another recipe as its `base` and hold only what differs. changes: settings such
    as "epochs=10" or "augmentation.mixup=0.2", in TOML's notation, that replace the recipe's.
    """
    recipe = load_toml(ClassifierRecipe, "classifier recipe", BUILTIN, source, changes)
    name, dot, tag = recipe.model.partition(".")
    if dot and not recipe.model_args.get("pretrained"):
        raise UserError(
            f"classifier recipe {recipe.name}: model {recipe.model!r}: {tag!r} names trained "
            f"weights, but a training starts from random ones: give {name!r}, or "
            "model_args.pretrained = true to start from those weights"
        )
    return recipe
