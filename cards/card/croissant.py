"""croissant.json: a release for machines, by the Croissant format 1.1 of MLCommons.

https://github.com/mlcommons/croissant/blob/main/docs/croissant-spec-1.1.md. Every file with its
hash, a record set for each configuration with a field for each column, and where it all comes from.
Paths are relative to the document, in a folder and on the Hub alike. Written by hand, since
mlcroissant, which the tests validate it with, takes seconds to import and brings rdflib along.
"""

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from cards.card.columns import COLUMNS, PROPERTIES
from cards.card.croissant_context import CONTEXT
from cards.card.facts import StageFacts, citation, limits, require, stage_facts
from cards.card.provenance import Node, dataset_provenance, stage_provenance, view_provenance
from release.errors import UserError
from release.files.storage import ReleasePath
from release.layout.manifest import Manifest
from release.layout.shard_files import shard_format, shard_name, shard_schema
from release.layout.training_views import view_of

CROISSANT_FILE = "croissant.json"
SPECIFICATIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
# schema.org's term for the IPTC digital source type that each image's XMP names
SYNTHETIC = "https://schema.org/TrainedAlgorithmicMediaDigitalSource"
LICENSES = {  # the Hub's names, where SPDX has a page
    "mit": "https://spdx.org/licenses/MIT.html",
    "apache-2.0": "https://spdx.org/licenses/Apache-2.0.html",
    "cc-by-4.0": "https://spdx.org/licenses/CC-BY-4.0.html",
    "cc-by-nc-4.0": "https://spdx.org/licenses/CC-BY-NC-4.0.html",
}
MEDIA_TYPES = {
    "parquet": "application/x-parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
READERS = {  # what a consumer has to know of the format
    "parquet": "",
    "arrow": " Arrow IPC streams: `datasets` reads them by load_dataset or load_from_disk; "
    "mlcroissant, which knows Parquet, gives no records of them.",
}
SPLITS = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}


def croissant_json(
    release: ReleasePath, manifest: Manifest, repository: str | None, published: date
) -> bytes:
    """The document's bytes; the same release, repository and date give the same.

    repository: OWNER/NAME on the Hub, if it goes there. UserError if a fact is missing.
    """
    document = croissant_document(release, manifest, repository, published)
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def croissant_document(
    release: ReleasePath, manifest: Manifest, repository: str | None, published: date
) -> Node:
    """As croissant_json, before it is written."""
    stages = stage_facts(manifest) if manifest.kind == "synthetic" else []
    is_synthetic = manifest.kind == "synthetic"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.name,
        "description": _description(manifest),
        "conformsTo": SPECIFICATIONS,
        "license": _license(manifest),
        "citeAs": citation(manifest, repository, published),
        "version": f"1.0.0+{manifest.content_sha256[:12]}",
        "identifier": f"sha256:{manifest.content_sha256}",
        "datePublished": published.isoformat(),
        "keywords": [manifest.kind, manifest.dataset, "image classification"],
        **({"digitalSourceType": {"@id": SYNTHETIC}} if is_synthetic else {}),
        **_on_the_hub(repository),
        "rai:dataLimitations": limits(manifest),
        **dataset_provenance(manifest, stages),
        "distribution": [*_file_sets(manifest), *_files(manifest)],
        "recordSet": [
            _split_names(manifest),
            _classes(manifest),
            *_record_sets(release, manifest, stages),
        ],
    }


def _description(manifest: Manifest) -> str:
    if manifest.kind == "real":
        return f"Real images of {manifest.dataset}, with views at fixed resolutions."
    recipe = require(manifest, manifest.origin, "recipe", "origin")
    told = require(manifest, recipe, "description", "origin.recipe")
    return f"Generated images for the classes of {manifest.dataset}. {told}."


def _license(manifest: Manifest) -> str | Node:
    note = manifest.origin.get("recipe", {}).get("license_note", "")
    if manifest.license in LICENSES and not note:
        return LICENSES[manifest.license]
    work = {"@type": "sc:CreativeWork", "name": manifest.license, "description": note}
    if manifest.license in LICENSES:
        work["url"] = LICENSES[manifest.license]
    return {key: value for key, value in work.items() if value}


def _on_the_hub(repository: str | None) -> Node:
    """What only a published release has: its address, and who answers for it."""
    if repository is None:
        return {}
    owner = repository.split("/")[0]
    return {
        "url": f"https://huggingface.co/datasets/{repository}",
        "creator": {
            "@type": "sc:Organization",
            "name": owner,
            "url": f"https://huggingface.co/{owner}",
        },
    }


def _files(manifest: Manifest) -> list[Node]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": shard.path,
            "name": shard.path,
            "contentUrl": shard.path,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": MEDIA_TYPES[shard_format(shard.path)],
            "sha256": shard.sha256,
        }
        for shard in manifest.shards
    ]


def _file_sets(manifest: Manifest) -> list[Node]:
    formats = {shard.config: shard_format(shard.path) for shard in manifest.shards}
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"files-{config}",
            "name": f"files-{config}",
            "description": f"All files of configuration {config}.{READERS[formats[config]]}",
            "encodingFormat": MEDIA_TYPES[formats[config]],
            "includes": [shard_name(config, split, "*", formats[config]) for split in splits],
        }
        for config, splits in manifest.splits().items()
    ]


def _split_names(manifest: Manifest) -> Node:
    names = list(dict.fromkeys(s for splits in manifest.splits().values() for s in splits))
    rows = [{"splits/name": name, "splits/url": SPLITS.get(name, "cr:Split")} for name in names]
    fields = [("name", "sc:Text"), ("url", "sc:URL")]
    return _table("splits", "The splits.", "cr:Split", "name", fields, rows)


def _classes(manifest: Manifest) -> Node:
    rows = [
        {
            "classes/label": entry.label,
            "classes/class_id": entry.wnid,
            "classes/name": entry.name,
            "classes/prompt": entry.prompt,
        }
        for entry in manifest.classes
    ]
    fields = [("label", "sc:Integer")]
    fields += [(name, "sc:Text") for name in ("class_id", "name", "prompt")]
    about = f"The {len(rows)} classes of {manifest.dataset} in label order."
    return _table("classes", about, "sc:Enumeration", "label", fields, rows)


def _table(
    name: str, about: str, kind: str, key: str, fields: list[tuple[str, str]], rows: list[Node]
) -> Node:
    """A record set whose rows stand in the document itself."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": about,
        "dataType": kind,
        "key": {"@id": f"{name}/{key}"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": data_type}
            for field, data_type in fields
        ],
        "data": rows,
    }


def _record_sets(
    release: ReleasePath, manifest: Manifest, stages: Sequence[StageFacts]
) -> list[Node]:
    parents = dict(zip((s.config for s in stages), [None, *stages], strict=False))
    by_config = {stage.config: stage for stage in stages}
    found = []
    for config, splits in manifest.splits().items():
        first = next(shard for shard in manifest.shards if shard.config == config)
        rows = ", ".join(f"{split} {manifest.rows(config, split):,}" for split in splits)
        stage = by_config.get(config)
        view = view_of(manifest, config)
        made = stage_provenance(manifest, stage, parents[config]) if stage else {}
        made |= view_provenance(view) if view else {}
        found.append(
            {
                "@type": "cr:RecordSet",
                "@id": config,
                "name": config,
                "description": f"One record an image: {rows}{f'; {view}' if view else ''}.",
                "key": {"@id": f"{config}/image_id"},
                **made,
                "field": [
                    _split_field(config, splits, shard_format(first.path)),
                    *_fields(config, shard_schema(release / first.path)),
                ],
            }
        )
    return found


def _split_field(config: str, splits: Sequence[str], file_format: str) -> Node:
    behind = "/" if file_format == "arrow" else "-"
    return {
        "@type": "cr:Field",
        "@id": f"{config}/split",
        "name": "split",
        "description": "The split, from the file's path; the record set splits has their names.",
        "dataType": ["sc:Text", "cr:Split"],
        "source": {
            "fileSet": {"@id": f"files-{config}"},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": f"{config}/({'|'.join(splits)}){behind}.*$"},
        },
    }


def _fields(config: str, schema: pa.Schema) -> list[Node]:
    return [_field(config, column) for column in schema]


def _field(config: str, column: pa.Field) -> Node:
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{config}/{column.name}",
        "name": column.name,
        "description": COLUMNS.get(column.name, column.name),
        "dataType": _data_type(column),
        "source": {
            "fileSet": {"@id": f"files-{config}"},
            "extract": {"column": column.name},
        },
    }
    if pa.types.is_struct(column.type):
        field["source"]["transform"] = {"jsonPath": "bytes"}
    if column.name == "label":
        field["references"] = {"field": {"@id": "classes/label"}}
    if column.name in PROPERTIES:
        field["equivalentProperty"] = PROPERTIES[column.name]
    return field


def _data_type(column: pa.Field) -> str | list[str]:
    if column.name == "label":
        return ["sc:Integer", "cr:Label"]
    for is_type, name in (
        (pa.types.is_struct, "sc:ImageObject"),
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_string, "sc:Text"),
    ):
        if is_type(column.type):
            return name
    raise UserError(f"column {column.name} is {column.type}, which Croissant has no type for")
