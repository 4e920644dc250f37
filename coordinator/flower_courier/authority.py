"""The consortium's certificate authority, in a folder of its own that no process reads.

`ca.key` is needed to renew the server's certificate every two years and for nothing else: its
folder can lie on a disk in a drawer. A rollover to another authority has three steps, so that
every site trusts the next one before it is used, and the former one until it is used no more.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.flower_courier.certificates import (
    hosts_of,
    make_authority,
    make_server,
    pem_of,
    replace_file,
    write_key,
)
from fedcac.errors import UsageError
from fedcac.exchange.expiry import Expiry, expiries_of

__all__ = ["PASSPHRASE_VARIABLE", "Authority", "expiries_at", "new_passphrase", "server_hosts"]

PASSPHRASE_VARIABLE = "FEDCAC_CA_PASSPHRASE"  # noqa: S105 - the name of a variable


class Authority:
    """The authority's keys, and the certificates that it writes into the courier's folder.

    Parameters
    ----------
    root
        The authority's own folder: `ca.key`, `ca.crt`, and in a rollover `next.*` or
        `former.crt`.
    courier
        The courier's folder: `ca.crt` that sites trust, `server.key` and `server.pem`.
    """

    def __init__(self, root: Path, courier: Path) -> None:
        self.root = root
        self._courier = courier

    def create(self, hosts: Sequence[str], passphrase: bytes | None) -> None:
        """Make an authority and the first server certificate."""
        now = datetime.now(UTC)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._courier.mkdir(parents=True, exist_ok=True)
        key, certificate = make_authority(now)
        write_key(self.root / "ca.key", key, passphrase)
        replace_file(self.root / "ca.crt", pem_of(certificate))
        self._publish()
        self._issue(hosts, (key, certificate), now)

    def renew(self, hosts: Sequence[str] | None = None) -> datetime:
        """Issue a new server key and certificate; return until when it holds.

        Raises
        ------
        UsageError
            `no_authority_key`, `no_passphrase` or `wrong_passphrase` if `ca.key` cannot be read.
        """
        authority = self._load("ca", self._passphrase("ca"))
        return self._issue(hosts or server_hosts(self._courier), authority, datetime.now(UTC))

    def begin_rollover(self) -> None:
        """Make the next authority and let sites trust both; UsageError `rollover_state` twice."""
        if self._has("next.key") or self._has("former.crt"):
            raise _wrong_step("A rollover is under way.", "switch, or finish")
        # The passphrase of the authority in force guards the next one too.
        passphrase = self._passphrase("ca")
        self._load("ca", passphrase)
        key, certificate = make_authority(datetime.now(UTC))
        replace_file(self.root / "next.crt", pem_of(certificate))
        write_key(self.root / "next.key", key, passphrase)
        self._publish()

    def switch_rollover(self) -> None:
        """Use the next authority; sites still trust the former one.

        Raises
        ------
        UsageError
            `rollover_state` if no rollover was begun.
        """
        if not self._has("next.key"):
            raise _wrong_step("No rollover was begun.", "begin")
        following = self._load("next", self._passphrase("next"))
        hosts = server_hosts(self._courier)
        in_force = (self.root / "ca.crt").read_bytes()
        if in_force != (self.root / "next.crt").read_bytes():
            replace_file(self.root / "former.crt", in_force)
        # Whatever is killed in between: all that is needed is trusted, and this can be repeated.
        self._publish()
        self._issue(hosts, following, datetime.now(UTC))
        replace_file(self.root / "ca.crt", (self.root / "next.crt").read_bytes())
        os.replace(self.root / "next.key", self.root / "ca.key")
        (self.root / "next.crt").unlink(missing_ok=True)
        self._publish()

    def finish_rollover(self) -> None:
        """Trust the former authority no more; UsageError `rollover_state` before the switch."""
        if not self._has("former.crt") or self._has("next.key"):
            raise _wrong_step("The next authority is not in use.", "begin, then switch")
        (self.root / "next.crt").unlink(missing_ok=True)
        (self.root / "former.crt").unlink()
        self._publish()

    def _has(self, name: str) -> bool:
        return (self.root / name).exists()

    def _publish(self) -> None:
        names = [name for name in ("ca.crt", "next.crt", "former.crt") if self._has(name)]
        parts = dict.fromkeys((self.root / name).read_bytes() for name in names)
        replace_file(self._courier / "ca.crt", b"".join(parts))

    def _issue(
        self,
        hosts: Sequence[str],
        authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
        now: datetime,
    ) -> datetime:
        key, certificate = make_server(hosts, authority, now)
        # A front that looks in between finds that they do not fit, and looks again.
        write_key(self._courier / "server.key", key)
        replace_file(self._courier / "server.pem", pem_of(certificate))
        return certificate.not_valid_after_utc

    def _load(
        self, name: str, passphrase: bytes | None
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        text = self._key_text(name)
        try:
            key = serialization.load_pem_private_key(text, passphrase)
        except ValueError as error:
            raise UsageError(
                f"{name}.key cannot be read with this passphrase.",
                code="wrong_passphrase",
                cure=f"Give the passphrase of `init`, in {PASSPHRASE_VARIABLE} or at the prompt.",
            ) from error
        certificate = x509.load_pem_x509_certificate((self.root / f"{name}.crt").read_bytes())
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise self._no_key(name)
        return key, certificate

    def _key_text(self, name: str) -> bytes:
        try:
            return (self.root / f"{name}.key").read_bytes()
        except FileNotFoundError as error:
            raise self._no_key(name) from error

    def _no_key(self, name: str) -> UsageError:
        return UsageError(
            f"The authority's {name}.key is not in {self.root}.",
            code="no_authority_key",
            cure="Bring the folder back from where it is kept, or name it with --authority; it "
            "holds ca.key and ca.crt.",
        )

    def _passphrase(self, name: str) -> bytes | None:
        if b"ENCRYPTED" not in self._key_text(name):
            return None
        given = os.environ.get(PASSPHRASE_VARIABLE)
        if given is None:
            if not sys.stdin.isatty():
                raise UsageError(
                    f"The authority's {name}.key is encrypted.",
                    code="no_passphrase",
                    cure=f"Set {PASSPHRASE_VARIABLE}, or call this at a terminal.",
                )
            given = getpass.getpass("Passphrase of the certificate authority: ")
        return given.encode("utf-8")


def new_passphrase(*, may_ask: bool) -> bytes | None:
    """Return the passphrase for a new authority: of the environment, of a prompt, or None.

    Raises
    ------
    UsageError
        `no_passphrase` if one is to be asked for and nobody can be, or the two differ.
    """
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None and may_ask:
        if not sys.stdin.isatty():
            raise UsageError(
                "There is no terminal to type a passphrase at.",
                code="no_passphrase",
                cure=f"Set {PASSPHRASE_VARIABLE} instead.",
            )
        given = getpass.getpass("New passphrase of the certificate authority: ")
        if given != getpass.getpass("The same again: ") or not given:
            raise UsageError(
                "The two passphrases differ, or are empty.",
                code="no_passphrase",
                cure="Call it again, and type the same twice.",
            )
    return given.encode("utf-8") if given else None


def server_hosts(courier: Path) -> tuple[str, ...]:
    """Return the hosts that the certificate in force holds for; UsageError if there is none."""
    try:
        pem = (courier / "server.pem").read_bytes()
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no server.pem in {courier}.",
            code="no_courier_folder",
            cure="Make one with `fedcac-coordinator init --host`.",
        ) from error
    return hosts_of(x509.load_pem_x509_certificate(pem))


def expiries_at(courier: Path) -> list[Expiry]:
    """Return the end of every certificate in the courier's folder; empty without a courier."""
    named = {"server.pem": "the server's certificate", "ca.crt": "the consortium's authority"}
    return [
        one
        for file, name in named.items()
        if (courier / file).exists()
        for one in expiries_of((courier / file).read_bytes(), name)
    ]


def _wrong_step(text: str, then: str) -> UsageError:
    return UsageError(
        text,
        code="rollover_state",
        cure=f"The step to take is: {then} (`fedcac-coordinator certificate rollover`).",
    )
