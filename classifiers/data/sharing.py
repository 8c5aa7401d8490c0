"""An index that one process reads and all of its machine map: of several that accelerate started.

Twelve million images take a gigabyte, and where an index has to be made, hours.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from classifiers.data.encoded import EncodedImages
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

Counts = TypeVar("Counts")


def launched_processes() -> "PartialState":
    """Of the processes that accelerate launched; of this one alone without it."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def read_once(read: Callable[[], tuple[EncodedImages, Counts]]) -> tuple[EncodedImages, Counts]:
    """What `read` gives the first process of each machine; a UserError of it is raised by all."""
    from accelerate.utils import gather_object

    processes = launched_processes()
    if processes.num_processes == 1:
        return read()
    own: tuple[EncodedImages, Counts] | UserError | None = None
    if processes.is_local_main_process:
        try:
            images, counts = read()
            own = images.mapped_alone(), counts
        except UserError as error:
            own = error
    answers = gather_object([own])
    found = own or answers[processes.process_index - processes.local_process_index]
    if isinstance(found, UserError):
        raise found
    return found
