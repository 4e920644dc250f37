"""Bland-Altman against a direct computation on the pooled rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedcac.exams import Exams
from fedcac.protocol import BlandAltmanSpec
from fedcac.protocol.catalogue import load_shipped
from fedcac.statistics import Estimate, PoolingSession, estimator_for
from fedcac.vocabulary import RowStatus, SiteName

DEMO = load_shipped("demo-nongated")


def exams_of(seed: int, n: int, *, has_vessels: bool) -> Exams:
    rng = np.random.default_rng(seed)
    columns = {"reference_score": rng.lognormal(4, 1, n)}
    columns["index_score"] = columns["reference_score"] + rng.normal(-5, 20, n).clip(-20)
    if has_vessels:
        for vessel in ("lm", "lad", "lcx", "rca"):
            columns[f"reference_{vessel}"] = rng.lognormal(2, 1, n)
            columns[f"index_{vessel}"] = rng.lognormal(2, 1, n)
    return Exams(columns=columns, keys=tuple(f"{seed}-{i}" for i in range(n)))


def run(sites: dict[str, Exams]) -> list[Estimate]:
    spec = BlandAltmanSpec(id="x", kind="bland_altman", per_vessel=True)
    protocol = DEMO.model_copy(update={"analyses": (spec,)})
    estimator = estimator_for("x", protocol)
    session = PoolingSession(protocol, [SiteName(name) for name in sites])
    while not session.is_finished:
        query = session.queries["x"]
        answers: dict[SiteName, Any] = {
            SiteName(name): {"x": estimator.summarise(exams, query)}
            for name, exams in sites.items()
        }
        session.answer(answers)
    return list(session.estimates())


def test_bias_and_limits_equal_those_of_the_pooled_rows() -> None:
    sites = {"a": exams_of(1, 40, has_vessels=True), "b": exams_of(2, 75, has_vessels=True)}
    rows = {(r.scope, r.term, r.measure.value): r for r in run(sites)}
    for term, suffix in (("", "score"), ("lad", "lad")):
        difference = np.concatenate(
            [e.column(f"index_{suffix}") - e.column(f"reference_{suffix}") for e in sites.values()]
        )
        n, bias, sd = len(difference), difference.mean(), difference.std(ddof=1)
        found = rows["pooled", term, "bias"]
        assert found.estimate == pytest.approx(bias, rel=1e-10)
        assert found.se == pytest.approx(sd / np.sqrt(n), rel=1e-10)
        half = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n)
        assert found.ci_low == pytest.approx(bias - half, rel=1e-10)
        assert found.n == n
        for measure, sign in (("loa_low", -1), ("loa_high", 1)):
            limit = rows["pooled", term, measure]
            assert limit.estimate == pytest.approx(bias + sign * 1.96 * sd, rel=1e-4)
            expected_se = sd * np.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
            assert limit.se == pytest.approx(expected_se, rel=1e-4)


def test_a_site_without_vessel_scores_still_gives_the_total() -> None:
    sites = {"a": exams_of(1, 40, has_vessels=True), "b": exams_of(2, 75, has_vessels=False)}
    rows = {(r.scope, r.term, r.measure.value): r for r in run(sites)}
    assert rows["pooled", "", "bias"].n == 115
    assert rows["pooled", "rca", "bias"].n == 40
    assert rows["b", "rca", "bias"].status is not RowStatus.OK
    assert rows["b", "rca", "bias"].estimate is None
