"""What `datasets.load_from_disk` looks for beside Arrow shards: three small JSON files.

load_from_disk(RELEASE/CONFIG) gives all splits of a configuration, RELEASE/CONFIG/SPLIT one.
"""

import json
from typing import Any

from release.files.commit import canonical_json, sha256_text
from release.files.storage import ReleasePath
from release.layout.manifest import Manifest
from release.layout.shard_files import shard_format, shard_schema


def index_files(release: ReleasePath, manifest: Manifest) -> dict[str, bytes]:
    """Their content by path within the release; none for Parquet. Same shards, same bytes."""
    return {
        name: (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        for config, splits in _arrow_splits(manifest).items()
        for name, content in _files_of(release, manifest, config, splits)
    }


def index_names(manifest: Manifest) -> list[str]:
    """The paths of index_files, from the manifest alone."""
    return [
        name
        for config, splits in _arrow_splits(manifest).items()
        for name in (
            f"{config}/dataset_dict.json",
            *(f"{config}/{s}/{n}.json" for s in splits for n in ("state", "dataset_info")),
        )
    ]


def _arrow_splits(manifest: Manifest) -> dict[str, list[str]]:
    arrow = {s.config for s in manifest.shards if shard_format(s.path) == "arrow"}
    return {config: splits for config, splits in manifest.splits().items() if config in arrow}


def _files_of(
    release: ReleasePath, manifest: Manifest, config: str, splits: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    files: list[tuple[str, dict[str, Any]]] = [
        (f"{config}/dataset_dict.json", {"splits": splits}),
    ]
    for split in splits:
        shards = [s for s in manifest.shards if (s.config, s.split) == (config, split)]
        metadata = shard_schema(release / shards[0].path).metadata
        state: dict[str, Any] = {
            "_data_files": [{"filename": shard.path.rsplit("/", 1)[1]} for shard in shards],
            "_fingerprint": sha256_text(canonical_json([s.sha256 for s in shards]))[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        info = {
            "description": "",
            "citation": "",
            "homepage": "",
            "license": manifest.license,
            "features": json.loads(metadata[b"huggingface"])["info"]["features"],
            "splits": {
                split: {
                    "name": split,
                    "num_bytes": sum(shard.bytes for shard in shards),
                    "num_examples": manifest.rows(config, split),
                }
            },
        }
        files += [(f"{config}/{split}/state.json", state)]
        files += [(f"{config}/{split}/dataset_info.json", info)]
    return files
