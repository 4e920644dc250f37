"""The protocol: a signed, declarative evaluation plan. Frozen, strict, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedcac.canonical import Digest, digest_of
from fedcac.protocol.analyses import AnalysisSpec, Identifier
from fedcac.protocol.categories import CategoryScheme
from fedcac.protocol.consistency import (
    check_acquisition,
    check_analyses,
    check_columns,
    check_pooling,
    inconsistent,
    repeated,
)
from fedcac.vocabulary import IndexTest, Modality, ReferenceKind, ScoreRole

__all__ = [
    "Amendment",
    "Citation",
    "ClinicalCriterion",
    "Covariate",
    "DisclosureMinimum",
    "Endpoint",
    "ImageCriteria",
    "IndexTestSpec",
    "Pairing",
    "Pooling",
    "Protocol",
    "Reference",
    "ScoreColumn",
    "Subgroup",
]

Sentence = Annotated[str, Field(min_length=3, max_length=600)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Amendment(_Part):
    """An earlier version that this protocol amends, and why; the report lists them."""

    version: Annotated[int, Field(ge=1)]
    reason: Sentence


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
    """Image-level eligibility of the index exam, checked on DICOM before scoring.

    A series whose header says clearly that it is another `acquisition` is excluded. A folder must
    hold one series, unless `choose_series` lets it hold a whole study: then, of the eligible
    series, one of the `acquisition` asked for is taken before one that leaves it open, a soft
    kernel before a sharp one, one of `preferred_kernels` (in their order) before others, and the
    slice thickness nearest to `preferred_thickness_mm`. Of a series with several cardiac phases
    the one nearest to `preferred_phase_percent` of R-R is read; without it there is no rule.
    """

    min_slices: Annotated[int, Field(ge=1)] = 15
    max_slice_thickness_mm: Annotated[float, Field(gt=0)] = 6.0
    allow_contrast: bool = False
    allow_sharp_kernel: bool = False
    acquisition: Literal["any", "gated", "non_gated", "attenuation_correction"] = "any"
    choose_series: bool = False
    preferred_kernels: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9+_. /-]{1,24}$")], ...] = ()
    preferred_thickness_mm: Annotated[float, Field(gt=0)] = 3.0
    preferred_phase_percent: Annotated[float, Field(ge=0, le=100)] | None = None


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
        if twice := repeated(level.lower() for level in self.levels):
            raise ValueError(f"level used twice: {twice}")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self


class Endpoint(_Part):
    """A time-to-event outcome in the site table; times are in days from the index exam.

    `exclusion` leaves patients out of this endpoint alone: Miller 2023 excludes patients
    revascularised within 90 days, which looks into the future. `landmark_days` is the analysis
    that does not: it starts that many days after the exam, with the patients still followed and
    free of the event then, and counts time from there.
    """

    name: Identifier
    definition: Sentence
    time_column: Identifier = "follow_up_days"
    event_column: Identifier = "event"
    exclusion: ClinicalCriterion | None = None
    landmark_days: Annotated[int, Field(ge=0, le=3650)] = 0


class ScoreColumn(_Part):
    """A further score in the site table: a second index test, or a second reference standard."""

    column: Identifier
    description: Sentence


class Subgroup(_Part):
    """Patients with one of a covariate's `levels`, or a value from `minimum` to below `below`."""

    name: Identifier
    covariate: Identifier
    levels: tuple[str, ...] = ()
    minimum: float | None = None
    below: float | None = None
    description: Sentence

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.minimum is not None and self.below is not None and self.minimum >= self.below:
            raise ValueError("nobody is between: minimum must be below 'below'")
        return self


class DisclosureMinimum(_Part):
    """The least a site must apply; the site's own policy may only be stricter."""

    minimum_cell: Annotated[int, Field(ge=1)] = 5
    minimum_patients: Annotated[int, Field(ge=1)] = 20


class Pooling(_Part):
    """How the sites' answers are put together.

    `open`: each site answers by itself, and the report has rows of every site. `masked`: the
    coordinator learns sums over at least `least_sites` sites and no site's own answer, except to
    the analyses named in `per_site`, which are answered as under `open`.
    """

    mode: Literal["open", "masked"] = "open"
    least_sites: Annotated[int, Field(ge=3, le=1000)] = 3
    per_site: tuple[Identifier, ...] = ()


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
    comparator: ScoreColumn | None = None
    second_reference: ScoreColumn | None = None
    subgroups: tuple[Subgroup, ...] = ()
    analyses: Annotated[tuple[AnalysisSpec, ...], Field(min_length=1)]
    disclosure: DisclosureMinimum = DisclosureMinimum()
    pooling: Pooling = Pooling()
    amends: tuple[Amendment, ...] = ()

    @model_serializer(mode="wrap")
    def _without_no_amendment(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A protocol that amends none has the digest that it had before there were amendments.
        document: dict[str, Any] = handler(self)
        if not self.amends:
            document.pop("amends", None)
        return document

    @field_validator("schema_version", mode="before")
    @classmethod
    def _is_an_integer(cls, value: Any) -> Any:
        # `true` and `1.0` equal 1, and would pass for it.
        if type(value) is not int:
            raise PydanticCustomError("int_type", "Input should be a valid integer")
        return value

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        check_acquisition(self)
        check_columns(self)
        check_analyses(self)
        check_pooling(self)
        versions = [one.version for one in self.amends]
        if versions != sorted(set(versions)) or max(versions, default=0) >= self.version:
            raise inconsistent(
                "the versions amended are named once each, in order, and are older than this one",
                "amends",
            )
        if self.reference.modality is not self.modality and self.pairing is None:
            raise inconsistent(
                "index and reference are read on different exams: declare pairing.window_days",
                "reference",
            )
        return self

    def digest(self) -> Digest:
        """Return the digest of the protocol's canonical JSON."""
        return digest_of(self.model_dump(mode="json"))

    def is_masked(self, analysis: str) -> bool:
        """Say whether an analysis is answered in sums over sites only."""
        return self.pooling.mode == "masked" and analysis not in self.pooling.per_site

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

    def subgroup(self, name: str) -> Subgroup:
        """Return a declared subgroup by name; KeyError if there is none."""
        for subgroup in self.subgroups:
            if subgroup.name == name:
                return subgroup
        raise KeyError(name)

    def analysis(self, name: str) -> AnalysisSpec:
        """Return a declared analysis by id; KeyError if there is none."""
        for analysis in self.analyses:
            if analysis.id == name:
                return analysis
        raise KeyError(name)

    def chosen_cut_offs(self, wanted: tuple[float, ...]) -> tuple[float, ...]:
        """Return the cut-offs that an analysis names, in order; all if it names none."""
        return tuple(cut for cut in self.categories.cut_offs if not wanted or cut in wanted)

    def score_column(self, role: str) -> str:
        """Return the site-table column of a `ScoreRole`; KeyError if it is not declared."""
        declared = {
            ScoreRole.INDEX.value: "index_score",
            ScoreRole.REFERENCE.value: "reference_score",
        }
        for further, score in (
            (ScoreRole.COMPARATOR, self.comparator),
            (ScoreRole.SECOND_REFERENCE, self.second_reference),
        ):
            if score is not None:
                declared[further.value] = score.column
        return declared[role]
