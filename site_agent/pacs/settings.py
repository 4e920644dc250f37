"""The `pacs` block of a site's `site.yaml`: how the PACS is reached, spared and forgotten."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "DicomWebSettings",
    "DimseSettings",
    "MoveSettings",
    "PacsSettings",
    "RoleRule",
    "SeriesRules",
    "TlsSettings",
]

# PS3.5 table 6.2-1, AE: at most 16 characters, neither backslash nor control characters, and not
# only spaces.
AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Patterns = Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1)]

Modality = Annotated[str, Field(pattern=r"^[A-Z]{2,4}$")]

RADIOGRAPHS = frozenset({"CR", "DX"})
"""Modalities whose series may be a single instance, and whose images are DERIVED by nature."""

_FEWEST_OF_A_VOLUME = 15
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TlsSettings(_Block):
    """Certificates, PEM. Paths are relative to the site's folder unless absolute.

    Attributes
    ----------
    ca_file
        The certificate authority that signed the PACS's certificate; nothing else is trusted.
    certificate, key
        This computer's certificate and private key, where the PACS asks for one (and for the
        C-MOVE listener). Others must not be able to read the key.
    server_name
        The name in the PACS's certificate, where it differs from the host.
    """

    ca_file: str
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class MoveSettings(_Block):
    """Where this computer takes what the PACS sends after a C-MOVE.

    `sender_ae_title` is the title under which the PACS sends, where it is not the called one.
    """

    ae_title: AeTitle
    port: Port
    sender_ae_title: AeTitle | None = None
    address: str = "0.0.0.0"  # noqa: S104 - the PACS is another computer; peers are checked


class DimseSettings(_Block):
    """A PACS that speaks DIMSE. `retrieve: move` needs `move`."""

    protocol: Literal["dimse"]
    host: Annotated[str, Field(min_length=1)]
    port: Port
    called_ae_title: AeTitle
    calling_ae_title: AeTitle
    retrieve: Literal["get", "move"] = "get"
    move: MoveSettings | None = None
    tls: TlsSettings | None = None

    @model_validator(mode="after")
    def _check_move(self) -> Self:
        if (self.retrieve == "move") != (self.move is not None):
            raise ValueError("`move` is given if and only if `retrieve` is move")
        if self.move and self.tls and self.tls.certificate is None:
            raise ValueError("a C-MOVE listener with TLS needs tls.certificate and tls.key")
        return self


class DicomWebSettings(_Block):
    """A PACS that speaks DICOMweb. A password never travels unencrypted to another computer."""

    protocol: Literal["dicomweb"]
    url: str
    user: str | None = None
    password_file: str | None = None
    tls: TlsSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError("url is the DICOMweb root, such as https://host/dicom-web")
        if parts.username or parts.password:
            raise ValueError("the url holds no user or password: use user and password_file")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("http is allowed on this computer only: use https")
        if parts.scheme == "http" and self.tls:
            raise ValueError("tls is for an https url")
        return self


class RoleRule(_Block):
    """Which series of a study takes a role. Patterns have `*` and `?` and ignore case.

    Attributes
    ----------
    description
        SeriesDescription matches one of them.
    exclude
        and none of these.
    study_description
        StudyDescription matches one of them.
    modalities
        The series is of one of them; by default of the rules' own modality.
    minimum_instances
        Fewer, and the series is passed over; by default 15, or 1 of radiographs.
    preferred_thickness_mm
        Of several suitable series the one nearest to it is taken.
    """

    description: Patterns = ["*"]
    exclude: list[str] = []
    study_description: Patterns = ["*"]
    modalities: Annotated[list[Modality], Field(min_length=1)] | None = None
    minimum_instances: Annotated[int, Field(ge=1)] | None = None
    preferred_thickness_mm: Annotated[float, Field(gt=0)] | None = None


class SeriesRules(_Block):
    """The modality, and a rule for each role; a role without a rule is not pulled."""

    modality: Modality = "CT"
    allow_contrast: bool = False
    index: RoleRule | None = None
    reference: RoleRule | None = None

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        if self.index is None and self.reference is None:
            raise ValueError("rules need index, reference or both")
        return self

    def modalities_of(self, rule: RoleRule) -> frozenset[str]:
        """Return the modalities of a role's series."""
        return frozenset(rule.modalities or (self.modality,))

    def fewest_instances(self, rule: RoleRule) -> int:
        """Return with how many instances a role's series is suitable."""
        if rule.minimum_instances is not None:
            return rule.minimum_instances
        return 1 if self.modalities_of(rule) <= RADIOGRAPHS else _FEWEST_OF_A_VOLUME

    @property
    def study_modality(self) -> str:
        """The modality that every study looked for has a series of; empty if there are several."""
        rules = [rule for rule in (self.index, self.reference) if rule is not None]
        several = frozenset[str]().union(*(self.modalities_of(rule) for rule in rules))
        return next(iter(several)) if len(several) == 1 else ""


class PacsSettings(_Block):
    """How a site's PACS is reached, what is pulled, how gently, and how long it is kept.

    Attributes
    ----------
    connection
        `protocol: dimse` or `protocol: dicomweb`, and what belongs to it.
    rules
        Which series are pulled.
    folder
        Where pulled files, their manifest and the journal lie.
    timeout_s
        Seconds without an answer after which the PACS counts as silent.
    pause_s
        Seconds between the starts of two associations (DIMSE) or connections (DICOMweb).
    concurrent
        Series pulled at the same time, at most.
    attempts
        How often a series is asked for, when what went wrong may pass.
    maximum_studies
        Studies that one query may return.
    keep_days
        Days after which pulled files are removed, counted from a series' first instance.
    remove_when_scored
        Remove a patient's files before that, as soon as no round needs them.
    """

    connection: Annotated[DimseSettings | DicomWebSettings, Field(discriminator="protocol")]
    rules: SeriesRules
    folder: Annotated[str, Field(min_length=1)] = "pacs"
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    pause_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    concurrent: Annotated[int, Field(ge=1, le=8)] = 1
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    maximum_studies: Annotated[int, Field(ge=1)] = 2000
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    remove_when_scored: bool = False
