"""Reading a recipe that a person wrote as TOML: by name from a folder of ours, or from a file."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from generation.errors import UserError, unknown_name

Model = TypeVar("Model", bound=BaseModel)


def load_toml(model: type[Model], kind: str, folder: Path, source: str) -> Model:
    """`source` as `model`: a file if it ends in .toml, else `folder`/SOURCE.toml.

    Raises UserError, one line, for an unknown name, bad TOML, or a field that does not fit.
    """
    path = Path(source) if source.endswith(".toml") else folder / f"{source}.toml"
    if not path.is_file():
        if source.endswith(".toml"):
            raise UserError(f"{kind} {source} does not exist")
        raise unknown_name(kind, source, (p.stem for p in folder.glob("*.toml")))
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{kind} {path} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind
        raise UserError(f"{kind} {path}: {where}: {first['msg']}") from None
