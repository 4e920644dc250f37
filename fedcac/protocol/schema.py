"""The protocol: a signed, declarative evaluation plan. Frozen, strict, unknown keys refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from fedcac.canonical import Digest, digest_of
from fedcac.protocol.analyses import AgreementSpec, AnalysisSpec, CoxSpec, Identifier
from fedcac.protocol.categories import CategoryScheme
from fedcac.vocabulary import IndexTest, Modality, ReferenceKind, Vessel

__all__ = [
    "Citation",
    "ClinicalCriterion",
    "Covariate",
    "DisclosureMinimum",
    "Endpoint",
    "ImageCriteria",
    "IndexTestSpec",
    "Pairing",
    "Protocol",
    "Reference",
]

Sentence = Annotated[str, Field(min_length=3, max_length=600)]


_SCORE_COLUMNS = frozenset(
    f"{side}_{what}"
    for side in ("index", "reference")
    for what in ("score", *(vessel.value for vessel in Vessel))
)


def _inconsistent(message: str, *at: str | int) -> PydanticCustomError:
    """Return the error of a plan that contradicts itself; `at` is the key to look at."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "at": at})


def _repeated(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Citation(_Part):
    """The publication whose analysis this protocol follows."""

    text: Sentence
    doi: Annotated[str, Field(pattern=r"^10\.[0-9]{4,9}/\S{1,100}$")]


class IndexTestSpec(_Part):
    """The model under evaluation: its family in the registry and what it answers with."""

    kind: IndexTest
    model_family: Identifier
    scoring_profile: Identifier = "agatston1990"


class Reference(_Part):
    """What the index test is judged against; `modality` is the exam the reference was read on."""

    kind: ReferenceKind
    modality: Modality


class Pairing(_Part):
    """Two exams of one patient are a pair when their study dates differ by at most this."""

    window_days: Annotated[int, Field(ge=0, le=3650)]


class ImageCriteria(_Part):
    """Image-level eligibility of the index exam, checked on DICOM before scoring."""

    min_slices: Annotated[int, Field(ge=1)] = 15
    max_slice_thickness_mm: Annotated[float, Field(gt=0)] = 6.0
    allow_contrast: bool = False
    allow_sharp_kernel: bool = False


class ClinicalCriterion(_Part):
    """Exclude a patient whose table `column` equals `value`; `statement` is printed in reports."""

    column: Identifier
    exclude_if: float
    statement: Sentence


class Covariate(_Part):
    """One covariate of the site table.

    `scale` divides a continuous value (`scale: 10` reports a hazard ratio per 10 units). A
    categorical covariate names its `levels`; the first is the reference level.
    """

    name: Identifier
    type: Literal["continuous", "binary", "categorical"]
    description: Sentence
    unit: Annotated[str, Field(max_length=20)] = ""
    minimum: float | None = None
    maximum: float | None = None
    scale: Annotated[float, Field(gt=0)] = 1.0
    levels: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9<>=. %-]{1,24}$")], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "categorical") != (len(self.levels) >= 2):
            raise ValueError(
                "levels (two or more) belong to a categorical covariate, and only there"
            )
        # A table's words are matched without regard to case.
        if repeated := _repeated(level.lower() for level in self.levels):
            raise ValueError(f"level used twice: {repeated}")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self


class Endpoint(_Part):
    """A time-to-event outcome in the site table; times are in days from the index exam."""

    name: Identifier
    definition: Sentence
    time_column: Identifier = "follow_up_days"
    event_column: Identifier = "event"


class DisclosureMinimum(_Part):
    """The least a site must apply; the site's own policy may only be stricter."""

    minimum_cell: Annotated[int, Field(ge=1)] = 5
    minimum_patients: Annotated[int, Field(ge=1)] = 20


class Protocol(_Part):
    """An evaluation plan. Everything a site computes is named in it, and nothing else is."""

    schema_version: Literal[1]
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,59}$")]
    version: Annotated[int, Field(ge=1)]
    title: Sentence
    purpose: Sentence
    citation: Citation
    modality: Modality
    index_test: IndexTestSpec
    reference: Reference
    pairing: Pairing | None = None
    image_criteria: ImageCriteria = ImageCriteria()
    inclusion: Annotated[tuple[Sentence, ...], Field(min_length=1)]
    exclusion: tuple[Sentence, ...] = ()
    clinical_criteria: tuple[ClinicalCriterion, ...] = ()
    categories: CategoryScheme
    covariates: tuple[Covariate, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    analyses: Annotated[tuple[AnalysisSpec, ...], Field(min_length=1)]
    disclosure: DisclosureMinimum = DisclosureMinimum()

    @field_validator("schema_version", mode="before")
    @classmethod
    def _is_an_integer(cls, value: Any) -> Any:
        # `true` and `1.0` equal 1, and would pass for it.
        if type(value) is not int:
            raise PydanticCustomError("int_type", "Input should be a valid integer")
        return value

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        self._check_names()
        self._check_columns()
        for index, analysis in enumerate(self.analyses):
            if isinstance(analysis, CoxSpec):
                self._check_cox(index, analysis)
            elif isinstance(analysis, AgreementSpec):
                if repeated := _repeated(analysis.weights):
                    raise _inconsistent(f"used twice: {repeated}", "analyses", index, "weights")
        if self.reference.modality is not self.modality and self.pairing is None:
            raise _inconsistent(
                "index and reference are read on different exams: declare pairing.window_days",
                "reference",
            )
        return self

    def _check_names(self) -> None:
        for what, section, names in (
            ("analysis id", "analyses", [analysis.id for analysis in self.analyses]),
            ("covariate", "covariates", [covariate.name for covariate in self.covariates]),
            ("endpoint", "endpoints", [endpoint.name for endpoint in self.endpoints]),
        ):
            if repeated := _repeated(names):
                raise _inconsistent(f"{what} used twice: {repeated}", section)

    def _check_columns(self) -> None:
        # One column of the site table has one reading; endpoints may share times or events.
        roles = dict.fromkeys(_SCORE_COLUMNS, "a score") | {"patient_id": "the patient"}
        claims: list[tuple[str, str, tuple[str | int, ...]]] = [
            (covariate.name, "a covariate", ("covariates", index, "name"))
            for index, covariate in enumerate(self.covariates)
        ]
        for index, endpoint in enumerate(self.endpoints):
            claims += [
                (endpoint.time_column, "a time", ("endpoints", index, "time_column")),
                (endpoint.event_column, "an event", ("endpoints", index, "event_column")),
            ]
        for column, role, at in claims:
            taken = roles.setdefault(column, role)
            if taken != role:
                raise _inconsistent(f"column '{column}' is {taken} already, not {role}", *at)

    def _check_cox(self, index: int, analysis: CoxSpec) -> None:
        at = ("analyses", index)
        declared = {covariate.name for covariate in self.covariates}
        if unknown := sorted(set(analysis.covariates) - declared):
            raise _inconsistent(
                f"analysis '{analysis.id}' names covariates that the protocol does not "
                f"declare: {', '.join(unknown)}",
                *at,
                "covariates",
            )
        if repeated := _repeated(analysis.covariates):
            raise _inconsistent(f"covariate used twice: {repeated}", *at, "covariates")
        if analysis.endpoint not in {endpoint.name for endpoint in self.endpoints}:
            raise _inconsistent(
                f"analysis '{analysis.id}' names endpoint '{analysis.endpoint}', "
                "which the protocol does not declare",
                *at,
                "endpoint",
            )
        if not analysis.covariates and analysis.risk_category == "none":
            raise _inconsistent(f"analysis '{analysis.id}' has nothing to estimate", *at)

    def digest(self) -> Digest:
        """Return the digest of the protocol's canonical JSON."""
        return digest_of(self.model_dump(mode="json"))

    def covariate(self, name: str) -> Covariate:
        """Return a declared covariate by name.

        Raises
        ------
        KeyError
            If the protocol does not declare it.
        """
        for covariate in self.covariates:
            if covariate.name == name:
                return covariate
        raise KeyError(name)

    def endpoint(self, name: str) -> Endpoint:
        """Return a declared endpoint by name; KeyError if there is none."""
        for endpoint in self.endpoints:
            if endpoint.name == name:
                return endpoint
        raise KeyError(name)
