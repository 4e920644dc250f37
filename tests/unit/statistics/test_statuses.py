"""Why a row has no number: the one place where codes become statuses, and where fits end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import SPECS, draw_exams, plan

from fedcac.aggregate import Aggregate, LikelihoodTerms
from fedcac.exams import Exams
from fedcac.protocol import CoxSpec
from fedcac.statistics import PoolingSession, estimator_for
from fedcac.statistics.cox import CoxTerms
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.newton import maximise
from fedcac.statistics.rows import absent_status, fit_status, refusal_status
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "estimates.md"
MISSING = [status for status in RowStatus if status is not RowStatus.OK]
SITE = SiteName("s1")


def test_every_refusal_code_has_the_status_that_the_page_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {code.value: refusal_status(code).value for code in RefusalCode}
    assert set(dict(rows).values()) < {status.value for status in MISSING}


@pytest.mark.parametrize("status", list(RowStatus))
def test_every_status_is_on_the_page(status: RowStatus) -> None:
    assert f"| `{status.value}` | " in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("n_sites", [1, 2, 3])
def test_a_pooled_row_is_suppressed_before_it_is_an_error_and_not_applicable_last(
    n_sites: int,
) -> None:
    for found in itertools.product(MISSING, repeat=n_sites):
        pooled = absent_status(found)
        assert pooled in found
        assert (pooled is RowStatus.SUPPRESSED) is (RowStatus.SUPPRESSED in found)
        assert (pooled is RowStatus.NOT_APPLICABLE) is (set(found) == {RowStatus.NOT_APPLICABLE})
        if RowStatus.ERROR in found:
            assert pooled in (RowStatus.SUPPRESSED, RowStatus.ERROR)
    assert absent_status([]) is RowStatus.NOT_ESTIMABLE


# --- how a search ends ------------------------------------------------------------------------


def terms(log_likelihood: float, gradient: float, information: float) -> LikelihoodTerms:
    return CoxTerms(
        n_patients=50,
        n_events=9,
        log_likelihood=log_likelihood,
        gradient=(gradient,),
        information=((information,),),
    )


def search(answer: Callable[[float, int], Aggregate | RefusalCode]) -> Fit:
    """Maximise over one site whose answer depends on the parameter and on the exchange."""
    running = maximise((SITE,), 1, CoxTerms)
    query = next(running)
    for exchange in itertools.count(1):
        try:
            query = running.send({SITE: answer(query.values["beta"][0], exchange)})
        except StopIteration as stop:
            return stop.value
    raise AssertionError


def steep(beta: float, exchange: int) -> Aggregate:
    return terms(-1e6 * np.exp(-beta), 1e6 * np.exp(-beta), 1e6 * np.exp(-beta))


def falling(beta: float, exchange: int) -> Aggregate:
    # The derivatives of a hill, and values that fall wherever one goes.
    return terms(-float(exchange), 1.0, 1.0)


def hill(beta: float, exchange: int) -> Aggregate:
    return terms(-((beta - 40.0) ** 2) / 2, 40.0 - beta, 1.0)


def fenced(beta: float, exchange: int) -> Aggregate | RefusalCode:
    return RefusalCode.PARAMETERS_OUT_OF_BOUNDS if beta > 5 else hill(beta, exchange)


@pytest.mark.parametrize(
    ("answer", "fit", "row"),
    [
        (hill, FitStatus.OK, RowStatus.OK),
        (steep, FitStatus.UNBOUNDED, RowStatus.NOT_ESTIMABLE),
        (falling, FitStatus.NOT_CONVERGED, RowStatus.ERROR),
        (fenced, FitStatus.OUT_OF_BOUNDS, RowStatus.SUPPRESSED),
        (lambda *_: RefusalCode.BUDGET_SPENT, FitStatus.NO_ANSWER, RowStatus.SUPPRESSED),
        (lambda *_: RefusalCode.INTERNAL, FitStatus.NO_ANSWER, RowStatus.ERROR),
        (lambda *_: RefusalCode.NOT_COMPUTABLE, FitStatus.NO_ANSWER, RowStatus.NOT_APPLICABLE),
        (lambda *_: draw_nothing(), FitStatus.NO_ANSWER, RowStatus.ERROR),
    ],
)
def test_a_search_ends_in_the_status_of_its_cause(
    answer: Callable[[float, int], Aggregate | RefusalCode], fit: FitStatus, row: RowStatus
) -> None:
    found = search(answer)
    assert (found.status, fit_status(found)) == (fit, row)


def draw_nothing() -> Aggregate:
    """Return a likelihood with one parameter more than was asked for."""
    return CoxTerms(
        n_patients=50,
        n_events=9,
        log_likelihood=0.0,
        gradient=(0.0, 0.0),
        information=((1.0, 0.0), (0.0, 1.0)),
    )


# --- steps after a fit ------------------------------------------------------------------------


def pooled_rows(
    spec: Any, exams: Mapping[str, Exams], refuse: Callable[[str, str], RefusalCode | None]
) -> dict[tuple[str, str], Estimate]:
    """Run one analysis without a gate; `refuse` maps site and step to a code."""
    protocol = plan([spec])
    estimator = estimator_for(spec.id, protocol)
    session = PoolingSession(protocol, [SiteName(name) for name in exams])
    while not session.is_finished:
        query = session.queries[spec.id]
        session.answer(
            {
                SiteName(name): {
                    spec.id: refuse(name, query.step) or estimator.summarise(own, query)
                }
                for name, own in exams.items()
            }
        )
    rows = [row for row in session.estimates() if row.scope == POOLED]
    return {(row.measure.value, row.term): row for row in rows}


COX = CoxSpec(
    id="x",
    kind="cox",
    endpoint="mace",
    covariates=("age",),
    proportionality=True,
    concordance=True,
)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.BUDGET_SPENT, RowStatus.SUPPRESSED),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
        (RefusalCode.NO_REPLY, RowStatus.ERROR),
    ],
)
def test_sums_that_a_site_does_not_give_at_the_maximum_have_its_status(
    code: RefusalCode, status: RowStatus
) -> None:
    exams = {name: draw_exams(seed, 150, name) for seed, name in enumerate(("s1", "s2"))}

    def refuse(site: str, step: str) -> RefusalCode | None:
        return code if (site, step) == ("s2", "maximum") else None

    rows = pooled_rows(COX, exams, refuse)
    assert rows["hazard_ratio", "age"].status is RowStatus.OK
    for key in (("proportionality_chi2", "age"), ("proportionality_chi2", ""), ("c_index", "")):
        assert (rows[key].status, rows[key].estimate) == (status, None)


def test_a_site_that_says_nothing_did_not_reply() -> None:
    session = PoolingSession(plan([SPECS["accuracy"]]), [SITE])
    while not session.is_finished:
        session.answer({})
    rows = session.estimates()
    assert rows
    own = {row.status for row in rows if row.scope in (SITE, POOLED)}
    assert own == {RowStatus.ERROR}


def test_levels_that_were_merged_leave_the_comparison_suppressed() -> None:
    spec = SPECS["descriptives"].model_copy(update={"id": "x"})
    protocol = plan([spec])
    estimator, session = estimator_for("x", protocol), PoolingSession(protocol, [SITE])
    exams = draw_exams(1, 300)
    while not session.is_finished:
        found: Any = estimator.summarise(exams, session.queries["x"])
        if session.queries["x"].step == "counts":
            # As after a gate that had to put all levels of every variable into one.
            found = found.model_copy(
                update={
                    "starts": (
                        found.starts[0],
                        *(tuple((0,) for _ in rows) for rows in found.starts[1:]),
                    ),
                    "counts": (
                        found.counts[0],
                        *(tuple((sum(row),) for row in rows) for rows in found.counts[1:]),
                    ),
                    "evidence": None,
                }
            )
        session.answer({SITE: {"x": found}})
    tests = [row for row in session.estimates() if row.measure.value == "difference_test"]
    assert tests
    assert {row.status for row in tests} == {RowStatus.SUPPRESSED}
