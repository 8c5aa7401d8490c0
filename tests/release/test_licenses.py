"""The licence in a release's YAML is one that the Hub has a word for, or "other" with a name."""

import pytest

from release.layout.readme import _license_fields


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ("mit", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("unknown", {"license": "unknown"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("openrail++", {"license": "openrail++"}),
        ("DeepFloyd IF (gated)", {"license": "other", "license_name": "deepfloyd-if-gated"}),
        ("©", {"license": "other", "license_name": "stated-in-the-card"}),
    ],
)
def test_the_hub_knows_the_license_or_is_told_its_name(stated: str, fields: dict[str, str]) -> None:
    assert _license_fields(stated) == fields
