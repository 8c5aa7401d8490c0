"""README and docs: each command in them is understood, and docs/imagenet.md has its own figures.

Nothing runs here but dry runs. Commands like those of docs/imagenet.md run on all 1000 classes of a
miniature in tests/rehearsal/test_rehearsal.py, those of docs/own-images.md in
tests/cards/test_trial.py, those of docs/consuming.md in tests/cards/test_consuming_examples.py.
"""

import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.planning.recipe import BUILTIN, load_recipe
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


def test_the_guided_recipe_of_comparing_is_guided(tmp_path: Path) -> None:
    """By the sed of its first block: the base alone, and its source says so."""
    block = BLOCK.findall((ROOT / "docs/comparing.md").read_text())[0]
    change = block[block.index("sed ") : block.index("> guided.toml")]
    made = tmp_path / "guided.toml"
    made.write_bytes(
        subprocess.run(change, shell=True, cwd=ROOT, check=True, capture_output=True).stdout
    )
    before, after = load_recipe("fashion-mnist"), load_recipe(str(made))
    assert (before.stages[0].sampler.guidance, after.stages[0].sampler.guidance) == (1.5, 3.0)
    assert after.stages[0].sampler_source == "guidance 3, by hand"
    assert (after.name, after.stages[1:]) == ("guided", before.stages[1:])


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
    assert found.count("build-dataset") == 7
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


def test_the_guides_recipe_follows_from_its_table(tmp_path: Path) -> None:
    text = (BUILTIN / "imagenet-if.toml").read_text()
    changes = re.findall(r"^\|[^|]*\| `([^|`]+)` \| `([^|`]+)` \|$", GUIDE.read_text(), re.M)
    assert len(changes) == 6
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after, 1)
    text = re.sub(r"\[\[stage.published\]\]\n(.+\n){3}", "", text, count=1)
    for side in (256, 1024):
        text = text.replace(f"resolution = {side}\n", f'resolution = {side}\nregime = "A"\n')
    path = tmp_path / "own-if.toml"
    path.write_text(text)
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.regime) == ("own-if", "B")
    assert [stage.regime for stage in recipe.stages] == [None, "A", "A"]
    assert recipe.stages[0].checkpoint == "runs/if-64/checkpoint"
    assert not recipe.stages[0].published


def test_the_counts_told_of_the_study_are_those_of_its_report() -> None:
    study = json.loads((ROOT / "results/fashion-mnist/study/report.json").read_text())
    answers: dict[tuple[str, str, str], Counter[str]] = {}
    for row in (*study["findings"], *study["comparisons"]):
        for budget in (row["budget"], "both"):
            key = (row.get("finding") or row["question"], budget, row["model"])
            answers.setdefault(key, Counter())[row["answer"]] += 1

    def told(asked: str, budget: str, answer: str, classifier: str = "small") -> str:
        found = answers[asked, budget, f"fashion-mnist-{classifier}"]
        return f"{found[answer]} of {found.total()}"

    added = "2: real + generated is above real"
    epochs = told(added, "epochs", "reproduced")
    updates = told(added, "steps", "not reproduced")
    control = "real + generated is above the same real images visited as often"
    repeated = told(control, "epochs", "below")
    readme = (ROOT / "README.md").read_text()
    assert f"At equal epochs yes, in {epochs} cases" in readme
    assert f"better still in {repeated.replace('of', 'of the')}" in readme
    assert f"significant in {updates} cases" in readme
    text = (ROOT / "docs/studies.md").read_text()
    alone = "2: generated alone stays below real"
    for figure in (
        f"reproduced in {told(alone, 'epochs', 'reproduced')} (",
        f"| in {told(alone, 'epochs', 'reproduced', 'vit')} (",
        f"reproduced in {epochs} (",
        f"| in {told(added, 'epochs', 'reproduced', 'vit')} (",
        f"not reproduced in {updates} (",
        f"reproduced in {told(added, 'steps', 'reproduced', 'vit')} (",
        f"below in {repeated} (",
        f"above in {told(control, 'epochs', 'above', 'vit')} (",
        f"above in {told('whole is above same', 'both', 'above')} (",
    ):
        assert figure in text, figure
