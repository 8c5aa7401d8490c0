"""Kinds of faults through the commands: the end is an undisturbed build's, byte for byte.

Those that no other test has; benchmarks/trust/fault_campaign.py tries all of them at five moments.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.campaigns.fault_kinds import IMAGES, KINDS, PER_CLASS, Site
from tests.conftest import release_bytes, run


@pytest.fixture(scope="module")
def site(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    release = tmp_path_factory.mktemp("undisturbed") / "release"
    command = ["build-dataset", "--recipe", stand_in_recipe, "--per-class", str(PER_CLASS)]
    assert run([*command, "--out", release, "--workers", "1"]).returncode == 0
    site = Site(tmp_path_factory.mktemp("site"), stand_in_recipe, release)
    yield site
    site.close()


@pytest.mark.parametrize(
    "name",
    [
        "killed between stages",
        "Ctrl-C",
        "Ctrl-C twice",
        "stage crashes on a shard",
        "flipped byte",
        "two builds at once",
        "object store failing",
        "killed half-way at an object store",
    ],
)
def test_the_end_is_that_of_an_undisturbed_build(site: Site, tmp_path: Path, name: str):
    kind, most_twice = KINDS[name]
    site.fault()
    site.forget()
    release = tmp_path / "release"
    kind(site, release, Random(name))
    assert release_bytes(release) == release_bytes(site.undisturbed)
    made = site.made()
    if len(set(made)) == IMAGES:  # else a finished release was harmed
        assert len(made) - IMAGES <= most_twice
    else:
        assert len(made) <= most_twice
