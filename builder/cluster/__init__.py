"""Dask: clusters, workers, jobs and their retries."""
