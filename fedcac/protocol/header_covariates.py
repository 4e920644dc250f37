"""Covariates that the DICOM header of the scored series tells, so that no table need hold them.

A protocol declares them like any other covariate, under these names. Where a site's table has the
column, the table counts: a hospital knows its scanners better than a de-identified header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedcac.protocol.columns import ColumnKind, columns_of
from fedcac.protocol.schema import Covariate, Protocol

__all__ = ["HEADER_COVARIATES", "OTHER", "VENDORS", "HeaderCovariate", "header_covariates"]

OTHER = "other"
"""The level of a manufacturer that the protocol does not name."""

VENDORS = (
    "GE",
    "Siemens",
    "Philips",
    "Canon",
    "Fujifilm",
    "United Imaging",
    "Neusoft",
    "Samsung",
    "Shimadzu",
    "Agfa",
    "Carestream",
    "Konica Minolta",
)
"""Manufacturers as levels spell them, in any case of letters."""


@dataclass(frozen=True)
class HeaderCovariate:
    """How a header's covariate must be declared.

    Attributes
    ----------
    type
        As `Covariate.type`.
    source
        The DICOM attributes it is taken from.
    levels
        The levels a declaration may use; none unless it is categorical.
    """

    type: Literal["continuous", "binary", "categorical"]
    source: str
    levels: tuple[str, ...] = ()


HEADER_COVARIATES: Mapping[str, HeaderCovariate] = {
    "scanner_manufacturer": HeaderCovariate(
        "categorical", "Manufacturer (0008,0070), under one name per vendor", (*VENDORS, OTHER)
    ),
    "slice_thickness_mm": HeaderCovariate("continuous", "SliceThickness (0018,0050), the largest"),
    "kernel_class": HeaderCovariate(
        "categorical", "ConvolutionKernel (0018,1210)", ("soft", "sharp")
    ),
    "tube_voltage_kv": HeaderCovariate("continuous", "KVP (0018,0060)"),
    "contrast_enhanced": HeaderCovariate(
        "binary", "Contrast/Bolus Agent (0018,0010) and SeriesDescription"
    ),
    "ecg_gated": HeaderCovariate("binary", "the evidence by which series are chosen"),
}
"""Every covariate that a header tells, by name."""


def header_covariates(protocol: Protocol) -> tuple[str, ...]:
    """Return the covariates that the protocol's analyses read and a header tells.

    One whose declaration does not fit, in its type or by a level that no header gives, is a
    covariate of the table like any other: its words are then the consortium's own.
    """
    asked: dict[str, None] = {}
    for spec in protocol.analyses:
        columns = columns_of(spec, protocol)
        for name, kind in {**columns.optional, **columns.needed}.items():
            if kind is ColumnKind.COVARIATE and _fits(protocol.covariate(name)):
                asked[name] = None
    return tuple(asked)


def _fits(covariate: Covariate) -> bool:
    known = HEADER_COVARIATES.get(covariate.name)
    if known is None or known.type != covariate.type:
        return False
    allowed = {level.casefold() for level in known.levels}
    return all(level.casefold() in allowed for level in covariate.levels)
