"""The parts that results and reports are made of, as they stand in JSON."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]


class Part(BaseModel):
    """A piece of a result or report. Written as it was made: what was not said is left out.

    What a reader does not know of another version is passed over.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class Value(Part):
    """A number with the count it was taken over and, where it has one, its 95% interval."""

    value: float
    n: int | None = None
    interval: Interval | None = None


class Report(Part):
    """A document that stands for the result files below its folder.

    Its `kind` says which; path: the file that it was read from, no part of it.
    """

    path: Path = Field(Path(), exclude=True)
