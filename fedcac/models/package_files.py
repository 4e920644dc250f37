"""A package's files before any network is built: read, compared with their digests, and signed.

Needs no PyTorch, so that a coordinator without it can send a package. What only a network can show
(tensors, shapes, the golden case) every site checks before it uses one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fedcac.canonical import Digest, sha256_hex
from fedcac.errors import PackageError
from fedcac.models.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    ONNX_FILE,
    PAYLOAD_TYPE,
    SECOND_STAGE_FILE,
    WEIGHTS_FILE,
    PackageManifest,
)
from fedcac.signing import SigningKey, seal

__all__ = [
    "SealedPackage",
    "check_digests",
    "demonstration_package_folder",
    "parse_manifest",
    "read_folder",
    "seal_files",
]

_PAYLOADS = (WEIGHTS_FILE, ONNX_FILE, GOLDEN_FILE, SECOND_STAGE_FILE)
_MAXIMUM_BYTES = 2 * 1024**3


@dataclass(frozen=True, eq=False)
class SealedPackage:
    """A signed package as it travels: its manifest, and its files by name.

    `is_tried` says whether its network was built and gave the golden case here.
    """

    manifest: PackageManifest
    files: Mapping[str, bytes]
    is_tried: bool

    @property
    def digest(self) -> Digest:
        """The digest that identifies the package."""
        return self.manifest.digest()


def seal_files(folder: Path, key: SigningKey) -> SealedPackage:
    """Return a package folder with its manifest signed, after what can be seen without a network.

    Raises
    ------
    PackageError
        If the manifest is not valid, a file is missing or surplus, or is not the one named.
    """
    manifest_file, files = read_folder(folder)
    manifest = parse_manifest(manifest_file)
    named = {str(name) for name in manifest.files}
    if named != set(files):
        is_missing = bool(named - set(files))
        raise PackageError(
            f"The package's files are not those its manifest names: {', '.join(sorted(named))}.",
            code="missing_file" if is_missing else "surplus_file",
            cure="Ask whoever made the package to send it again.",
        )
    check_digests(manifest, files)
    envelope = seal(manifest.to_bytes(), PAYLOAD_TYPE, key)
    return SealedPackage(manifest, {MANIFEST_FILE: envelope, **files}, is_tried=False)


def read_folder(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """Return the manifest's bytes and the other files of a package folder, by name.

    Files with names that no package has (a model card, say) are not looked at.

    Raises
    ------
    PackageError
        `missing_file` if there is no manifest.
    """
    manifest_path = folder / MANIFEST_FILE
    if not manifest_path.is_file():
        raise PackageError(
            f"{folder} has no {MANIFEST_FILE}.",
            code="missing_file",
            cure="Give the folder of a model package.",
        )
    files = {name: (folder / name).read_bytes() for name in _PAYLOADS if (folder / name).is_file()}
    return manifest_path.read_bytes(), files


def demonstration_package_folder() -> Path:
    """Return the folder of the demonstration package that ships with this release."""
    return Path(__file__).parent / "packages" / "eng2021-demo"


def parse_manifest(manifest_bytes: bytes) -> PackageManifest:
    """Return the typed manifest; PackageError `bad_manifest` if it does not have its shape."""
    try:
        return PackageManifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise PackageError(
            f"The manifest is not valid: {problems}",
            code="bad_manifest",
            cure="Ask whoever made the package for one of this release's schema.",
        ) from error


def check_digests(manifest: PackageManifest, files: Mapping[str, bytes]) -> None:
    """Check that every file is the one that its manifest names.

    Raises
    ------
    PackageError
        `wrong_digest`, or `too_large` beyond 2 GiB.
    """
    for name, digest in manifest.files.items():
        if len(files[name]) > _MAXIMUM_BYTES:
            raise PackageError(
                f"{name} is larger than {_MAXIMUM_BYTES} bytes.",
                code="too_large",
                cure="No network of this release is as large; ask whoever made the package.",
            )
        if digest != sha256_hex(files[name]):
            raise PackageError(
                f"{name} is not the file its manifest names.",
                code="wrong_digest",
                cure="The package is damaged or altered; ask for it again.",
            )
