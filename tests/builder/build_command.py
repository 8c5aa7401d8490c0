"""The command that builds a small release."""

from pathlib import Path


def build(recipe: Path, out: Path | str, per_class: int = 4) -> list[Path | str]:
    options = ["--per-class", str(per_class), "--out", out, "--workers", "1", "--json"]
    return ["build-dataset", "--recipe", recipe, *options]
