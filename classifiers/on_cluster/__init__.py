"""Trainings on a Dask cluster, whatever happens to its workers."""
