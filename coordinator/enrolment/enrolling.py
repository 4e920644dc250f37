"""Enrolling, renewing and revoking sites: the database, the roster and the register together.

Every step can be repeated after a crash. What takes trust away is written first, what gives it
last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from coordinator.enrolment.register import EnrolmentEvent, EventKind, Register
from coordinator.flower_courier.folder import CourierFolder
from coordinator.folder import CoordinatorFolder, opened
from coordinator.state.store import CoordinatorStore, EnrolledSite, RoundState
from fedcac.errors import SignatureError, UsageError
from fedcac.exchange.couriering import CourierPublicKey
from fedcac.joining import CheckedRequest, Notice, notice_name, open_request
from fedcac.signing import PublicKey
from fedcac.vocabulary import SiteName

__all__ = ["Enrolments", "opened_enrolments"]


class Enrolments:
    """The consortium's members.

    Parameters
    ----------
    folder, store
        The coordinator's folder and its open database.
    clock
        Tells when things happen.
    """

    def __init__(
        self,
        folder: CoordinatorFolder,
        store: CoordinatorStore,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self.register: Register = folder.register
        self.courier = CourierFolder(folder.root / "courier")

    def repair(self) -> None:
        """Finish what a process that was killed began: the register says what is to be."""
        keys = {name: site.key.to_text() for name, site in self._store.sites().items()}
        roster = {name: key.to_text() for name, key in self.courier.roster().items()}
        for site in keys:
            events = [event for event in self.register.of(site) if event.kind is not EventKind.KIT]
            if not events or events[-1].former_key is None:
                continue
            last = events[-1]
            if last.key is not None and keys[site] != last.key:
                self._store.replace_key(site, PublicKey.from_text(last.key))
            if roster.get(site) != last.node_key:
                node = None if last.node_key is None else CourierPublicKey.from_text(last.node_key)
                self.courier.replace_site(site, node)

    def open(self, payload: bytes) -> CheckedRequest:
        """Check a request that came in.

        Raises
        ------
        SignatureError, UsageError
            As `fedcac.joining.open_request`; `request_replayed` if it was taken before,
            `key_used` if one of its keys was ever enrolled.
        """
        checked = open_request(payload, self._folder.key().public, self._clock())
        if checked.digest in self.register.requests():
            raise UsageError(
                f"This request of '{checked.request.site}' was taken before.",
                code="request_replayed",
                cure="Nothing is to be done, unless somebody else sent it: a request serves once.",
            )
        self._check_unused(checked)
        return checked

    def _check_unused(self, checked: CheckedRequest) -> None:
        request = checked.request
        present = self._store.sites().get(request.site)
        # A run that was killed between the two files enrolled the key, and may be repeated.
        own = {present.key.to_text()} if present and not self.register.of(request.site) else set()
        rest = {s.key.to_text() for s in self._store.sites().values()} - own
        taken = self.register.used_keys() | rest
        if request.key in taken or (checked.node_key and checked.node_key.to_text() in taken):
            raise SignatureError(
                f"A key of this request of '{request.site}' was enrolled before.",
                code="key_used",
                cure="Let the site make new keys, with `fedcac-site keys renew`.",
            )

    def enrol(self, checked: CheckedRequest, spool: str = "") -> None:
        """Add a site with both of its keys.

        Raises
        ------
        UsageError
            `site_enrolled` if the name is taken; `no_way` if the site is reached neither over
            Flower nor by a spool folder; `no_courier_folder` if there is no courier here.
        """
        request = checked.request
        present = self._store.sites().get(request.site)
        if present is not None and present.key != checked.key:
            raise UsageError(
                f"A site named '{request.site}' is already enrolled, with another key.",
                code="site_enrolled",
                cure="If it is the same hospital with a new key: `fedcac-coordinator enrolments "
                "renew REQUEST`. Otherwise let the newcomer choose another name.",
            )
        if checked.node_key is None and not spool:
            raise _no_way(request.site)
        if checked.node_key is not None:
            self.courier.ports()
        self.add(request.site, checked.key, checked.node_key, spool, checked.digest)

    def add(
        self,
        site: str,
        key: PublicKey,
        node_key: CourierPublicKey | None,
        spool: str,
        request: str | None = None,
    ) -> None:
        """Write a new site into the database, the roster and the register.

        Raises
        ------
        UsageError
            `site_enrolled` or `site_exists` if the name or a key is taken.
        SignatureError
            `key_used` if the key was revoked or replaced before.
        """
        if key.to_text() in {event.former_key for event in self.register.changes()}:
            raise SignatureError(
                f"The key given for '{site}' was revoked or replaced before.",
                code="key_used",
                cure="Let the site make a new key.",
            )
        present = self._store.sites().get(site)
        on_roster = self.courier.roster().get(site)
        is_on = on_roster is not None or node_key is None
        is_known = any(event.key is not None for event in self.register.of(site))
        # Not new where a run was killed, or a site enrolled by hand is now reached over Flower.
        if present is None or present.key != key or (is_on and is_known):
            self._store.enrol(EnrolledSite(site, key, spool))
        if node_key is not None and (
            on_roster is None or on_roster.to_text() != node_key.to_text()
        ):
            self.courier.add_site(site, node_key)
        self._write(EventKind.ENROLLED, site, key=key, node_key=node_key, request=request)
        self.send_notices()

    def renew(self, checked: CheckedRequest, *, is_replacing: bool = False) -> EventKind:
        """Put a site's new keys in the place of its former ones.

        Raises
        ------
        UsageError
            `unknown_site` if there is no such site; `no_way` if a site over Flower asks without a
            courier's key; `round_running` if it is part of a round that
            runs and the lead does not replace the key.
        SignatureError
            `not_renewed_by_former` if the key in force did not sign the request, or is revoked,
            and the lead does not replace it.
        """
        site = checked.request.site
        present = self._known(site)
        is_renewal = site not in self.register.revoked() and checked.is_renewal_by(present.key)
        if not is_renewal and not is_replacing:
            raise SignatureError(
                f"The key in force of '{site}' did not sign this request.",
                code="not_renewed_by_former",
                cure="If the site lost its key, or it was revoked, make sure of its people, then "
                "give --replace.",
            )
        if checked.node_key is None and not present.spool:
            raise _no_way(site)
        running = self.running_rounds(site)
        if running and not is_replacing:
            raise UsageError(
                f"'{site}' is part of rounds that run: {', '.join(running)}.",
                code="round_running",
                cure="Renew when they have ended; or give --replace, and what it has not answered "
                "yet is answered with the new key.",
            )
        kind = EventKind.RENEWED if is_renewal else EventKind.REPLACED
        self._write(
            kind,
            site,
            key=checked.key,
            node_key=checked.node_key,
            former=present.key,
            request=checked.digest,
            checked=checked,
        )
        self.repair()
        self.send_notices()
        return kind

    def revoke(self, site: str, reason: str) -> None:
        """Refuse a site's key everywhere, from now on; again does nothing new."""
        present = self._known(site)
        if site not in self.register.revoked():
            self._write(EventKind.REVOKED, site, former=present.key, reason=reason)
        self.repair()
        self.send_notices()

    def _known(self, site: str) -> EnrolledSite:
        present = self._store.sites().get(site)
        if present is None:
            raise UsageError(
                f"Not enrolled: {site}.",
                code="unknown_site",
                cure="`fedcac-coordinator enrolments list` shows every site.",
            )
        return present

    def _write(
        self,
        kind: EventKind,
        site: str,
        *,
        key: PublicKey | None = None,
        node_key: CourierPublicKey | None = None,
        former: PublicKey | None = None,
        request: str | None = None,
        checked: CheckedRequest | None = None,
        reason: str = "",
    ) -> None:
        on_roster = self.courier.roster().get(site) if former is not None else None
        self.register.append(
            EnrolmentEvent(
                at=self._clock(),
                kind=kind,
                site=site,
                key=None if key is None else key.to_text(),
                node_key=None if node_key is None else node_key.to_text(),
                former_key=None if former is None else former.to_text(),
                former_node_key=None if on_roster is None else on_roster.to_text(),
                request=request,
                renewal=checked.renewal if checked and kind is EventKind.RENEWED else None,
                reason=reason,
            )
        )

    def keys(self) -> dict[str, PublicKey]:
        """Return the key of every site, whether revoked or not."""
        return {name: site.key for name, site in self._store.sites().items()}

    def running_rounds(self, site: str) -> tuple[str, ...]:
        """Return the rounds that a site is part of and that have not ended."""
        running = (RoundState.OFFERED, RoundState.ANSWERING)
        ids = [one.round_id for one in self._store.rounds() if one.state in running]
        engine = self._folder.engine(self._store) if ids else None
        return tuple(
            one for one in ids if engine and site in {s.name for s in engine.view(one).sites}
        )

    def send_notices(self) -> None:
        """Tell every site which keys count no more; what a site has already is not sent again."""
        key = self._folder.key()
        courier = self._folder.courier(self._store)
        for number, event in enumerate(self.register.changes(), start=1):
            notice = Notice(
                number=number,
                issued_at=event.at,
                site=event.site,
                former_key=event.former_key or "",
                new_key=event.key,
                renewal=event.renewal,
            ).seal(key)
            for site in self._store.members():
                courier.send(SiteName(site), notice_name(number), notice)


def _no_way(site: str) -> UsageError:
    return UsageError(
        f"The request of '{site}' has no courier's key, and there is no spool folder for it.",
        code="no_way",
        cure="Let it ask with its courier's key (--courier-home), or enrol it with --spool.",
    )


@contextmanager
def opened_enrolments(home: Path) -> Iterator[Enrolments]:
    """Yield the enrolments of a coordinator's folder, and close its database."""
    with opened(home) as (folder, store):
        enrolments = Enrolments(folder, store)
        enrolments.repair()
        yield enrolments
