"""What a shard says of images it did not keep: rejections/RESOLUTION/SHARD.parquet, a row each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builder.planning.image_seeds import image_id, image_seed
from builder.planning.plan import StagePlan
from builder.shards.slots import Cell, Rejection
from release.layout.shard_commit import RejectedAttempts

# made: false where there was nothing to make the image from. quarantined: the slot stays empty.
SCHEMA = pa.schema(
    [
        ("class_id", pa.string()),
        ("index", pa.int32()),
        ("attempt", pa.int16()),
        ("image_id", pa.string()),
        ("parent_image_id", pa.string()),
        ("seed", pa.int64()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("made", pa.bool_()),
        ("quarantined", pa.bool_()),
    ]
)


def rejected_attempts(
    rejections: Sequence[Rejection], cells: Sequence[Cell], release_seed: int, stage: StagePlan
) -> RejectedAttempts | None:
    """The file's bytes and its counts; None if everything was kept."""
    if not rejections:
        return None
    rows: list[dict[str, Any]] = []
    for rejection in sorted(rejections, key=lambda r: (r.slot, r.attempt)):
        cell = cells[rejection.slot]
        wnid, resolution = cell.entry.wnid, stage.recipe.resolution
        identity = (release_seed, resolution, wnid, cell.index, rejection.attempt)
        rows.append(
            {
                "class_id": wnid,
                "index": cell.index,
                "attempt": rejection.attempt,
                "image_id": image_id(*identity),
                "parent_image_id": cell.parent_id,
                "seed": image_seed(*identity),
                "reason": rejection.verdict.reason,
                "score": rejection.verdict.score,
                "made": rejection.made,
                "quarantined": rejection.last,
            }
        )
    return rejections_file(rows)


def rejections_file(rows: Sequence[Mapping[str, Any]]) -> RejectedAttempts:
    """The file of `rows`, in columns of SCHEMA; those they lack are null."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), sink, compression="zstd")
    return RejectedAttempts(
        content=sink.getvalue().to_pybytes(),
        rejected=_count([row["class_id"] for row in rows if row["made"]]),
        quarantined=_count([row["class_id"] for row in rows if row["quarantined"]]),
    )


def _count(class_ids: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(class_ids).items()))
