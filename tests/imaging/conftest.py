from __future__ import annotations

from pathlib import Path

import pytest

from fedcac.protocol import ImageCriteria

LAX = ImageCriteria(min_slices=1, allow_contrast=True, allow_sharp_kernel=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public DICOM collections beside the repository; tests that need them skip without."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public DICOM collections are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def lax() -> ImageCriteria:
    """Criteria that let every readable CT through."""
    return LAX
