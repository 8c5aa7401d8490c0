"""What a training keeps on disk: written whole, durable, and with a checksum that readers compare.

States are torch's files with a line after their end. Weights are safetensors whose checksum stands
in the header; equal weights make equal bytes.
"""

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.errors import UserError
from release.files.commit import sha256_bytes, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

STATE_ERRORS = (  # what torch.load raises for other files and for parts of one
    *(RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    pickle.UnpicklingError,
)
TRAILER = b"\nsha256 "
TRAILER_LENGTH = len(TRAILER) + 64
CHECKSUM = "content_sha256"  # in the header of weights
ALIGNMENT = 8  # of the tensors in a safetensors file


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Keep tensors and plain values, to go on from; torch.load reads the file, too."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    digest = sha256_bytes(buffer.getbuffer())
    buffer.seek(0, io.SEEK_END)
    buffer.write(TRAILER + digest.encode())
    write_atomically(path, buffer.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """What write_state kept, on the CPU; UserError if the file is damaged or another."""
    import torch

    stored = memoryview(path.read_bytes())
    content, trailer = stored[:-TRAILER_LENGTH], bytes(stored[-TRAILER_LENGTH:])
    if not trailer.startswith(TRAILER):
        raise _no_state(path, "it is cut off, or another file")
    if trailer[len(TRAILER) :] != sha256_bytes(content).encode():
        raise _no_state(path, "it is damaged: its checksum does not fit")
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except STATE_ERRORS as error:
        raise _no_state(path, (str(error).splitlines() or [type(error).__name__])[0]) from None
    return found


def _no_state(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not the state of a training: {reason}; remove it to begin anew")


def weights_to_bytes(tensors: "Mapping[str, Tensor]", header: Mapping[str, str]) -> bytes:
    """A safetensors file with `header` in its metadata and a checksum beside.

    safetensors itself writes metadata in an order that differs from run to run.
    """
    from safetensors.torch import save

    content = save(dict(tensors), metadata=dict(header))
    entries, data = _parted(content)
    entries["__metadata__"][CHECKSUM] = _checksum(entries, data)
    text = json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data


def read_weights(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file, on the CPU.

    UserError if it cannot be read, does not fit its own checksum, where it has one (files of
    others and of before have none), or holds numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from None
    entries, data = _parted(content)
    stated = entries.get("__metadata__", {}).pop(CHECKSUM, None)
    if stated is not None and stated != _checksum(entries, data):
        raise UserError(f"{path} is damaged: its weights do not fit their checksum")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: {name} holds numbers that are not finite")
    return tensors


def _parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _checksum(entries: Mapping[str, Any], data: bytes) -> str:
    """Of names, shapes, words and numbers alike."""
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return sha256_bytes(sha256_bytes(text.encode()).encode() + sha256_bytes(data).encode())
