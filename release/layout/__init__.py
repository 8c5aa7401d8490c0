"""A release: shards in Parquet or Arrow, markers, manifest, README; read and written here."""
