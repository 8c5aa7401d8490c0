"""The files of a training view, made from those of another configuration."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builder.shards.stopping import raise_if_stopped
from release.errors import UserError
from release.files.storage import ReleasePath, list_files
from release.images.encoding import jpeg_codec
from release.layout.manifest import Manifest, ShardRecord
from release.layout.parquet import write_table
from release.layout.shard_commit import commit_shard, committed_record, forget_shard
from release.layout.shard_files import (
    is_shard,
    iterate_shard,
    require_unchanged,
    shard_format,
    shard_schema,
)
from release.layout.training_views import TrainingView, view_fingerprint, view_path

READ_ROWS = 16


@dataclass(frozen=True)
class ViewShardJob:
    """One file of a view: the rows of the file `original`, its images made smaller."""

    view: TrainingView
    original: ShardRecord
    synthetic: bool
    release: ReleasePath
    after: None = None
    priority: int = 0

    @property
    def path(self) -> str:
        return view_path(self.view, self.original)

    @property
    def fingerprint(self) -> str:
        return view_fingerprint(self.view, self.original)

    @property
    def planned(self) -> int:
        return self.original.rows

    def committed(self) -> ShardRecord | None:
        """The record of the file if it is finished."""
        return committed_record(self.release, self)

    def run(self) -> ShardRecord:
        """Read, resize, encode, commit; UserError where another codec is installed."""
        if jpeg_codec() != self.view.codec:
            raise UserError(
                f"a worker has {jpeg_codec()}, this view is made by {self.view.codec}: bytes would "
                "differ; install the same there"
            )
        started = time.time()
        source = self.release / self.original.path
        require_unchanged(source, self.original.sha256)
        schema = shard_schema(source)
        rows = list(self._rows(source, schema.names))
        columns = {name: [row[name] for row in rows] for name in schema.names}
        return commit_shard(
            self.release,
            self.path,
            self.fingerprint,
            lambda sink: write_table(sink, schema, columns, shard_format(self.path)),
            columns["class_id"],
            started,
        )

    def _rows(self, source: ReleasePath, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in iterate_shard(source, names, READ_ROWS):
            raise_if_stopped()
            for row in batch.to_pylist():
                try:
                    image = self.view.encoded(row["image"]["bytes"], synthetic=self.synthetic)
                except UserError as error:
                    raise UserError(f"{source}, image {row['image_id']}: {error}") from None
                rule = {"crop_rule": self.view.rule} if "crop_rule" in row else {}
                yield row | {"image": image} | rule


def plan_view(release: ReleasePath, manifest: Manifest, view: TrainingView) -> list[ViewShardJob]:
    """A file of the view for each file of its source that the manifest lists."""
    return [
        ViewShardJob(view, record, manifest.kind == "synthetic", release)
        for record in manifest.shards
        if record.config == view.source
    ]


def delete_outdated(release: ReleasePath, manifest: Manifest, views: Collection[str]) -> bool:
    """Delete files of `views` that the manifest no longer lists; whether there were any."""
    listed = {record.path for record in manifest.shards}
    outdated = [
        name
        for name in sorted(list_files(release) if views else ())
        if name.split("/")[0] in views and is_shard(name) and name not in listed
    ]
    for name in outdated:
        forget_shard(release, name)
    return bool(outdated)
