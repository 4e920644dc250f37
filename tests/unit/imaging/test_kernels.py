from __future__ import annotations

import pytest

from fedcac.imaging import is_sharp_kernel


@pytest.mark.parametrize(
    "kernel",
    [
        *("L", "D", "YC", "CD", "SharpPlus"),
        *("LUNG", "bone", "BONEPLUS", "EDGE", "HD LUNG"),
        *("B70f", "I50f", "Br59d", "Bl57f", "D60f", "B60f PET"),
        *("FC51", "FC86"),
        *("B_SHARP_C", "LUNG_SHARP_A", "Lung Enh"),
    ],
)
def test_lung_bone_and_edge_kernels_are_sharp(kernel: str) -> None:
    assert is_sharp_kernel(kernel)


@pytest.mark.parametrize(
    "kernel",
    [
        *("", "B", "XCB", "STANDARD", "SOFT", "DETAIL", "CHST"),
        *("B30f", "I30f", "Qr36d", "Br40", "Sa36f", "D30f", "B19f PET", "B08s"),
        *("FC12", "B_SOFT_C", "Cardiac Routine"),
    ],
)
def test_soft_and_unknown_kernels_are_not(kernel: str) -> None:
    assert not is_sharp_kernel(kernel)
