"""The coordinator's folder: the lead's signing key, the database and the sites' spools."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from coordinator.enrolment.register import Register
from coordinator.flower_courier.courier import courier_of
from coordinator.rounds.engine import RoundEngine
from coordinator.state.database import open_database
from coordinator.state.store import CoordinatorStore
from fedcac.errors import UsageError
from fedcac.exchange import Courier
from fedcac.signing import PublicKey, SigningKey

__all__ = ["URL_VARIABLE", "CoordinatorFolder", "opened"]

URL_VARIABLE = "FEDCAC_DATABASE_URL"
"""A URL here goes before the one in the folder."""


class CoordinatorFolder:
    """The files of one coordinator.

    The key signs protocols, packages, offers and requests. Sites pin its public half.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def key_path(self) -> Path:
        """The lead's signing key."""
        return self.root / "keys" / "lead.key"

    @property
    def database_path(self) -> Path:
        """Where the URL of a server's database is kept; SQLite is used without it."""
        return self.root / "database.url"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the coordinator's database; containers have it from a secret."""
        if given := os.environ.get(URL_VARIABLE):
            return given
        try:
            return self.database_path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return f"sqlite:///{(self.root / 'coordinator.sqlite').resolve()}"

    def use_database(self, url: str) -> str:
        """Keep the state in a server's database from now on; return its URL without password.

        Raises
        ------
        UsageError, IntegrityError
            As `coordinator.state.database.open_database`; nothing is changed then.
        """
        self.key()
        open_database(url).dispose()
        descriptor, temporary = tempfile.mkstemp(dir=self.root, prefix=".part-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(url + "\n")
        os.replace(temporary, self.database_path)
        return make_url(url).render_as_string()

    @property
    def register(self) -> Register:
        """What happened to the sites' keys: enrolments, renewals, revocations."""
        return Register(self.root / "enrolments.jsonl")

    def create(self) -> PublicKey:
        """Make the folder and its key; SignatureError if a key is already there."""
        self.key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = SigningKey.generate()
        key.save(self.key_path)
        return key.public

    def key(self) -> SigningKey:
        """Read the lead's key."""
        if not self.key_path.exists():
            raise UsageError(
                f"{self.root} is not a coordinator's folder: it has no keys/lead.key.",
                code="no_coordinator_folder",
                cure="Make one with `fedcac-coordinator init`, or give --home.",
            )
        return SigningKey.load(self.key_path)

    def store(self) -> CoordinatorStore:
        """Open the database."""
        self.key()
        return CoordinatorStore(self.database_url, register=self.register)

    def engine(self, store: CoordinatorStore) -> RoundEngine:
        """Return the engine over the enrolled sites' spool directories, or Flower's journal."""
        return RoundEngine(store=store, courier=self.courier(store), key=self.key())

    def courier(self, store: CoordinatorStore) -> Courier:
        """Return the courier to the enrolled sites; a revoked one is neither sent to nor read."""
        members = store.members()
        spools = {site.name: site.spool for site in members.values()}
        return courier_of(self.root, spools, closed=store.sites().keys() - members.keys())


@contextmanager
def opened(home: Path) -> Iterator[tuple[CoordinatorFolder, CoordinatorStore]]:
    """Yield a coordinator's folder with its database, and close the database."""
    folder = CoordinatorFolder(home)
    store = folder.store()
    try:
        yield folder, store
    finally:
        store.close()
