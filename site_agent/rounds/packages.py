"""The model packages of a round as they lie in the inbox: verified before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcac.errors import PackageError, SignatureError
from fedcac.exchange.parcels import PackageRole, package_files
from fedcac.models.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from fedcac.exchange import Offer
    from fedcac.exchange.mailbox import Mailbox
    from fedcac.models import ModelPackage
    from fedcac.signing import TrustedKeys

__all__ = ["RoundPackages"]


@dataclass(frozen=True)
class RoundPackages:
    """Opens the packages that a lead signed; a site runs ONNX graphs only if it says so."""

    inbox: Mailbox
    keys: TrustedKeys
    is_accepting_onnx: bool

    def open(self, round_id: str, digest: str, role: PackageRole = "package") -> ModelPackage:
        """Return the verified package of a role, which must have the digest that was offered.

        Raises
        ------
        SignatureError
            If the lead did not sign it, or it is not the one offered (`wrong_package`).
        PackageError
            As `fedcac.models.open_package`; `onnx_not_accepted`.
        """
        from fedcac.models import open_package

        package = open_package(package_files(self.inbox, round_id, role), self.keys)
        if package.digest != digest:
            raise SignatureError(
                "The package is not the one offered.",
                code="wrong_package",
                cure="Ask the lead for a new round.",
            )
        if package.manifest.family == "onnx" and not self.is_accepting_onnx:
            raise PackageError(
                "The package is an ONNX graph, which this site does not accept.",
                code="onnx_not_accepted",
                cure="Set accept_onnx in site.yaml to run it, and ask for a new round.",
            )
        return package

    def reference(self, offer: Offer) -> ModelPackage | None:
        """Return the verified package that reads the reference exams; None where there is none."""
        if offer.reference_package_digest is None:
            return None
        return self.open(offer.round_id, offer.reference_package_digest, "reference_package")

    def are_complete(self, offer: Offer) -> bool:
        """Say whether the manifest of every package offered has arrived; it is sent last."""
        return all(
            MANIFEST_FILE in package_files(self.inbox, offer.round_id, role)
            for role, _ in _offered(offer)
        )

    def described(self, offer: Offer) -> dict[str, str]:
        """Return name, version and digest of every package offered, by role, for a person.

        Raises
        ------
        SignatureError, PackageError
            As `open`.
        """
        found: dict[str, str] = {}
        for role, digest in _offered(offer):
            manifest = self.open(offer.round_id, digest, role).manifest
            found[role] = f"{manifest.name} {manifest.version}, {digest}"
        return found


def _offered(offer: Offer) -> Iterator[tuple[PackageRole, str]]:
    """Yield the role and digest of every package that an offer names."""
    if offer.package_digest is not None:
        yield "package", offer.package_digest
    if offer.reference_package_digest is not None:
        yield "reference_package", offer.reference_package_digest
