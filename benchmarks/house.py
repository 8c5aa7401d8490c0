"""What the code is like as a house: full folders, cycles of folders, functions, imports of tests,
and how many files its two main lines are (the tables of ARCHITECTURE.md).

    python benchmarks/house.py
    python benchmarks/house.py --root ../another-checkout --json

Counts the Python files that git tracks; folders are a package's direct children.
"""

import argparse
import ast
import json
import re
import statistics
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx

PACKAGES = ("release", "generation", "builder", "classifiers", "metrics", "cards")
MOST_FILES = 15  # of one folder


def tracked(root: Path) -> list[Path]:
    """Python files that git knows, relative to `root`."""
    command = ["git", "ls-files", "*.py"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in names.split() if (root / name).is_file()]


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names of what a file imports, lazily or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def folder_of(module: str) -> str | None:
    """`package.folder` of a module of ours that lies in a folder."""
    package, *rest = module.split(".")
    return f"{package}.{rest[0]}" if package in PACKAGES and len(rest) > 1 else None


def cycles(trees: dict[Path, ast.Module]) -> list[list[str]]:
    """Folders of one package that need each other, as groups."""
    graph = networkx.DiGraph()
    for file, tree in trees.items():
        here = folder_of(".".join(file.with_suffix("").parts))
        for name in imported(tree):
            there = folder_of(f"{name}.x")  # a folder itself counts as one of its files
            if here and there and here != there:
                graph.add_edge(here, there)
    return [sorted(g) for g in networkx.strongly_connected_components(graph) if len(g) > 1]


def function_lines(trees: dict[Path, ast.Module]) -> list[tuple[int, str]]:
    """(lines, name) of every function outside the tests."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        ((node.end_lineno or 0) - node.lineno + 1, f"{file}::{node.name}")
        for file, tree in trees.items()
        if file.parts[0] in PACKAGES
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def main_lines(root: Path) -> dict[str, list[Path]]:
    """Files of each main line in order, by its table's title."""
    text = (root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tables = text.split("## Two main lines", 1)[1].split("\n## ", 1)[0].strip().split("\n\n")
    return {
        table.split("|", 2)[1].strip(): [
            Path(name) for name in re.findall(r"`([\w/]+/\w+\.py)`", table)
        ]
        for table in tables
    }


def skipped(line: list[Path], root: Path) -> list[Path]:
    """Files of a main line that none before them imports: there a reader has to search.

    A family's generator is reached by the name that a recipe has for it.
    """
    found, known = [], {str(line[0].with_suffix("")).replace("/", ".")}
    for file in line:
        if str(file.with_suffix("")).replace("/", ".") not in known and "FAMILY" not in file.parts:
            found.append(file)
        if "FAMILY" not in file.parts:
            known |= set(imported(ast.parse((root / file).read_text(encoding="utf-8"))))
    return found


def measure(root: Path) -> dict[str, Any]:
    """The figures of one checkout."""
    sources = {file: (root / file).read_text(encoding="utf-8") for file in tracked(root)}
    trees = {file: ast.parse(text) for file, text in sources.items()}
    lengths = sorted(function_lines(trees))
    from_tests: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees.items():
        for name in imported(tree):
            if name.startswith("tests.") and ".test_" in f".{name.split('tests.', 1)[1]}":
                from_tests[str(file)].append(name)
    files = Counter(str(f.parent) for f in sources if f.name != "__init__.py")
    ours = [text for file, text in sources.items() if file.parts[0] in PACKAGES]
    return {
        "files_of_main_lines": {k: len(line) for k, line in main_lines(root).items()},
        "folders_over_15_files": {k: n for k, n in files.items() if n > MOST_FILES},
        "cycles_between_folders": cycles(trees),
        "imports_from_tests": from_tests,
        "lines_outside_tests": sum(text.count("\n") for text in ours),
        "functions": len(lengths),
        "median_function": statistics.median(n for n, _ in lengths),
        "longest_function": lengths[-1],
        "functions_over_60_lines": [name for n, name in lengths if n > 60],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    found = measure(arguments.root)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):24} {value or 'none'}")


if __name__ == "__main__":
    main()
