"""Statistics of other tools: mean and covariance in npz files, read and written.

pytorch-fid and EDM write mu and sigma; the ADM evaluator adds mu_s and sigma_s, those of sFID, and
may keep the images beside them, which are not read. None of them says how many images there were.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from generation.commit import sha256_file, write_atomically
from generation.errors import UserError
from metrics.frechet import GaussianReference

FIELDS = {"moments": ("mu", "sigma"), "spatial_moments": ("mu_s", "sigma_s")}


@dataclass(frozen=True)
class ReferenceFile:
    """states: by family of metric states. name: what its values are called after.

    n: images behind the statistics, None where the file does not say. protocol_sha256: that of
    the features, where this project wrote the file.
    """

    name: str
    sha256: str
    states: dict[str, GaussianReference]
    n: int | None
    protocol_sha256: str | None

    def require_protocol(self, sha256: str) -> None:
        """UserError if the file says that its features are others."""
        if self.protocol_sha256 not in (None, sha256):
            raise UserError(
                f"--reference {self.name} holds features of protocol {self.protocol_sha256[:12]}, "
                f"not of {sha256[:12]}: extractor, weights or resize rule differ"
            )


def read_reference_file(path: Path) -> ReferenceFile:
    """Raises UserError for a file without mu and sigma, or whose shapes do not fit together."""
    if not path.is_file():
        raise UserError(f"--reference {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as stored:
            wanted = {"n", "protocol_sha256", *(name for pair in FIELDS.values() for name in pair)}
            found = {name: stored[name] for name in wanted & set(stored.files)}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"--reference {path} is not an npz file of numbers: {error}") from None
    n = int(found["n"]) if "n" in found else None
    states = {
        family: _gaussian(path, found[mean], found[covariance], n)
        for family, (mean, covariance) in FIELDS.items()
        if mean in found and covariance in found
    }
    if "moments" not in states:
        raise UserError(f"--reference {path} has no mu and sigma; it has {sorted(found)}")
    return ReferenceFile(
        name=re.sub(r"\W+", "_", path.stem),
        sha256=sha256_file(path),
        states=states,
        n=n,
        protocol_sha256=str(found["protocol_sha256"]) if "protocol_sha256" in found else None,
    )


def _gaussian(
    path: Path, mean: np.ndarray, covariance: np.ndarray, n: int | None
) -> GaussianReference:
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"--reference {path}: mean of shape {mean.shape}, covariance of {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"--reference {path}: its statistics are not finite")
    return GaussianReference(n or 0, mean, covariance)


def write_reference_file(
    path: Path, states: Mapping[str, GaussianReference], protocol_sha256: str
) -> None:
    """As the ADM evaluator and pytorch-fid read it, with n and the protocol's hash beside."""
    arrays: dict[str, np.ndarray] = {}
    for family, (mean, covariance) in FIELDS.items():
        if family in states:
            arrays[mean] = states[family].mean
            arrays[covariance] = states[family].covariance
            arrays["n"] = np.array(states[family].n)
    content = BytesIO()
    np.savez(content, allow_pickle=False, **arrays, protocol_sha256=np.array(protocol_sha256))
    write_atomically(path, content.getvalue())
