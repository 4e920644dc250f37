from __future__ import annotations

from pathlib import Path

import pytest

from fedcac.errors import TableError
from fedcac.report import RoundReport, estimates_csv, read_estimates
from fedcac.statistics.estimator import Estimate
from fedcac.vocabulary import Measure

HEADER = (
    "analysis,scope,group,term,measure,estimate,se,ci_low,ci_high,ci_method,p_value,n,n_events,"
    "status"
)


def test_columns_are_those_of_the_contract(report: RoundReport) -> None:
    assert estimates_csv(report.estimates).splitlines()[0] == HEADER


def test_rows_survive_the_round_trip_exactly(report: RoundReport, tmp_path: Path) -> None:
    awkward = Estimate("a", "pooled", Measure.BIAS, estimate=0.1 + 0.2, p_value=5e-324, n=0)
    rows = (*report.estimates, awkward)
    path = tmp_path / "estimates.csv"
    path.write_text(estimates_csv(rows), encoding="utf-8")
    assert read_estimates(path) == rows


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEADER.replace("term,", ""), "table.estimates_columns"),
        ("", "table.estimates_columns"),
        (HEADER + "\na,pooled,,,bias,x,,,,,,,,ok\n", "table.estimates_value"),
        (HEADER + "\na,pooled,,,unheard_of,1,,,,,,,,ok\n", "table.estimates_value"),
        (HEADER + "\na,pooled\n", "table.estimates_value"),
    ],
)
def test_a_faulty_table_is_refused(text: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "estimates.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TableError) as caught:
        read_estimates(path)
    assert caught.value.code == code
