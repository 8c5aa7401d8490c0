"""Values of a result: checked by the model that readers use, written as the metric gave them."""

import numpy as np
import pytest

from metrics.scoring.scoring import _checked
from release.errors import UserError


def test_a_value_is_written_with_all_that_its_metric_says() -> None:
    value = {"value": np.float64(1.5), "n": 3, "interval": None, "settings": {"buckets": 10}}
    (written,) = _checked({"fd_train": value}, "made:8:train").values()
    assert written == {"value": 1.5, "n": 3, "interval": None, "settings": {"buckets": 10}}


@pytest.mark.parametrize("value", [{"n": 3}, {"value": float("nan"), "n": 3}])
def test_what_is_no_number_is_one_line(value: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^fd_train of made:8:train: value"):
        _checked({"fd_train": value}, "made:8:train")
