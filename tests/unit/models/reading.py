"""Readers for worker processes: sound, slow, raising, crashing and hanging ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from fedcac.errors import DicomError
from fedcac.models.transport import Reading

SHAPE = (3, 64, 64)


def read(path: Path) -> Reading:
    """Read by name: `exam-K` is an array of K; other names misbehave."""
    word, _, number = path.name.partition("-")
    if word == "crash":
        os._exit(7)
    if word == "hang":
        time.sleep(3600)
    if word == "corrupt":
        raise DicomError(f"{path} quotes a patient", code="corrupt_pixels")
    if word == "bug":
        raise KeyError(f"{path} quotes a patient")
    if word == "once" and not path.exists():
        path.touch()
        os._exit(7)
    array = np.full(SHAPE, float(number), dtype=np.float32)
    return Reading({"hu": array}, {"name": path.name})
