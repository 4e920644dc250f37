"""The site's own keys and its requests to be enrolled with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedcac.errors import UsageError
from fedcac.exchange.couriering import CourierKey
from fedcac.joining import EnrolmentRequest, Kit, RequestKeys
from fedcac.signing import PublicKey, SigningKey
from site_agent.flower_courier.settings import (
    CourierSettings,
    create_courier_folder,
)
from site_agent.joining.kit_files import install_courier_files, install_kit, installed_kit
from site_agent.settings import SiteFolder, SiteSettings, create_site_folder

__all__ = ["Membership"]

_COURIER_WORD = "courier-home.txt"


class Membership:
    """A site's part in a consortium that it joins by a kit.

    Parameters
    ----------
    folder
        The site's folder.
    clock
        Tells when requests are made.
    """

    def __init__(
        self, folder: SiteFolder, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._folder = folder
        self._clock = clock

    @property
    def _next_key(self) -> Path:
        return self._folder.root / "keys" / "next.key"

    def join(self, kit: Kit, settings: SiteSettings, courier: CourierSettings | None) -> None:
        """Make the site's folder of a kit whose lead was confirmed.

        May be repeated after a crash, as long as `join_courier` has not followed.

        Parameters
        ----------
        courier
            Whether, and with what, a courier's folder follows; None where parcels go by hand.

        Raises
        ------
        UsageError
            `site_exists` if there is another one already.
        """
        root = self._folder.root
        if not self._folder.settings_path.exists():
            root.mkdir(parents=True, exist_ok=True)
            install_kit(root, kit)
            create_site_folder(root, settings)
            # Agent and courier share a group: the courier writes the one, reads the other.
            for name, mode in (("inbox", 0o2770), ("outbox", 0o2750)):
                box = self._folder.spool_path / name
                box.mkdir(parents=True, exist_ok=True)
                box.chmod(mode)
        elif not self._is_same(kit, settings, courier):
            raise UsageError(
                f"{root} already holds a site.",
                code="site_exists",
                cure="A newer kit comes in by `fedcac-site kit update`; the request is written "
                "again by `fedcac-site keys request`.",
            )

    def _is_same(self, kit: Kit, settings: SiteSettings, courier: CourierSettings | None) -> bool:
        """Say whether a run was killed between the agent's folder and the courier's."""
        present = installed_kit(self._folder.root)
        is_ours = present is not None and present.manifest == kit.manifest
        return is_ours and courier is not None and self._folder.settings() == settings

    def join_courier(self, kit: Kit, home: Path, settings: CourierSettings) -> None:
        """Make the courier's folder with its node key; UsageError `courier_exists`."""
        create_courier_folder(home, settings)
        install_courier_files(kit, home)
        path = self._folder.root / "keys" / _COURIER_WORD
        path.write_text(f"{home.resolve()}\n", encoding="utf-8")

    def courier_home(self, given: Path | None) -> Path | None:
        """Return the courier's folder: as given, as at `init`, or None without Flower."""
        if given is not None:
            return given
        path = self._folder.root / "keys" / _COURIER_WORD
        return Path(path.read_text(encoding="utf-8").strip()) if path.exists() else None

    def request(self, courier_home: Path | None) -> tuple[EnrolmentRequest, bytes]:
        """Return a request for the keys in force, and its file.

        Raises
        ------
        UsageError
            `no_courier_folder` if the courier's key cannot be read.
        """
        node = None if courier_home is None else self._node_key(courier_home / "node.key")
        keys = RequestKeys(SigningKey.load(self._folder.key_path), node)
        return self._sealed(keys)

    def renewal(
        self, courier_home: Path | None, *, is_lost: bool = False
    ) -> tuple[EnrolmentRequest, bytes]:
        """Make the next keys, unless they are made already, and return a request for them.

        The keys in force stay in force until `activate`. With `is_lost` they do not sign it.

        Raises
        ------
        UsageError
            `no_courier_folder` if the courier's next key cannot be read or made.
        """
        if not self._next_key.exists():
            SigningKey.generate().save(self._next_key)
            _give_to_owner_of(self._folder.key_path, self._next_key)
        node = None
        if courier_home is not None:
            path = courier_home / "next.key"
            try:
                if not path.exists():
                    CourierKey.generate().save(path)
                    _give_to_owner_of(courier_home, path)
            except OSError as error:
                raise _no_courier(courier_home) from error
            node = self._node_key(path)
        former = None if is_lost else SigningKey.load(self._folder.key_path)
        return self._sealed(RequestKeys(SigningKey.load(self._next_key), node, former))

    def activate(self, courier_home: Path | None) -> PublicKey:
        """Use the next keys from now on; the former ones are kept as `former-*`.

        Raises
        ------
        UsageError
            `no_next_key` if none were made.
        """
        node = None if courier_home is None else courier_home / "next.key"
        is_node_due = node is not None and node.exists()
        if not self._next_key.exists() and not is_node_due:
            raise UsageError(
                "There are no next keys here.",
                code="no_next_key",
                cure="Make them with `fedcac-site keys renew`, and let the lead take them first.",
            )
        # The courier's first: a repeated call finds what is left to do.
        if node is not None and is_node_due:
            _replace(node, node.with_name("node.key"), ".key.pub")
        if self._next_key.exists():
            _replace(self._next_key, self._folder.key_path, ".pub")
        return SigningKey.load(self._folder.key_path).public

    def _node_key(self, path: Path) -> CourierKey:
        try:
            path.read_bytes()
        except OSError as error:
            raise _no_courier(path.parent) from error
        return CourierKey.load(path)

    def _sealed(self, keys: RequestKeys) -> tuple[EnrolmentRequest, bytes]:
        settings = self._folder.settings()
        kit = installed_kit(self._folder.root)
        request = EnrolmentRequest.make(
            "consortium" if kit is None else kit.manifest.consortium,
            PublicKey.from_text(settings.lead_key),
            settings.name,
            keys,
            self._clock(),
        )
        return request, request.seal(keys)


def _no_courier(home: Path) -> UsageError:
    return UsageError(
        f"The courier's key in {home} cannot be read or made.",
        code="no_courier_folder",
        cure="Give --courier-home with the courier's folder, and run this once as root: the folder "
        "is the courier's user's.",
    )


def _give_to_owner_of(present: Path, made: Path) -> None:
    """Let a key that root made belong to the user whose process reads it."""
    if os.geteuid() == 0 and present.exists():
        owner = present.stat()
        os.chown(made, owner.st_uid, owner.st_gid)


def _replace(following: Path, present: Path, public_suffix: str) -> None:
    publics = [_public(path, public_suffix) for path in (following, present)]
    former = present.with_name(f"former-{present.name}")
    if present.exists():
        former.unlink(missing_ok=True)
        os.link(present, former)
    if publics[0].exists():
        os.replace(*publics)
    os.replace(following, present)


def _public(path: Path, suffix: str) -> Path:
    return path.with_name(path.name.removesuffix(".key") + suffix)
