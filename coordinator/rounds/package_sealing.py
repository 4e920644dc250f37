"""A round's packages, signed for its sites and checked as far as this machine can."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fedcac.models import SealedPackage, seal_files
from fedcac.protocol import Protocol
from fedcac.signing import SigningKey

__all__ = ["NOT_TRIED", "is_pytorch_here", "sealed_for"]

NOT_TRIED = (
    "Its network was not tried here, where PyTorch is not installed: every site tries it before "
    "it is used, and refuses the round if it does not fit."
)
"""What is said of a package that was signed without having been built."""


def sealed_for(
    protocol: Protocol, folder: Path, key: SigningKey, *, is_reference: bool = False
) -> SealedPackage:
    """Return the signed package of a folder.

    Where PyTorch is installed its network must give the golden case and fit the protocol. Elsewhere
    its files are compared with their digests, and the sites do the rest.

    Raises
    ------
    PackageError
        As `fedcac.models.seal_package` and `fedcac.models.threshold_answers`.
    """
    if not is_pytorch_here():
        return seal_files(folder, key)
    from fedcac.models import seal_package
    from fedcac.models.threshold_answers import check_package_fits, check_reference_fits

    package = seal_package(folder, key)
    (check_reference_fits if is_reference else check_package_fits)(protocol, package)
    return SealedPackage(package.manifest, package.files(), is_tried=True)


def is_pytorch_here() -> bool:
    """Say whether networks can be built on this machine."""
    try:
        return importlib.util.find_spec("torch") is not None
    except ImportError:
        return False
