"""What stands beside the shards: harmed documents are noticed, intact ones are left alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from builder.builds.estimate import measured_cost
from builder.builds.finish import finish_release
from builder.release.verify import verify_release
from cards.render_card import write_card
from release.layout.manifest import read_manifest
from release.layout.shard_commit import sidecar_name
from release.lease import claimed
from tests.conftest import release_bytes
from tests.forked_commands import run


@pytest.fixture(scope="module")
def built(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("documents") / "release"
    result = run(
        ["build-dataset", "--recipe", stand_in_recipe, "--per-class", "3", "--out", release]
    )
    assert result.returncode == 0, result.stderr
    return release


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "release"))


def with_card(release: Path) -> Path:
    """A body below the load contract and a picture, as render-card writes them."""
    contract = (release / "README.md").read_text().split("---\n")[1]
    readme = f"---\n{contract}---\n\n# A card\n".encode()
    write_card(release, read_manifest(release), {"samples.png": b"picture", "README.md": readme})
    return release


def problems(release: Path) -> list[str]:
    report = verify_release(release, read_manifest(release), 2, lambda _: None)
    return [str(problem) for problem in report.problems]


def rebuild(release: Path) -> None:
    """The end of a build that found every shard finished."""
    finish_release(release, replace(read_manifest(release), documents={}))


def test_repair_leaves_an_intact_card_where_the_first_shard_of_a_configuration_is_missing(
    release: Path,
):
    with_card(release)
    before = release_bytes(release)
    for config in ("8", "32"):
        first = next(s.path for s in read_manifest(release).shards if s.config == config)
        (release / first).unlink()
    assert run(["release", "repair", release, "--trust", "tests.stand_in"]).returncode == 0
    assert release_bytes(release) == before


@pytest.mark.parametrize("harm", [b"", b"---\nconfigs: []\n---\n"])
def test_a_rebuild_mends_a_readme_that_no_longer_loads(release: Path, harm: bytes):
    with_card(release)
    (release / "README.md").write_bytes(harm)
    rebuild(release)
    assert problems(release) == []
    assert (release / "samples.png").read_bytes() == b"picture"


def test_a_rebuild_leaves_what_a_person_wrote_below_the_load_contract(
    release: Path,
):
    text = (release / "README.md").read_text() + "\nMy own words.\n"
    (release / "README.md").write_text(text)
    rebuild(release)
    assert (release / "README.md").read_text() == text


@pytest.mark.parametrize("name", ["release.py", "dataset_infos.json", "state.json"])
def test_verify_names_a_file_that_keeps_load_dataset_from_reading(release: Path, name: str):
    (release / name).write_text("{}")
    assert problems(release) == [f"{name}: keeps load_dataset from reading the release"]


def test_a_script_deeper_in_a_release_is_no_problem(release: Path):
    (release / "notes").mkdir()
    (release / "notes" / "mine.py").write_text("")
    assert problems(release) == []


@pytest.mark.parametrize("content", ["[]", "5", '{"seconds": "long"}', '{"seconds": -1}', "\x80"])
def test_a_sidecar_that_tells_nothing_is_passed_over(release: Path, content: str):
    harmed, whole = read_manifest(release).shards[:2]
    (release / sidecar_name(harmed.path)).write_text(content, encoding="latin-1")
    (release / sidecar_name(whole.path)).write_text(json.dumps({"seconds": whole.rows * 2.0}))
    cost = measured_cost(release, [harmed, whole])
    assert cost is not None
    assert cost.seconds == 2.0
    assert measured_cost(release, [harmed]) is None


def test_a_card_leaves_no_temporary_files_of_a_killed_one(release: Path):
    litter = release / ".samples.png.0123.tmp"
    litter.write_bytes(b"half")
    with claimed(release):
        with_card(release)
    assert not litter.exists()
