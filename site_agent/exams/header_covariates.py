"""Covariates that the header of the scored series tells, joined to a site's clinical table."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from fedcac.canonical import digest_of
from fedcac.console import progress
from fedcac.errors import DicomError
from fedcac.imaging.acquisition_covariates import (
    AcquisitionFacts,
    covariate_value,
    read_acquisition,
)
from fedcac.protocol.header_covariates import header_covariates

if TYPE_CHECKING:
    from fedcac.imaging import ExamPair, PairingOutcome
    from fedcac.protocol import ImageCriteria, Protocol
    from fedcac.site_table import ClinicalTable
    from site_agent.state.store import SiteStore

__all__ = ["with_header_covariates"]

_LOG = logging.getLogger(__name__)
_KIND = "acquisition"


def with_header_covariates(
    table: ClinicalTable, pairing: PairingOutcome, protocol: Protocol, store: SiteStore | None
) -> ClinicalTable:
    """Return the table with the covariates that the protocol names and only a header tells.

    A column that the table has is left as it is, empty cells included. The header is that of the
    index exam's series, the one that is scored. Where it cannot be read the values are missing;
    why, the scoring of the same series says.

    Parameters
    ----------
    store
        Where what a header said is kept, so that it is read once; None reads and keeps nothing.
    """
    names = [name for name in header_covariates(protocol) if name not in table.columns]
    wanted = [
        pair
        for pair in pairing.pairs
        if pair.patient_id in table.rows and pair.patient_id not in table.excluded
    ]
    if not names:
        return table
    found: dict[str, dict[str, float]] = {}
    with progress("Reading acquisition headers", len(wanted)) as advance:
        for pair in wanted:
            try:
                facts = _kept_or_read(pair, protocol.image_criteria, store)
                found[pair.patient_id] = {
                    name: covariate_value(protocol.covariate(name), facts) for name in names
                }
            except DicomError as error:
                _LOG.warning("a header told no covariates: %s", error.code)
            advance()
    missing = dict.fromkeys(names, math.nan)
    rows = {patient: row | missing | found.get(patient, {}) for patient, row in table.rows.items()}
    return replace(table, rows=rows, columns=(*table.columns, *names))


def _kept_or_read(
    pair: ExamPair, criteria: ImageCriteria, store: SiteStore | None
) -> AcquisitionFacts:
    name = digest_of(
        {
            "exam_key": pair.exam_key,
            "series": str(pair.index_path),
            "criteria": criteria.model_dump(mode="json"),
        }
    )
    kept = None if store is None else store.document(_KIND, name)
    if kept is not None:
        return AcquisitionFacts(**json.loads(kept))
    facts = read_acquisition(pair.index_path, criteria)
    if store is not None:
        store.keep_documents({(_KIND, name): json.dumps(asdict(facts)).encode()})
    return facts
