"""Tasks for workers in processes of their own, which cannot import a test's module but can import this one."""

from __future__ import annotations

import logging
import warnings

import numpy as np


def write(path, size):
    path.write_bytes(bytes(size))
    return len(path.read_bytes())


def hold(size):
    return np.ones(size, np.uint8).sum()


def warn_twice():
    logging.getLogger("distributed.worker").warning("memory is full")
    warnings.warn("an old way", UserWarning, stacklevel=1)
