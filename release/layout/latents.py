"""Latents of a release: what an autoencoder makes of its images, derived and made once.

A training of a latent model sees each image hundreds of times; to encode it each time costs more
than many a network. `release encode` keeps what follows from the image alone: the mean and the log
variance of its posterior. They stand in a folder of their own, RELEASE/latents/NAME, which is laid
out as a release: manifest.json, and CONFIG/SPLIT-*.parquet, a file for each of the release's own.
A row holds the image's id, label, class and, where the release marks such rows, tuning; and

moments     binary: numbers of `dtype`, little-endian, of the shape that Latents states

A file's fingerprint covers the hash of the file that it is made from and that of the autoencoder.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from release.classes.class_list import ClassEntry
from release.commands.validation import misfit
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.files.storage import ReleasePath
from release.layout.manifest import Manifest, ShardRecord
from release.layout.parquet import table_schema
from release.layout.shard_files import FORMAT, MOMENTS, shard_name

FOLDER = "latents"  # of a release: its sets of latents, a folder each
ORIGIN_KEY = "latents"  # of a manifest's origin
GROUP_BYTES = 64 << 20
COLUMNS = {"image_id": "string", "class_id": "string"}
Count = Annotated[int, Field(gt=0, lt=2**16)]


@dataclass(frozen=True)
class Latents:
    """What decides a set's bytes beside the images, and what its readers have to know.

    autoencoder: its folder or its name on the Hub; sha256: of its files. kind: AutoencoderKL or
    AutoencoderKLFlux2, whose posterior is a Gaussian, or VQModel, whose latents are one point, not
    yet quantised. resolution: of the images in px; side, channels: of the latents. A network sees
    (latent - shift_factor) * scaling_factor. mirrored: the mirrored image is encoded, too: the
    latents of it are not the mirrored latents.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    autoencoder: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    kind: Literal["AutoencoderKL", "AutoencoderKLFlux2", "VQModel"]
    resolution: Count
    side: Count
    channels: Count
    scaling_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    shift_factor: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    dtype: Literal["float16", "float32"] = "float16"
    mirrored: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of an image's moments: the image and, where `mirrored`, its mirror image; the channels of
        the mean and, of a Gaussian, those of the log variance; height; width."""
        parts = 1 if self.kind == "VQModel" else 2
        return (2 if self.mirrored else 1, parts * self.channels, self.side, self.side)

    @property
    def image_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def encoded(self, moments: np.ndarray) -> bytes:
        """Of an image's moments, float32 of `shape`; UserError for numbers that `dtype` lacks."""
        with np.errstate(over="ignore"):
            stored = moments.astype(np.dtype(self.dtype).newbyteorder("<"))
        if not np.isfinite(stored).all():
            raise UserError(f"its latents are not finite as {self.dtype}")
        return stored.tobytes()

    def decoded(self, content: bytes) -> np.ndarray:
        """`shape` of `dtype`, of what `encoded` gave; UserError for other content."""
        if len(content) != self.image_bytes:
            raise UserError(f"its moments have {len(content)} bytes, not {self.image_bytes}")
        stored = np.frombuffer(content, np.dtype(self.dtype).newbyteorder("<"))
        return stored.astype(self.dtype).reshape(self.shape)

    def __str__(self) -> str:
        mirrored = ", of each mirrored image as well" if self.mirrored else ""
        return (
            f"{self.channels} x {self.side} x {self.side} latents of {self.resolution} px images "
            f"by {self.autoencoder} ({self.kind}), {self.dtype}{mirrored}"
        )


SHAPE = TypeAdapter(Latents)


def latents_of(manifest: Manifest) -> Latents | None:
    """What a set of latents is; None for a release of images, UserError for a changed manifest."""
    return parsed_latents(manifest.origin.get(ORIGIN_KEY), manifest.name)


def parsed_latents(content: Any, release: object) -> Latents | None:
    """Of what the manifest of `release` says of them."""
    if content is None:
        return None
    try:
        return SHAPE.validate_python(content)
    except ValidationError as error:
        raise UserError(
            f"{release} cannot be read: origin.{ORIGIN_KEY}.{misfit(content, error)}"
        ) from None


def refuse_latents(release: ReleasePath, manifest: Manifest) -> None:
    """UserError for a set of latents, where a release of images is needed."""
    if latents_of(manifest) is not None:
        raise UserError(
            f"{release} holds latents, no images: name the images' release; `release encode` of it "
            "makes latents, and mends them"
        )


def set_folder(release: ReleasePath, name: str) -> ReleasePath:
    """Where the release's latents of that name stand."""
    return release / FOLDER / name


def latents_fingerprint(latents: Latents, original: ShardRecord) -> str:
    """What decides the file that is made of `original`; by which name the autoencoder is known does
    not."""
    settings = {key: value for key, value in asdict(latents).items() if key != "autoencoder"}
    content = {"format": FORMAT, "latents": settings, "images": original.sha256}
    return sha256_text(canonical_json(content))


def latents_path(latents: Latents, original: ShardRecord) -> str:
    """As `original` is named, with the latents' fingerprint in place of its own; always Parquet."""
    place = PurePosixPath(original.path).stem.split("-", 1)[1].rsplit("-", 1)[0]
    name = f"{place}-{latents_fingerprint(latents, original)[:10]}"
    return shard_name(original.config, original.split, name, "parquet")


def latents_schema(classes: Sequence[ClassEntry], *, tuning: bool) -> pa.Schema:
    """Of a set's files, with the features that `datasets` reads."""
    columns = COLUMNS | ({"tuning": "bool"} if tuning else {})
    features: dict[str, dict[str, Any]] = {
        MOMENTS: {"dtype": "binary", "_type": "Value"},
        "label": {"names": [c.name for c in classes], "_type": "ClassLabel"},
        **{name: {"dtype": dtype, "_type": "Value"} for name, dtype in columns.items()},
    }
    return table_schema(features, classes)


def write_latents(
    sink: pa.NativeFile, schema: pa.Schema, columns: Mapping[str, Sequence[Any]]
) -> None:
    """Write a file, of which each image's moments can be read alone. Same rows, same bytes."""
    others = [name for name in schema.names if name != MOMENTS]
    moments = columns[MOMENTS]
    rows = max(1, GROUP_BYTES // max(1, len(moments[0]) if moments else 1))
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    with pq.ParquetWriter(
        sink,
        schema,
        compression={MOMENTS: "none"} | dict.fromkeys(others, "zstd"),
        use_dictionary=others,
        write_statistics=others,
        write_page_index=True,
        store_schema=True,
    ) as writer:
        writer.write_table(table, row_group_size=rows)
