"""Settings of results, on one level."""

from typing import Any

Settings = dict[str, Any]


def flatten(prefix: str, value: Any) -> Settings:
    """Nested settings as one level: {"a": {"b": 1}} becomes {"a.b": 1}."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: Settings = {}
    for key, inner in value.items():
        flat |= flatten(f"{prefix}.{key}", inner)
    return flat
