"""Which results may stand in one ranking, and why others may not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from release.errors import UserError
from release.files.commit import canonical_json
from release.results.result import Result

TESTED = "test_images_sha256"  # among the values of a classifier's result


def require_comparable(results: Sequence[Result], value: str) -> None:
    """Raises UserError with the reason unless `value` means the same in all `results`.

    The same data set, protocol (extractor, weights, resize rule …), reference images, metric
    settings, and number of images: distances and scores are biased by how many there are.
    """
    for result in results:
        if value not in result.values:
            raise UserError(f"{_name(result)} has no value {value!r}")
        if value not in numbers(result):
            raise UserError(
                f"{value} of {_name(result)} is not one number, so it cannot be compared"
            )
    tested = tested_images(results)
    results = [replace(result, reference=reference_of(result, tested)) for result in results]
    for what, read in (_OF_THE_RESULT | _OF_THE_VALUE).items():
        first = read(results[0], value)
        for other in results[1:]:
            if canonical_json(read(other, value)) != canonical_json(first):
                raise UserError(
                    f"{value} of {_name(results[0])} and {_name(other)} cannot be compared: "
                    f"{what} {_difference(first, read(other, value))}"
                )


def tested_images(results: Iterable[Result]) -> dict[str, str]:
    """What classifiers were tested on, images_sha256 by release, configuration and split.

    From the results that state it, for those of before that name the same release by its content,
    which decides the pixels. Nothing of a release whose images two results state differently.
    """
    found: dict[str, set[str]] = {}
    for result in results:
        if (images := result.values.get(TESTED)) is not None:
            found.setdefault(_stored(result), set()).add(images)
    return {stored: images.pop() for stored, images in found.items() if len(images) == 1}


def reference_of(result: Result, tested: Mapping[str, str]) -> dict[str, Any]:
    """Its reference, the same for the same images where it is known which they are.

    All but classifiers' identify theirs by pixels in content_sha256, whatever its release is
    called. Of a classifier's result the hash of the test images stands in place of the release's
    name and content, which other views, layouts and machines change.
    """
    if result.kind != "classifier":
        return {k: v for k, v in result.reference.items() if k != "name"}
    images = result.values.get(TESTED) or tested.get(_stored(result))
    if images is None:
        return result.reference
    kept = {k: v for k, v in result.reference.items() if k not in ("name", "content_sha256")}
    return kept | {"images_sha256": images}


def _stored(result: Result) -> str:
    """Where its reference is stored."""
    return canonical_json([result.reference.get(k) for k in ("content_sha256", "config", "split")])


def numbers(result: Result) -> list[str]:
    """The names of its values that are one number; the others are remarks and tables."""
    return [k for k, v in result.values.items() if isinstance(v, dict) and "value" in v]


def difference_interval(first: dict[str, Any], second: dict[str, Any]) -> list[float] | None:
    """95% interval of `second` less `first`, of sets drawn apart from each other.

    Their half-widths add up in squares. None unless both have an interval.
    """
    intervals = [entry["interval"] for entry in (first, second) if entry.get("interval")]
    if len(intervals) < 2:
        return None
    half = sum(((high - low) / 2) ** 2 for low, high in intervals) ** 0.5
    difference = second["value"] - first["value"]
    return [difference - half, difference + half]


def value_settings(result: Result, value: str) -> dict[str, Any]:
    """What two numbers called `value` must share beyond what their results say of all of theirs."""
    return {what: read(result, value) for what, read in _OF_THE_VALUE.items()}


def _reference(result: Result, value: str) -> dict[str, Any]:
    """The real images that `value` was measured against or tested on; none for a score of a set
    by itself."""
    if result.kind == "scores" and "reference_n" not in result.values[value]:
        return {}
    stated = {"images_sha256", "content_sha256", "config", "split"}
    if "reference_sha256" in result.values[value]:  # of the very split, or file
        stated.remove("content_sha256")
    return {k: v for k, v in result.reference.items() if k in stated}


_OF_THE_RESULT: dict[str, Callable[[Result, str], Any]] = {
    "kind": lambda result, _: result.kind,
    "data set": lambda result, _: result.dataset,
    "protocol": lambda result, _: result.protocol,
    "reference": _reference,
}
_OF_THE_VALUE: dict[str, Callable[[Result, str], Any]] = {
    "metric settings": lambda result, value: result.values[value].get("settings"),
    "reference images": lambda result, value: result.values[value].get("reference_sha256"),
    "held-out images": lambda result, value: result.values[value].get("held_out_sha256"),
    "reference n": lambda result, value: result.values[value].get("reference_n"),
    "n": lambda result, value: result.values[value].get("n"),
}


def _name(result: Result) -> str:
    subject = result.subject
    own = subject.get("name") or subject.get("system")  # of scores, and of evaluations
    return str(own or " + ".join(part["name"] for part in subject["train"]))


def _difference(first: Any, second: Any) -> str:
    """The entries that differ, as "a: 1 against 2"."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return f"{first} against {second}"
    one, two = _flat(first), _flat(second)
    keys = sorted(k for k in one.keys() | two.keys() if one.get(k) != two.get(k))
    return "; ".join(f"{key}: {one.get(key)} against {two.get(key)}" for key in keys)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in nested.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat
