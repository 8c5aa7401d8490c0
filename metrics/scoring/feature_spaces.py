"""FDr-k: one release scored in several feature spaces, as one result."""

from collections.abc import Sequence
from typing import Any

from metrics.scoring.result_values import ScoredValue
from metrics.states.frechet_ratio import Ratio, mean_ratio
from release.commands.validation import validated
from release.files.commit import canonical_json
from release.results.result import Result, environment

METRIC = "fdr"
SHARED = ("labels", "reference_n", "reference_sha256", "held_out_sha256")


def by_subject(results: Sequence[Result]) -> list[list[Result]]:
    """Of each split that was scored its results, one a feature space, in the order of their names.

    Those alone that say FDr; a split with fewer than two of them is left out.
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        if ratio_keys(result):
            found.setdefault(canonical_json(result.subject), []).append(result)
    return [sorted(own, key=_extractor) for own in found.values() if len(own) > 1]


def over_spaces(results: Sequence[Result]) -> Result:
    """Their mean, of results of one subject against the same real images."""
    first = results[0]
    features = {
        "extractor": " + ".join(map(_extractor, results)),
        "spaces": [result.protocol["features"] for result in results],
    }
    keys = [key for key in ratio_keys(first) if all(key in other.values for other in results)]
    return Result(
        kind=first.kind,
        dataset=first.dataset,
        subject=first.subject,
        protocol=first.protocol | {"features": features},
        reference=first.reference,
        values={key: _mean(key, results) for key in keys},
        environment=environment(),
    )


def ratio_keys(result: Result) -> list[str]:
    """Names of its values of FDr, such as fdr_test."""
    return [key for key in result.values if key.startswith(f"{METRIC}_")]


def _mean(key: str, results: Sequence[Result]) -> dict[str, Any]:
    values = [result.values[key] for result in results]
    settings = values[0]["settings"] | {"spaces": len(results)}
    value = {
        **mean_ratio([Ratio.read(value) for value in values]),
        "metric": METRIC,
        "settings": settings,
        **{name: values[0][name] for name in SHARED},
        "images_per_dimension": min(value["images_per_dimension"] for value in values),
        "by_space": [
            {"extractor": _extractor(result), "value": value["value"]}
            for result, value in zip(results, values, strict=True)
        ],
    }
    return validated(ScoredValue, value, f"{key} over {len(results)} feature spaces").content()


def _extractor(result: Result) -> str:
    return str(result.protocol["features"]["extractor"])
