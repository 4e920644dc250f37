"""The frozen cohort of a round: the exams analysed and the flow that led to them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fedcac.aggregate import FlowCounts, FlowStage
from fedcac.canonical import Digest, digest_of
from fedcac.exams import Exams
from fedcac.protocol import Protocol
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    # Only a site that scores needs torch; a table of scores is analysed without it.
    from fedcac.models import ModelPackage

__all__ = ["ExamSource", "FrozenCohort", "empty_cohort", "flow_of"]


def flow_of(counts: Mapping[FlowStage, int], exclusions: Counter[ExclusionReason]) -> FlowCounts:
    """Return the flow aggregate of stage counts and coded exclusions."""
    return FlowCounts(
        n_patients=counts[FlowStage.ANALYSED],
        stages={stage: counts[stage] for stage in FlowStage},
        exclusions={reason: number for reason, number in sorted(exclusions.items()) if number},
    )


@dataclass(frozen=True, eq=False)
class FrozenCohort:
    """The exam records of one round. What is computed later is computed on exactly these."""

    exams: Exams
    flow: FlowCounts

    def digest(self) -> Digest:
        """Return the digest of every value, independent of the order of rows and columns."""
        return self._digest

    @cached_property
    def _digest(self) -> Digest:
        return digest_of(self._document())

    def _document(self) -> dict[str, object]:
        order = sorted(range(self.exams.n), key=self.exams.keys.__getitem__)
        columns = {
            name: [None if np.isnan(values[row]) else float(values[row]) for row in order]
            for name, values in self.exams.columns.items()
        }
        return {"keys": [self.exams.keys[row] for row in order], "columns": columns}

    def to_json(self) -> str:
        """Return the cohort as it is stored at the site."""
        flow = self.flow.model_dump(mode="json", exclude={"evidence"})
        return json.dumps({**self._document(), "flow": flow})

    @classmethod
    def from_json(cls, text: str) -> FrozenCohort:
        """Read a stored cohort."""
        document = json.loads(text)
        columns = {
            name: np.array([np.nan if value is None else value for value in values], dtype=float)
            for name, values in document["columns"].items()
        }
        return cls(
            exams=Exams(columns=columns, keys=tuple(document["keys"])),
            flow=FlowCounts.model_validate_json(json.dumps(document["flow"])),
        )


def empty_cohort() -> FrozenCohort:
    """Return the cohort of a site that has no eligible patient."""
    return FrozenCohort(
        exams=Exams(columns={}, keys=()),
        flow=flow_of(dict.fromkeys(FlowStage, 0), Counter()),
    )


class ExamSource(ABC):
    """Where a site's exams come from: a scored table, or DICOM scored here."""

    needs_package: bool

    def scores(self, package_digest: str | None) -> bool:
        """Say whether a round of this package, None if it has none, is scored by one here."""
        return self.needs_package

    @abstractmethod
    def collect(
        self,
        protocol: Protocol,
        package: ModelPackage | None,
        reference: ModelPackage | None = None,
    ) -> FrozenCohort:
        """Return the cohort of a protocol, scoring what is not scored yet. Resumable.

        With a `reference` package the reference exam of every pair is scored by it, and that score
        is the reference score, whatever the clinical table says. An already scored table states
        its reference scores itself.

        Raises
        ------
        CohortError
            If no patient is eligible (`cohort.empty`), or more are excluded than the site allows.
        TableError
            If a table or manifest cannot be used.
        """
