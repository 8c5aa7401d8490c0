"""A stranger with a published release: each thing its card prints is run as printed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from cards.render_card import publication_day
from release.layout.image_index import is_index
from release.layout.manifest import read_manifest
from tests.builder.accept.red_rule import RED
from tests.builder.release.hub_environment import environment
from tests.cards.tiny_card import a_result, a_score
from tests.conftest import STAND_IN_RECIPE, state_facts
from tests.conftest import run as run_anew
from tests.forked_commands import run
from tests.servers.hub_server import Hub

REPO = "someone/colours"
DAY = "2026-01-02"
TRUST = ("--trust", "tests.stand_in", "--trust", "tests.stand_in_rule")


@pytest.fixture(scope="module")
def built(class_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages; the first keeps reddish images only. As build-dataset left it."""
    folder = tmp_path_factory.mktemp("consumer")
    text = state_facts(STAND_IN_RECIPE.format(classes=class_list))
    recipe = folder / "colours.toml"
    recipe.write_text(text.replace('checkpoint = "8"\n', 'checkpoint = "8"\n' + RED))
    build = ["build-dataset", "--recipe", recipe, "--per-class", "8", "--out", folder / "colours"]
    done = run([*build, "--workers", "1"])
    assert done.returncode == 0, done.stderr
    return folder / "colours"


@pytest.fixture(scope="module")
def release(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its card for the Hub."""
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("rendered") / "colours"))
    done = run(["render-card", folder, "--repo", REPO, "--published", DAY])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "colours"))


@pytest.fixture(scope="module")
def hub(
    release: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Hub, dict[str, str]]]:
    """A Hub to which the release was published, and the environment that finds it."""
    state = Hub()
    server, address = state.serve()
    found = environment(address, tmp_path_factory.mktemp("home"))
    found["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    published = run_anew(["release", "publish", release, REPO], **found)
    assert published.returncode == 0, published.stderr
    yield state, found
    server.shutdown()
    server.server_close()


def blocks(release: Path, language: str) -> list[str]:
    text = (release / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_card_passes_the_hubs_and_datasets_reading(
    release: Path, hub: tuple[Hub, dict[str, str]]
) -> None:
    card = DatasetCard((release / "README.md").read_text(), ignore_metadata_errors=False)
    assert "synthetic" in card.data.tags
    assert card.data.license == "mit"
    assert card.text.strip().startswith("# colours")
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    assert list(configs) == list(infos) == ["8", "16", "32"]
    validated = "import sys, huggingface_hub as h; h.DatasetCard(sys.stdin.read()).validate()"
    done = subprocess.run(
        [sys.executable, "-c", validated],
        input=str(card),
        env=hub[1],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_snippet_loads_what_it_says(
    release: Path, hub: tuple[Hub, dict[str, str]], number: int, tmp_path: Path
) -> None:
    snippet = blocks(release, "python")[number]
    rows, side = int(re.search(r"# train (\d+)", snippet)[1]), 8 << number
    check = "print(images['train'].num_rows, *images['train'][0]['image'].size)"
    done = subprocess.run(
        [sys.executable, "-c", f"{snippet}\n{check}"],
        cwd=tmp_path,
        env=hub[1] | {"HF_HOME": str(tmp_path / "home")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(rows), str(side), str(side)], done.stderr
    assert rows == read_manifest(release).rows(str(side), "train")


def test_download_verify_and_reproduce_as_printed(
    release: Path, hub: tuple[Hub, dict[str, str]], tmp_path: Path
) -> None:
    state, found = hub
    assert {"croissant.json", "samples.png"} <= state.published(REPO).keys()
    download, commands = blocks(release, "sh")
    done = subprocess.run(
        ["sh", "-e", "-c", download + commands],
        cwd=tmp_path,
        env=found,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "colours: intact" in done.stdout
    assert "3 of 3 images have the same pixels" in done.stdout
    assert (tmp_path / "colours" / "rejections" / "8").is_dir()


def test_20_random_images_come_out_the_same(release: Path) -> None:
    done = run(["release", "reproduce", release, "--sample", "20", "--seed", "1", "--json", *TRUST])
    images = json.loads(done.stdout)["images"]
    assert len({image["image_id"] for image in images}) == 20
    assert all(image["same_bytes"] for image in images)


def test_a_changed_document_is_found_and_rendered_again(copy: Path) -> None:
    before = (copy / "croissant.json").read_bytes()
    (copy / "croissant.json").write_bytes(before.replace(b"mit", b"gpl"))
    found = run(["release", "verify", copy])
    assert found.returncode == 1
    assert "croissant.json: was changed: its SHA-256 is not the manifest's" in found.stdout
    assert run(["render-card", copy, "--repo", REPO, "--published", DAY]).returncode == 0
    assert (copy / "croissant.json").read_bytes() == before
    assert run(["release", "verify", copy]).returncode == 0


def test_what_a_card_said_of_fewer_images_goes_when_they_grow(copy: Path) -> None:
    grown = run(["release", "extend", copy, "--per-class", "9", "--workers", "1", *TRUST])
    assert grown.returncode == 0, grown.stderr
    assert not {"croissant.json", "samples.png"} & {path.name for path in copy.iterdir()}
    documents = read_manifest(copy).documents
    assert {name for name in documents if not is_index(name)} == {"README.md"}
    assert run(["release", "verify", copy]).returncode == 0


def test_what_does_not_belong_is_one_line_and_changes_nothing(copy: Path, tmp_path: Path) -> None:
    other = replace(read_manifest(copy), shards=read_manifest(copy).shards[:1])
    other.write(tmp_path / "other" / "colours")
    a_result(tmp_path / "other" / "colours", 0.5).write(tmp_path / "results" / "cas.json")
    before = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    refused = {
        "is about another colours": ["--results", tmp_path / "results"],
        "is not a folder of result files": ["--results", tmp_path / "nowhere"],
        "is no name on the Hub: give OWNER/NAME": ["--repo", "colours"],
        "'tomorrow' is no date: give YYYY-MM-DD": ["--published", "tomorrow"],
    }
    for text, options in refused.items():
        one_line(copy, text, options)
    a_score(copy).write(tmp_path / "results" / "cas.json")
    one_line(
        copy,
        "has no accuracies of classifiers about colours: run `train-classifier --train colours",
        ["--results", tmp_path / "results"],
    )
    assert before == {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"license": "mit"', '"license": "cc0"'))
    one_line(copy, "manifest.json was changed after it was written", [])


def one_line(release: Path, text: str, options: list[str | Path]) -> None:
    done = run(["render-card", release, *options])
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert text in done.stderr


def test_the_day_of_a_card_is_that_of_the_first(release: Path) -> None:
    assert publication_day(release, read_manifest(release), None).isoformat() == DAY
