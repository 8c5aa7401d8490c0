"""What the values of a "classifier" result hold."""

from pydantic import Field

from release.results.values import Interval, Part, Share, Value


class Accuracy(Value):
    """A share in [0, 1] of n test images."""

    value: Share
    n: int


class ClassAccuracy(Part):
    """Top-1 within one class, of n test images."""

    wnid: str
    name: str
    n: int
    top1: Share
    interval: Interval | None = None


class Source(Part):
    """One split of one release: what was scored, or a part of what a network learned from.

    weight: how often an epoch visited its images. classes: ids, where only some were taken.
    """

    name: str
    content_sha256: str
    config: str
    split: str
    images: int
    kind: str
    regime: str | None = None
    weight: float = 1.0
    classes: tuple[str, ...] = ()


class ClassifierValues(Part):
    """cas: whether it learned from generated images alone; steps: of the optimiser.

    top5 and per_class may be missing: a set of two classes has no top-5. predictions_sha256,
    classifier_sha256: of the files beside the result, the latter where it was saved;
    test_images_sha256: of the test images by their pixels and classes
    (images_sha256). Results of before do not say them.
    """

    cas: bool | None = None
    steps: int | None = None
    top1: Accuracy
    top5: Accuracy | None = None
    per_class: tuple[ClassAccuracy, ...] = Field(default=())
    predictions_sha256: str | None = None
    test_images_sha256: str | None = None
    classifier_sha256: str | None = None
