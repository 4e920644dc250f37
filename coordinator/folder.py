"""The coordinator's folder: the lead's signing key, the database and the sites' spools."""

from __future__ import annotations

from pathlib import Path

from coordinator.engine import RoundEngine
from coordinator.flower_courier.courier import courier_of
from coordinator.store import CoordinatorStore
from fedcac.errors import UsageError
from fedcac.signing import PublicKey, SigningKey

__all__ = ["CoordinatorFolder"]


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
    def database_url(self) -> str:
        """SQLAlchemy URL of the coordinator's database."""
        return f"sqlite:///{(self.root / 'coordinator.sqlite').resolve()}"

    def create(self) -> PublicKey:
        """Make the folder and its key; SignatureError if a key is already there."""
        self.key_path.parent.mkdir(parents=True, exist_ok=True)
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
        return CoordinatorStore(self.database_url)

    def engine(self, store: CoordinatorStore) -> RoundEngine:
        """Return the engine over the enrolled sites' spool directories, or Flower's journal."""
        spools = {site.name: site.spool for site in store.sites().values()}
        return RoundEngine(store=store, courier=courier_of(self.root, spools), key=self.key())
