"""README and docs: each command in them is understood, and docs/imagenet.md has its own figures.

Nothing runs here but dry runs. Commands like those of docs/imagenet.md run on all 1000 classes of a
miniature in tests/rehearsal/test_rehearsal.py, those of docs/own-images.md in
tests/cards/test_trial.py, those of docs/consuming.md in tests/cards/test_consuming_examples.py.
"""

import importlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from release.commands import command
from tests.conftest import ROOT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = {target.split(":")[0]: name for name, target in SCRIPTS.items()}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = ROOT / "docs" / "imagenet.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def lines(document: Path) -> Iterator[list[str]]:
    """The words of each command of ours in a document's sh blocks."""
    for block in BLOCK.findall(document.read_text()):
        for line in block.replace("\\\n", " ").replace("$seed", "0").splitlines():
            for part in re.split(r"&&|\|", line):
                words = shlex.split(part.rstrip(" &"), comments=True)
                if "…" not in words and (found := _ours(words)):
                    yield found


def _ours(words: list[str]) -> list[str] | None:
    """From the command's name on, where it is one of ours, also as `-m MODULE`."""
    for i, word in enumerate(words):
        name = MODULES.get(word) if words[i - 1] == "-m" else word.removeprefix(".venv/bin/")
        if name in SCRIPTS and not (i and words[0] in ("python", "pip")):
            return [name, *words[i + 1 :]]
        if "=" not in word and words[0] not in ("accelerate", "torchrun", "setsid", "nohup"):
            return None
    return None


@pytest.fixture(scope="module")
def parsers() -> Callable[[str], Any]:
    """The parser of a command, by its name."""
    found: dict[str, Any] = {}

    def parser(name: str) -> Any:
        if name not in found:
            module, function = SCRIPTS[name].split(":")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(command, "_run", lambda *given: found.update({name: given}))
                getattr(importlib.import_module(module), function)()
            found[name] = command._parser(*(*found[name], None)[:2])
        return found[name]

    return parser


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_is_understood(
    document: Path, parsers: Callable[[str], Any]
) -> None:
    for name, *words in lines(document):
        parser = parsers(name)
        try:
            context = parser.make_context(name, list(words))
            if hasattr(parser, "commands"):
                parser.commands[words[0]].make_context(words[0], words[1:], parent=context)
        except Exception as error:
            if type(error).__name__ != "Exit":  # of an option that prints and leaves
                raise AssertionError(f"{document.name}: {shlex.join([name, *words])}") from error


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *ROOT.glob("[AC]*.md")], ids=lambda path: path.name
)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_commands_are_found() -> None:
    found = [words[0] for words in lines(GUIDE)]
    assert found.count("build-dataset") == 5
    assert found.count("finetune-generator") == 3  # one of them through accelerate
    assert {"release", "score-release", "train-classifier", "run-study", "leaderboard"} < {*found}


@pytest.mark.parametrize(
    ("start", "figures"),
    [
        ("finetune-generator --recipe imagenet-if-64 --dry-run", ["2,608", "69 GB", "17.2"]),
        ("finetune-generator --recipe imagenet-if-256 --dry-run", ["6,531.5"]),
        ("build-dataset --res 256 --per-class 1300 --compare", ["104", "117", "8,076"]),
        ("build-dataset --recipe imagenet-ldm-256 --per-class 1300 --dry-run", ["104.2", "170 GB"]),
    ],
)
def test_the_guides_figures_are_those_of_its_dry_runs(
    start: str,
    figures: list[str],
    parsers: Callable[[str], Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = next(words for words in lines(GUIDE) if shlex.join(words).startswith(start))
    parsers(words[0])(args=words[1:], standalone_mode=False)
    told = capsys.readouterr().out
    assert all(figure in told for figure in figures), told
