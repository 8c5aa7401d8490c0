"""Result files: a measured number together with all it takes to know what it means."""

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from release.commands.validation import reason
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text, write_atomically

PACKAGES = ("torch", "diffusers", "timm", "datasets", "pyarrow", "numpy", "scipy", "pillow")


@dataclass(frozen=True)
class Result:
    """One measurement of one release.

    kind: "scores" (distances, Inception Score) or "classifier" (accuracy; CAS if the training
    set is synthetic). dataset: name of the real data set it is about; only results on one data
    set may share a ranking. subject: what was measured. protocol: every setting two results
    must share to be compared. values: the numbers, each with n and interval where it has one.
    """

    kind: str
    dataset: str
    subject: dict[str, Any]
    protocol: dict[str, Any]
    reference: dict[str, Any]
    values: dict[str, Any]
    seeds: dict[str, int] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def protocol_sha256(self) -> str:
        return sha256_text(canonical_json(self.protocol))

    def write(self, path: Path) -> None:
        """With the hash of its protocol, and in `result_sha256` that of all else in the file."""
        content = {**asdict(self), "protocol_sha256": self.protocol_sha256}
        _require_finite(path, content)
        content["result_sha256"] = _sha256_of(content)
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(path, text.encode())


def _require_finite(path: Path, content: Any, name: str = "") -> None:
    """UserError that names a number which JSON does not know."""
    if isinstance(content, float) and not math.isfinite(content):
        raise UserError(f"{path}: {name.removeprefix('.')} is {content}, which is no result")
    if isinstance(content, dict):
        for key, value in content.items():
            _require_finite(path, value, f"{name}.{key}")
    if isinstance(content, list | tuple):
        for i, value in enumerate(content):
            _require_finite(path, value, f"{name}[{i}]")


def read_result(path: Path) -> Result:
    """Raises UserError if `path` is no result file or was changed after it was written.

    Results of before the hash of all their content are taken without it.
    """
    try:
        content = json.loads(path.read_text())
        _require_finite(path, content)
        whole = content.pop("result_sha256", None)
        found = _sha256_of(content)
        stated = content.pop("protocol_sha256")
        result = TypeAdapter(Result).validate_python(asdict(Result(**content)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is not a result file: {place}: {reason(first)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a result file: {error}") from None
    if stated != result.protocol_sha256:
        raise UserError(f"{path}: the protocol was changed after the result was written")
    if whole not in (None, found):
        raise UserError(f"{path} was changed after it was written: it does not fit its own hash")
    return result


def _sha256_of(content: dict[str, Any]) -> str:
    """Of the content as it comes back from a file, where all names are text."""
    return sha256_text(canonical_json(json.loads(json.dumps(content))))


def environment() -> dict[str, Any]:
    """Versions and hardware of this process. cpu_capability: the vector instructions that torch's
    kernels take, such as "AVX2"; they decide how fast bfloat16 is."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": device_kind(),
        "versions": versions,
    }


def device_kind() -> str:
    """Name of the GPU torch would use, else "cpu"."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
