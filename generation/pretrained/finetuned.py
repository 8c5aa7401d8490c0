"""What a fine-tuned checkpoint says of itself: its family, its precision, what it came from.

Nothing here imports torch. The file stands beside the weights and is written last: a folder without
it is no checkpoint.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from generation.pretrained.diffusers_folder import HUB_NAME
from release.errors import UserError
from release.files.commit import write_atomically

FINE_TUNED = "finetuned.json"


class Base(BaseModel):
    """The model that a training started from, whose frozen parts go on being used.

    checkpoint: its folder or file, or its name on the Hub with the commit that was fetched. sha256:
    of all of it; text_sha256: of its text encoder and tokenizer, None where it has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    sha256: str
    text_sha256: str | None = None


class FineTuned(BaseModel):
    """generator: the family that samples it. resolution: of its images, in px. precision: in which
    its networks run on a GPU, that of their training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generator: str
    resolution: PositiveInt
    precision: Literal["float32", "bfloat16", "float16"]
    base: Base

    def write(self, folder: Path) -> None:
        """Into `folder`, whole."""
        write_atomically(folder / FINE_TUNED, (self.model_dump_json(indent=2) + "\n").encode())


def fine_tuned(folder: Path) -> FineTuned | None:
    """What `folder` says; None if it holds no such checkpoint, UserError if it is damaged."""
    path = folder / FINE_TUNED
    if not path.is_file():
        return None
    try:
        content = FineTuned.model_validate_json(path.read_bytes())
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is cut or damaged: {reason}") from None
    return content


def lasting_name(checkpoint: str, place: Path) -> str:
    """What to call a model so that others find the same one: the Hub's name with the commit that
    was fetched, or the absolute path of what is on this machine."""
    hub = None if Path(checkpoint).exists() else HUB_NAME.fullmatch(checkpoint)
    if hub is None:
        return str(place.resolve())
    commit = place.name if place.parent.name == "snapshots" else hub["revision"]
    return hub["repo"] if commit is None else f"{hub['repo']}@{commit}"
