"""The features that a README states, against those that `datasets` would state."""

import pyarrow as pa
import pytest
from datasets import Features

from builder.imports.jobs import COLUMNS, FILE_NAME
from builder.shards.shard import COLUMNS as OF_BUILDS
from release.classes.class_list import ClassEntry
from release.layout.latents import COLUMNS as OF_LATENTS
from release.layout.parquet import encoded_images, image_features, table_schema, yaml_features

CLASSES = [
    ClassEntry(wnid="n1", label=0, name="crane", prompt="a crane"),
    ClassEntry(wnid="n2", label=1, name='café: "é" #1', prompt="a café"),
]


@pytest.mark.parametrize("columns", [COLUMNS | FILE_NAME, OF_BUILDS, OF_LATENTS])
def test_features_of_a_release_are_stated_as_datasets_states_them(columns: dict[str, str]) -> None:
    schema = table_schema(image_features(CLASSES, columns), CLASSES)
    assert yaml_features(schema) == Features.from_arrow_schema(schema)._to_yaml_list()


def test_more_bytes_than_an_array_holds_are_one_column_of_images() -> None:
    several = pa.chunked_array([pa.array([b"a", b"b"], pa.binary()), pa.array([b"c"], pa.binary())])
    column = encoded_images(several)
    assert column.to_pylist() == [{"bytes": image, "path": None} for image in (b"a", b"b", b"c")]
    assert encoded_images(several.chunk(0)).type == column.type
    assert encoded_images(pa.array([], pa.binary())).type == column.type


def test_features_of_a_file_that_was_written_anew_are_those_of_its_columns() -> None:
    ours = table_schema(image_features(CLASSES, COLUMNS), CLASSES)
    bare = ours.remove_metadata()
    other = ours.set(ours.get_field_index("width"), pa.field("width", pa.int64()))
    for schema in (bare, other):
        assert yaml_features(schema) == Features.from_arrow_schema(schema)._to_yaml_list()
    assert yaml_features(other) != yaml_features(ours)
