from __future__ import annotations

import pytest

from fedcac.imaging import is_sharp_kernel


@pytest.mark.parametrize(
    "kernel", ["L", "D", "LUNG", "bone", "BONEPLUS", "B70f", "I50f", "Br59d", "FC51"]
)
def test_lung_bone_and_edge_kernels_are_sharp(kernel: str) -> None:
    assert is_sharp_kernel(kernel)


@pytest.mark.parametrize(
    "kernel", ["", "B", "STANDARD", "SOFT", "B30f", "I30f", "Qr36d", "Br40", "FC12"]
)
def test_soft_and_unknown_kernels_are_not(kernel: str) -> None:
    assert not is_sharp_kernel(kernel)
