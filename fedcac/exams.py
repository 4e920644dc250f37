"""The exam records of one site as columns: what estimators summarise and what never leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Exams", "vessel_columns"]


def vessel_columns(vessel: str) -> tuple[str, str]:
    """Return the index and reference column names of a vessel, such as `index_lad`."""
    return f"index_{vessel}", f"reference_{vessel}"


@dataclass(frozen=True, eq=False)
class Exams:
    """One row per patient: one exam pair, or one exam with its reference.

    Attributes
    ----------
    columns
        Name to float64 array of shape (n,). NaN means missing. Columns follow the site-table
        contract: `index_score`, `reference_score`, `index_{lm,lad,lcx,rca}`, `follow_up_days`,
        `event`, and the protocol's covariates. A categorical covariate is coded 0, 1, ... in the
        order of the protocol's levels; a binary one is 0 or 1.
    keys
        Site-local pseudonyms, shape (n,), all different. They never leave the site.
    secret
        The site's secret for resampling: who lands in which group or sample follows from it and
        the keys. It never leaves either. Empty where nothing is resampled.
    """

    columns: Mapping[str, NDArray[np.float64]]
    keys: tuple[str, ...] = field(repr=False)
    secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("exam keys must differ: one row per patient")
        for name, values in self.columns.items():
            if values.shape != (len(self.keys),):
                raise ValueError(f"column '{name}' has shape {values.shape}, not ({self.n},)")

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.keys)

    def has(self, name: str) -> bool:
        """Say whether a column exists."""
        return name in self.columns

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column of shape (n,); KeyError if the site does not hold it."""
        return self.columns[name]

    def complete(self, names: Sequence[str]) -> Exams:
        """Return the rows in which none of the named columns is missing."""
        keep = np.ones(self.n, dtype=np.bool_)
        for name in names:
            keep &= np.isfinite(self.column(name))
        return self.where(keep)

    def where(self, keep: NDArray[np.bool_]) -> Exams:
        """Return the rows marked in a boolean array of shape (n,)."""
        return Exams(
            columns={name: values[keep] for name, values in self.columns.items()},
            keys=tuple(key for key, kept in zip(self.keys, keep, strict=True) if kept),
            secret=self.secret,
        )

    def with_secret(self, secret: bytes) -> Exams:
        """Return the same patients at a site with this secret."""
        return Exams(columns=self.columns, keys=self.keys, secret=secret)

    def with_column(self, name: str, values: NDArray[np.float64]) -> Exams:
        """Return the same patients with one column added or replaced; values of shape (n,)."""
        return Exams(columns={**self.columns, name: values}, keys=self.keys, secret=self.secret)
