"""Makes startup kits from the coordinator's folder, one revision per change of their contents."""

from __future__ import annotations

from datetime import UTC, datetime

from coordinator.enrolment import kit_texts
from coordinator.enrolment.consortium import Consortium, read_consortium
from coordinator.enrolment.register import EnrolmentEvent, EventKind
from coordinator.flower_courier.folder import CourierFolder
from coordinator.folder import CoordinatorFolder
from fedcac.canonical import digest_of, sha256_hex
from fedcac.errors import UsageError
from fedcac.joining import seal_kit
from fedcac.joining.courier_file import packed_courier

__all__ = ["make_kit"]


def make_kit(folder: CoordinatorFolder, site: str) -> tuple[bytes, int]:
    """Return a site's kit and its revision; the same contents give the same bytes.

    Raises
    ------
    UsageError
        `bad_site` if the site's name is none.
    """
    is_word = site.replace("-", "").replace("_", "").isalnum() and site.isascii()
    if not is_word or not site[0].isalnum() or len(site) > 40:
        raise UsageError(
            "A site's name has letters, digits, '-' and '_'.",
            code="bad_site",
            cure="Choose a short name, such as the hospital's: it appears in every report.",
        )
    consortium = read_consortium(folder.root)
    files = _files(folder, consortium, site)
    contents = digest_of(
        {
            "consortium": consortium.model_dump(mode="json"),
            "files": {name: sha256_hex(payload) for name, payload in files.items()},
        }
    )
    revision = _revision(folder, site, contents)
    payload = seal_kit(
        folder.key(),
        consortium=consortium.name,
        site=site,
        revision=revision,
        superlink=consortium.address,
        files=files,
    )
    return payload, revision


def _files(folder: CoordinatorFolder, consortium: Consortium, site: str) -> dict[str, bytes]:
    texts = {
        "README.md": kit_texts.readme(consortium, site),
        "suggested-site.yaml": kit_texts.site_yaml(site),
    }
    files: dict[str, bytes] = {}
    if consortium.address is not None:
        courier = CourierFolder(folder.root / "courier")
        texts["suggested-courier.toml"] = kit_texts.courier_toml(consortium, site)
        files = {
            "ca.crt": (courier.root / "ca.crt").read_bytes(),
            "courier.key.pub": (courier.public_key().to_text() + "\n").encode("ascii"),
            "fedcac-courier.pyz": packed_courier(),
        }
    return {**files, **{name: text.encode("utf-8") for name, text in texts.items()}}


def _revision(folder: CoordinatorFolder, site: str, contents: str) -> int:
    made = [event for event in folder.register.of(site) if event.kind is EventKind.KIT]
    last = made[-1] if made else None
    if last is not None and last.contents == contents and last.revision is not None:
        return last.revision
    revision = 1 + max((event.revision or 0 for event in made), default=0)
    folder.register.append(
        EnrolmentEvent(
            at=datetime.now(UTC),
            kind=EventKind.KIT,
            site=site,
            revision=revision,
            contents=contents,
        )
    )
    return revision
