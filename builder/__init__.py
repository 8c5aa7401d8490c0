"""Makes releases: recipe, plan, shards on Dask, Parquet, manifest; imports real data."""
