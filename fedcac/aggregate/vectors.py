"""Aggregates as plain vectors that may be added over sites, and back again.

What every site says of an analysis is a sum over its patients, or follows from one: the vector
holds these sums, so that the sum of the sites' vectors is the vector of all their patients. A
`Layout` says how long each part is. It follows from the question alone, never from the patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fedcac.aggregate.base import Aggregate, WholeNumber, registered
from fedcac.aggregate.shapes import (
    BinnedCounts,
    CrossTable,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)
from fedcac.errors import GateError

__all__ = ["Layout", "aggregate_of", "layout_of", "vector_of"]

Numbers = list[float]


class Layout(BaseModel):
    """The kind of an aggregate, the length of its parts, and whether it counts events.

    `sizes` holds per shape: of a cross table the number of categories; of moments the number of
    terms; of bins and life tables, per variable (or once), the bins of each group; of a likelihood
    the number of parameters; of totals the number of columns in each row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    sizes: tuple[tuple[WholeNumber, ...], ...]
    has_events: bool = False

    @property
    def n_numbers(self) -> int:
        """Length of the vector."""
        form = _form_of(registered()[self.kind])
        return 1 + self.has_events + form.n_numbers(self.sizes)


class _Form(NamedTuple):
    sizes: Callable[[Any], tuple[tuple[int, ...], ...]]
    n_numbers: Callable[[tuple[tuple[int, ...], ...]], int]
    numbers: Callable[[Any], Numbers]
    fields: Callable[[tuple[tuple[int, ...], ...], Iterator[float]], dict[str, Any]]


def layout_of(aggregate: Aggregate) -> Layout:
    """Return the layout of an aggregate as a site summarises it, before anything is suppressed.

    Raises
    ------
    GateError
        If its shape has no vector, or its bins are not a whole public grid (`not_summable`).
    """
    form = _form_of(type(aggregate))
    events = getattr(aggregate, "n_events", None)
    sizes = form.sizes(aggregate)
    return Layout(kind=type(aggregate).kind, sizes=sizes, has_events=events is not None)


def vector_of(aggregate: Aggregate) -> Numbers:
    """Return the numbers to be added; a suppressed cell adds nothing.

    Order: patients, events if they are counted, then the parts of the shape as in `Layout`.
    """
    form = _form_of(type(aggregate))
    events = getattr(aggregate, "n_events", None)
    counted = [] if events is None else [float(events)]
    return [float(aggregate.n_patients), *counted, *form.numbers(aggregate)]


def aggregate_of(layout: Layout, vector: Sequence[float]) -> Aggregate:
    """Return the aggregate of all patients from the sum of the sites' vectors.

    Raises
    ------
    GateError
        If the vector has another length or the numbers no such shape (`malformed_aggregate`).
    """
    if layout.kind not in registered() or len(vector) != layout.n_numbers:
        raise GateError("A sum does not have its declared layout.", code="malformed_aggregate")
    aggregate_type = registered()[layout.kind]
    form, numbers = _form_of(aggregate_type), iter(vector)
    fields: dict[str, Any] = {"n_patients": round(next(numbers))}
    if layout.has_events:
        fields["n_events"] = round(next(numbers))
    elif "n_events" in aggregate_type.model_fields:
        fields["n_events"] = None
    try:
        return aggregate_type(**fields, **form.fields(layout.sizes, numbers))
    except ValueError as error:
        raise GateError(
            "A sum does not have its declared shape.", code="malformed_aggregate"
        ) from error


def _form_of(aggregate_type: type[Aggregate]) -> _Form:
    for shape, form in _FORMS.items():
        if issubclass(aggregate_type, shape):
            return form
    raise _not_summable()


def _not_summable() -> GateError:
    return GateError(
        "This aggregate cannot be added over sites.",
        code="not_summable",
        cure="List its analysis under pooling.per_site in the protocol.",
    )


def _number(cell: Any) -> float:
    return float(cell) if isinstance(cell, int | float) else 0.0


def _take(numbers: Iterator[float], count: int) -> Numbers:
    return [next(numbers) for _ in range(count)]


def _counts(numbers: Iterator[float], count: int) -> tuple[int, ...]:
    return tuple(round(number) for number in _take(numbers, count))


# cross tables


def _table_numbers(table: Any) -> Numbers:
    rows = (*table.matrix, *table.two_by_two)
    return [_number(count) for row in rows for count in row]


def _table_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    size = sizes[0][0]
    return {
        "matrix": tuple(_counts(numbers, size) for _ in range(size)),
        "two_by_two": tuple(_counts(numbers, 4) for _ in range(size - 1)),
    }


# moments


def _moment_numbers(moments: Any) -> Numbers:
    found: Numbers = []
    for cells in zip(moments.n, moments.mean, moments.m2, strict=True):
        n, mean, m2 = map(_number, cells)
        found += [n, n * mean, m2 + n * mean * mean]
    return found


def _moment_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    terms = [_take(numbers, 3) for _ in range(sizes[0][0])]
    means = [total / n if n else 0.0 for n, total, _ in terms]
    return {
        "n": tuple(round(n) for n, _, _ in terms),
        "mean": tuple(means),
        # What rounding leaves below zero is zero.
        "m2": tuple(
            max(0.0, square - n * mean * mean)
            for (n, _, square), mean in zip(terms, means, strict=True)
        ),
    }


def _pair_numbers(moments: Any) -> Numbers:
    names = ("n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")
    found: Numbers = []
    for cells in zip(*(getattr(moments, name) for name in names), strict=True):
        n, x, y, xx, yy, xy = map(_number, cells)
        found += [n, n * x, n * y, xx + n * x * x, yy + n * y * y, xy + n * x * y]
    return found


def _pair_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    columns: dict[str, list[float]] = {
        name: [] for name in ("n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")
    }
    for _ in range(sizes[0][0]):
        n, total_x, total_y, xx, yy, xy = _take(numbers, 6)
        x, y = (total_x / n, total_y / n) if n else (0.0, 0.0)
        m2_x, m2_y = max(0.0, xx - n * x * x), max(0.0, yy - n * y * y)
        parts = (round(n), x, y, m2_x, m2_y, xy - n * x * y)
        for column, value in zip(columns.values(), parts, strict=True):
            column.append(value)
    return {name: tuple(column) for name, column in columns.items()}


# bins and life tables


def _is_whole_grid(firsts: Sequence[int]) -> bool:
    return list(firsts) == list(range(len(firsts)))


def _bin_sizes(bins: Any) -> tuple[tuple[int, ...], ...]:
    if not all(_is_whole_grid(firsts) for variable in bins.starts for firsts in variable):
        raise _not_summable()
    return tuple(tuple(map(len, variable)) for variable in bins.starts)


def _bin_numbers(bins: Any) -> Numbers:
    return [_number(count) for variable in bins.counts for row in variable for count in row]


def _bin_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    return {
        "starts": tuple(tuple(tuple(range(n)) for n in groups) for groups in sizes),
        "counts": tuple(tuple(_counts(numbers, n) for n in groups) for groups in sizes),
    }


def _life_sizes(table: Any) -> tuple[tuple[int, ...], ...]:
    if not all(_is_whole_grid(edges) for edges in table.edges):
        raise _not_summable()
    return (tuple(map(len, table.at_risk)),)


def _life_numbers(table: Any) -> Numbers:
    parts = (table.at_risk, table.events, table.censored)
    return [_number(count) for part in parts for row in part for count in row]


def _life_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    (groups,) = sizes
    names = ("at_risk", "events", "censored")
    return {
        "edges": tuple(tuple(range(n + 1)) if n else () for n in groups),
        **{name: tuple(_counts(numbers, n) for n in groups) for name in names},
    }


# likelihoods and totals


def _terms_numbers(terms: Any) -> Numbers:
    upper = np.triu_indices(len(terms.gradient))
    information: NDArray[np.float64] = np.asarray(terms.information)
    return [terms.log_likelihood, *terms.gradient, *information[upper].tolist()]


def _terms_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    p = sizes[0][0]
    value, gradient = next(numbers), tuple(_take(numbers, p))
    upper = np.triu_indices(p)
    information = np.zeros((p, p))
    information[upper] = _take(numbers, len(upper[0]))
    information.T[upper] = information[upper]
    return {
        "log_likelihood": value,
        "gradient": gradient,
        "information": tuple(map(tuple, information.tolist())),
    }


def _total_fields(sizes: tuple[tuple[int, ...], ...], numbers: Iterator[float]) -> dict[str, Any]:
    return {"values": tuple(tuple(_take(numbers, n)) for n in sizes[0])}


_FORMS: dict[type[Aggregate], _Form] = {
    CrossTable: _Form(
        lambda table: ((len(table.matrix),),),
        lambda sizes: sizes[0][0] ** 2 + 4 * (sizes[0][0] - 1),
        _table_numbers,
        _table_fields,
    ),
    Moments: _Form(
        lambda moments: ((len(moments.n),),),
        lambda sizes: 3 * sizes[0][0],
        _moment_numbers,
        _moment_fields,
    ),
    PairedMoments: _Form(
        lambda moments: ((len(moments.n),),),
        lambda sizes: 6 * sizes[0][0],
        _pair_numbers,
        _pair_fields,
    ),
    BinnedCounts: _Form(_bin_sizes, lambda sizes: sum(map(sum, sizes)), _bin_numbers, _bin_fields),
    SurvivalTable: _Form(
        _life_sizes, lambda sizes: 3 * sum(map(sum, sizes)), _life_numbers, _life_fields
    ),
    LikelihoodTerms: _Form(
        lambda terms: ((len(terms.gradient),),),
        lambda sizes: 1 + sizes[0][0] + sizes[0][0] * (sizes[0][0] + 1) // 2,
        _terms_numbers,
        _terms_fields,
    ),
    Totals: _Form(
        lambda totals: (tuple(map(len, totals.values)),),
        lambda sizes: sum(sizes[0]),
        lambda totals: [float(number) for row in totals.values for number in row],
        _total_fields,
    ),
}
