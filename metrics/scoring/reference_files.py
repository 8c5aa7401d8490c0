"""Statistics of other tools: mean and covariance in npz files, read and written.

pytorch-fid and EDM write mu and sigma; the ADM evaluator adds mu_s and sigma_s, those of sFID, and
may keep the images beside them, which are not read. None of them says how many images there were.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from metrics.states.frechet import GaussianReference
from release.errors import UserError
from release.files.commit import sha256_file, write_atomically

FIELDS = {"moments": ("mu", "sigma"), "spatial_moments": ("mu_s", "sigma_s")}


@dataclass(frozen=True)
class ReferenceFile:
    """states: by kind of metric states. name: what its values are called after, reference_STEM,
    so that none of them passes for one of a real split.

    n: images behind the statistics, None where the file does not say. protocol_sha256: that of
    the features, where this project wrote the file.
    """

    name: str
    sha256: str
    states: dict[str, GaussianReference]
    n: int | None
    protocol_sha256: str | None

    def require_features(self, sha256: str, dimensions: int) -> None:
        """UserError if the file's features are not those of this protocol and so many."""
        own = len(self.states["moments"].mean)
        if own != dimensions:
            raise UserError(
                f"--reference {self.name} is of features with {own} dimensions, the extractor's "
                f"have {dimensions}"
            )
        if self.protocol_sha256 not in (None, sha256):
            raise UserError(
                f"--reference {self.name} holds features of protocol {self.protocol_sha256[:12]}, "
                f"not of {sha256[:12]}: extractor, weights or resize rule differ"
            )


def read_reference_files(paths: Sequence[Path]) -> list[ReferenceFile]:
    """As read_reference_file; UserError for two whose values would have one name."""
    files = [read_reference_file(path) for path in paths]
    by_name: dict[str, Path] = {}
    for path, file in zip(paths, files, strict=True):
        if file.name in by_name:
            raise UserError(
                f"--reference {by_name[file.name]} and {path}: values of both would be called "
                f"fd_{file.name}; rename one"
            )
        by_name[file.name] = path
    return files


def read_reference_file(path: Path) -> ReferenceFile:
    """Raises UserError for a file without mu and sigma, or whose shapes do not fit together."""
    found = _read_arrays(path)
    n = _whole_number(path, found["n"]) if "n" in found else None
    states = {
        kind: _gaussian(path, found[mean], found[covariance], n)
        for kind, (mean, covariance) in FIELDS.items()
        if mean in found and covariance in found
    }
    if "moments" not in states:
        raise UserError(f"--reference {path} has no mu and sigma; it has {sorted(found)}")
    return ReferenceFile(
        name=re.sub(r"\W+", "_", f"reference_{path.stem}"),
        sha256=sha256_file(path),
        states=states,
        n=n,
        protocol_sha256=str(found["protocol_sha256"]) if "protocol_sha256" in found else None,
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Those of the file's arrays that are read here."""
    if not path.is_file():
        raise UserError(f"--reference {path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"--reference {path} is not an npz file, as np.savez writes it")
    wanted = {"n", "protocol_sha256", *(name for pair in FIELDS.values() for name in pair)}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in wanted & set(stored.files)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"--reference {path} is not an npz file of numbers: {error}") from None


def _whole_number(path: Path, array: np.ndarray) -> int:
    if array.shape != () or array.dtype.kind not in "iu" or array < 2:
        raise UserError(f"--reference {path}: n is {array}, not a number of images")
    return int(array)


def _gaussian(
    path: Path, mean: np.ndarray, covariance: np.ndarray, n: int | None
) -> GaussianReference:
    if {mean.dtype.kind, covariance.dtype.kind} - set("fiu"):
        raise UserError(f"--reference {path}: mean and covariance are no real numbers")
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
    for kind, (mean, covariance) in FIELDS.items():
        if kind in states:
            arrays[mean] = states[kind].mean
            arrays[covariance] = states[kind].covariance
            arrays["n"] = np.array(states[kind].n)
    content = BytesIO()
    np.savez(content, allow_pickle=False, **arrays, protocol_sha256=np.array(protocol_sha256))
    write_atomically(path, content.getvalue())
