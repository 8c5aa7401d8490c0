"""What several processes that accelerate started share: an index, and what they agree on.

An index is read by one process, and all of its machine map it.

Twelve million images take a gigabyte, and where an index has to be made, hours.
"""

from collections.abc import Callable
from typing import TypeVar

from generation.training.processes import launched_processes
from release.errors import UserError
from release.streaming.encoded import EncodedImages

Counts = TypeVar("Counts")


def true_of_all(answer: bool) -> bool:
    """Whether it is true of every process; each asks, and each gets the same."""
    from accelerate.utils import gather_object

    return answer if launched_processes().num_processes == 1 else all(gather_object([answer]))


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
