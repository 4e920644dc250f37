"""Estimates as a pandas frame, and as a Parquet file that gives the same frame back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from fedcac.errors import TableError
from fedcac.report.estimates_csv import COLUMNS
from fedcac.report.publishing import publishing_module
from fedcac.statistics.estimator import Estimate
from fedcac.vocabulary import Measure, RowStatus

__all__ = [
    "PARQUET_FILE",
    "PARQUET_SCHEMA_VERSION",
    "estimates_frame",
    "estimates_of",
    "estimates_parquet",
    "read_estimates_parquet",
]

PARQUET_FILE: Final = "estimates.parquet"
PARQUET_SCHEMA_VERSION: Final = 1

_VERSION_KEY = b"fedcac_schema_version"
_NUMBERS = ("estimate", "se", "ci_low", "ci_high", "p_value")
_COUNTS = ("n", "n_events")


def estimates_frame(estimates: Iterable[Estimate]) -> pd.DataFrame:
    """Return one row per estimate: words as text, numbers float64 (NaN), counts Int64 (NA)."""
    frame = pd.DataFrame(
        [[getattr(row, column) for column in COLUMNS] for row in estimates], columns=list(COLUMNS)
    )
    for column in COLUMNS:
        if column in _NUMBERS:
            frame[column] = frame[column].astype("float64")
        elif column in _COUNTS:
            frame[column] = frame[column].astype("Int64")
        else:
            frame[column] = pd.Series([str(value) for value in frame[column]], dtype=object)
    return frame


def estimates_of(frame: pd.DataFrame) -> tuple[Estimate, ...]:
    """Return the rows of a frame that `estimates_frame` gave."""
    texts = [name for name in COLUMNS if name not in (*_NUMBERS, *_COUNTS)]
    return tuple(
        Estimate(
            **{
                **{name: row[name] for name in texts},
                **{name: None if pd.isna(row[name]) else float(row[name]) for name in _NUMBERS},
                **{name: None if pd.isna(row[name]) else int(row[name]) for name in _COUNTS},
                "measure": Measure(row["measure"]),
                "status": RowStatus(row["status"]),
            }
        )
        for row in frame.to_dict("records")
    )


def estimates_parquet(estimates: Iterable[Estimate], about: Mapping[str, str]) -> bytes:
    """Return the rows of `estimates.csv` as Parquet: same columns, order and values.

    Text columns are UTF-8, numbers float64 and counts int64, both null where the row has none.
    The file's metadata hold `fedcac_schema_version` and every entry of `about`.

    Raises
    ------
    UsageError
        If pyarrow is not installed (`no_publishing`).
    """
    pa, parquet = publishing_module("pyarrow"), publishing_module("pyarrow.parquet")
    fields = [(name, _arrow_type(pa, name)) for name in COLUMNS]
    table = pa.Table.from_pandas(
        estimates_frame(estimates), schema=pa.schema(fields), preserve_index=False
    )
    # pandas' own entry stays: it makes counts come back as Int64 rather than as floats.
    words = {key.encode(): value.encode() for key, value in about.items()}
    version = {_VERSION_KEY: str(PARQUET_SCHEMA_VERSION).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **words, **version})
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_estimates_parquet(path: Path) -> pd.DataFrame:
    """Return the frame that `estimates_parquet` wrote, equal to that of `estimates.csv`.

    Raises
    ------
    UsageError
        If pyarrow is not installed (`no_publishing`).
    TableError
        If it is no Parquet file of estimates, or of another schema version (`estimates_columns`).
    """
    pa, parquet = publishing_module("pyarrow"), publishing_module("pyarrow.parquet")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _other_columns(path) from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"")
    types = [(field.name, field.type) for field in table.schema]
    if version != str(PARQUET_SCHEMA_VERSION).encode() or types != [
        (name, _arrow_type(pa, name)) for name in COLUMNS
    ]:
        raise _other_columns(path)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _arrow_type(pa: object, column: str) -> object:
    name = "float64" if column in _NUMBERS else "int64" if column in _COUNTS else "string"
    return getattr(pa, name)()


def _other_columns(path: Path) -> TableError:
    return TableError(
        f"'{path.name}' is not an estimates table of schema version {PARQUET_SCHEMA_VERSION}.",
        code="estimates_columns",
        cure="Use the file as it was written, with the version of fedcac that wrote it.",
    )
