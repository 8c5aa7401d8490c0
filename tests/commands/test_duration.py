"""How long something takes, in words."""

import pytest

from release.commands.duration import duration


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (45_333.3, "45,333.3 hours"),
        (12.34, "12.3 hours"),
        (3.44, "3.4 hours"),
        (0.5, "30.0 minutes"),
        (0.0211, "1.3 minutes"),
        (0.01, "36 seconds"),
        (0.0001, "0.36 seconds"),
        (0.0, "0 seconds"),
    ],
)
def test_a_duration_is_never_0_hours_of_something(hours: float, said: str) -> None:
    assert duration(hours) == said
