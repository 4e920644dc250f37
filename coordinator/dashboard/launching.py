"""What a lead chose on the launch page, checked, and what it means for the sites, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.requests import Request

from coordinator.dashboard.access import dashboard_of
from coordinator.dashboard.forms import file_of, number_of, text_of, texts_of
from coordinator.rounds.api import LaunchPlan
from coordinator.rounds.package_sealing import sealed_for
from fedcac.errors import FedcacError, ProtocolError, UsageError
from fedcac.models import demonstration_package_folder
from fedcac.models.manifest import MANIFEST_FILE, PackageManifest
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.columns import columns_of
from fedcac.protocol.loading import parse_protocol
from fedcac.report.analysis_methods import describe_analysis
from fedcac.report.wording import INDEX_WORDS, MODALITY_WORDS, REFERENCE_WORDS
from fedcac.signing import SigningKey

__all__ = [
    "DEMONSTRATION",
    "LaunchForm",
    "PackageChoice",
    "checked_protocol",
    "form_from",
    "package_choices",
    "plan_of",
    "protocol_words",
]

DEMONSTRATION = "demonstration"
"""The choice of the package that ships with this release."""

_LONGEST_PROTOCOL = 400_000


@dataclass(frozen=True)
class PackageChoice:
    """A model package that can be chosen: by a folder's name, never by a path."""

    value: str
    words: str
    modality: str


@dataclass(frozen=True)
class LaunchForm:
    """What was chosen, as typed; numbers are None where the field was left empty.

    `protocol_text` is an uploaded protocol, which is shown again and sent along; `shipped` counts
    where there is none.
    """

    shipped: str = ""
    protocol_text: str = ""
    package: str = ""
    reference_package: str = ""
    sites: tuple[str, ...] = ()
    minimum_sites: int | None = None
    quorum: int | None = None
    days: int = 30
    problems: tuple[FedcacError, ...] = field(default=())


def form_from(request: Request) -> LaunchForm:
    """Read the form; what cannot be meant stands in `problems`."""
    problems: list[FedcacError] = []

    def number(name: str) -> int | None:
        try:
            return number_of(request, name, least=1, most=1000 if name != "days" else 365)
        except UsageError as error:
            problems.append(error)
            return None

    name, payload = file_of(request, "protocol_file")
    text = text_of(request, "protocol_text", _LONGEST_PROTOCOL)
    if payload:
        try:
            text = payload.decode("utf-8-sig")
        except UnicodeDecodeError:
            problems.append(
                ProtocolError(
                    f"{name} is not UTF-8 text.", code="not_yaml", cure="Save it as UTF-8."
                )
            )
    # A file that was chosen is meant, whichever button is pressed.
    if text_of(request, "source", 20) == "shipped" and not payload:
        text = ""
    return LaunchForm(
        shipped=text_of(request, "shipped", 80),
        protocol_text=text,
        package=text_of(request, "package", 200),
        reference_package=text_of(request, "reference_package", 200),
        sites=texts_of(request, "site"),
        minimum_sites=number("minimum_sites"),
        quorum=number("quorum"),
        days=number("days") or 30,
        problems=tuple(problems),
    )


def checked_protocol(form: LaunchForm) -> Protocol:
    """Return the protocol chosen; ProtocolError with every problem of it, in words."""
    if form.protocol_text:
        return parse_protocol(form.protocol_text, "the uploaded protocol")
    return load_shipped(form.shipped)


def package_choices(folder: Path) -> tuple[PackageChoice, ...]:
    """Return the packages in a folder whose manifests can be read, by name."""
    found = [PackageChoice(DEMONSTRATION, "Demonstration package (generated data only)", "")]
    subfolders = sorted(folder.iterdir()) if folder.is_dir() else []
    for one in subfolders:
        try:
            manifest = PackageManifest.model_validate_json((one / MANIFEST_FILE).read_bytes())
        except (OSError, ValueError):
            continue
        words = f"{manifest.name} {manifest.version}, {manifest.family}"
        found.append(PackageChoice(one.name, words, manifest.family))
    return tuple(found)


def _package_folder(request: Request, choice: str) -> Path:
    folder = dashboard_of(request).settings.packages
    if choice == DEMONSTRATION:
        return demonstration_package_folder()
    if choice not in {one.value for one in package_choices(folder)}:
        raise UsageError(
            "There is no such model package in the packages folder.",
            code="unknown_package",
            cure="Put its folder there, and load the page again.",
        )
    return folder / choice


def plan_of(request: Request, form: LaunchForm, protocol: Protocol, actor: str) -> LaunchPlan:
    """Return the plan with signed packages.

    Raises
    ------
    UsageError, PackageError
        If a package is not there, is damaged, or does not fit the protocol.
    """
    key = dashboard_of(request).folder.key()
    digest, files = _sealed(request, form.package, protocol, key, is_reference=False)
    reference_digest, reference_files = _sealed(
        request, form.reference_package, protocol, key, is_reference=True
    )
    if not form.sites:
        raise UsageError("No site was chosen.", code="no_sites", cure="Choose one or more sites.")
    return LaunchPlan(
        sites=form.sites,
        minimum_sites=form.minimum_sites or form.quorum or len(form.sites),
        deadline=datetime.now(UTC) + timedelta(days=form.days),
        package_digest=digest,
        package_files=files,
        quorum=form.quorum,
        actor=actor,
        reference_digest=reference_digest,
        reference_files=reference_files,
    )


def _sealed(
    request: Request, choice: str, protocol: Protocol, key: SigningKey, *, is_reference: bool
) -> tuple[str | None, Mapping[str, bytes]]:
    if not choice:
        return None, {}
    package = sealed_for(protocol, _package_folder(request, choice), key, is_reference=is_reference)
    return package.digest, package.files


def protocol_words(protocol: Protocol) -> dict[str, object]:
    """Return what is asked of a site, in the words in which its people read it too."""
    window = (
        f", within {protocol.pairing.window_days} days of the index exam"
        if protocol.pairing
        else ""
    )
    index = INDEX_WORDS[protocol.index_test.kind]
    return {
        "index": f"{index} by {protocol.index_test.model_family}, on "
        f"{MODALITY_WORDS[protocol.modality]}",
        "reference": f"{REFERENCE_WORDS[protocol.reference.kind]}{window}",
        "included": protocol.inclusion,
        "excluded": (
            *protocol.exclusion,
            *(f"{one.statement} (column {one.column})" for one in protocol.clinical_criteria),
        ),
        "analyses": tuple(
            (spec.id, describe_analysis(spec, protocol)) for spec in protocol.analyses
        ),
        "columns": tuple(_columns(protocol)),
        "disclosure": (
            f"Counts under {protocol.disclosure.minimum_cell} and cohorts under "
            f"{protocol.disclosure.minimum_patients} patients stay at the site; its own policy may "
            "be stricter."
        ),
        "pooling": (
            "Every site answers by itself; the report has rows of every site."
            if protocol.pooling.mode == "open"
            else f"Sums over at least {protocol.pooling.least_sites} sites, under masks: nobody "
            "learns one site's answers."
        ),
    }


def _columns(protocol: Protocol) -> Iterator[str]:
    needed = {name for spec in protocol.analyses for name in columns_of(spec, protocol).needed}
    optional = {name for spec in protocol.analyses for name in columns_of(spec, protocol).optional}
    yield from sorted(needed)
    yield from (f"{name} (where there is one)" for name in sorted(optional - needed))
