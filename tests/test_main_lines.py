"""The two main lines of ARCHITECTURE.md can be followed from import to import."""

import runpy

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    "title", ["from a recipe to a shard", "from a release to its Fréchet distance"]
)
def test_each_file_of_a_main_line_is_imported_by_one_before_it(title: str) -> None:
    house = runpy.run_path(str(ROOT / "benchmarks/house.py"))
    line, skipped = house["main_lines"](ROOT)[title], house["skipped"]
    assert len(line) > 5
    assert skipped(line, ROOT) == []
    assert skipped([line[0], line[-2]], ROOT) == [line[-2]]  # a gap is seen
