"""JSON that a program of ours wrote."""

import json
from pathlib import Path
from typing import Any

from release.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file that a program wrote; UserError if it is cut or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is cut or damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is cut or damaged: it holds no JSON object")
    return content
