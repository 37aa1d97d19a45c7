"""Numpy and numba on one block: no dask, no xarray, no files."""
