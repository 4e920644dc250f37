"""Calibration of a predicted risk at a horizon when follow-up is censored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, Evidence, LikelihoodTerms, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import SurvivalCalibrationSpec
from fedcac.statistics.cox import survival_data
from fedcac.statistics.design import design_evidence
from fedcac.statistics.estimator import (
    NO_FITS,
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.grids import bin_numbers, risk_bin_labels
from fedcac.statistics.life_table import kaplan_meier_at, kaplan_meier_variance
from fedcac.statistics.logistic import SMALLEST_PROBABILITY
from fedcac.statistics.newton import maximise, queried_parameters
from fedcac.statistics.partial_likelihood import partial_likelihood
from fedcac.statistics.rows import Value, fit_status, refusal_status, value_row, wald
from fedcac.statistics.sums import answered, is_table, missing_status
from fedcac.vocabulary import Measure, RowStatus, SiteName, TieMethod

__all__ = ["RiskBins", "SlopeTerms", "SurvivalCalibration"]

BINS_QUERY = Query(step="bins")

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


@register
class RiskBins(Totals):
    """Per bin of predicted risk: n, sum of predictions, n S(t), and n^2 Var S(t) (Greenwood)."""

    kind: ClassVar[str] = "risk_bins"
    has_endpoint: ClassVar[bool] = True


@register
class SlopeTerms(LikelihoodTerms):
    """Cox partial likelihood of a site with ln(-ln(1 - prediction)) as its one covariate."""

    kind: ClassVar[str] = "slope_terms"
    has_endpoint: ClassVar[bool] = True


@register_estimator
class SurvivalCalibration(Estimator[SurvivalCalibrationSpec]):
    """Whether a predicted risk is borne out by the horizon. All rows `pooled`.

    observed_risk, 1 - sum n S / sum n over sites with each site's Kaplan-Meier curve, and
    expected_risk, by bin of predicted risk (group) and over all patients (group ''); oe_ratio;
    calibration_slope of the site-stratified Cox model on the complementary log-log of the
    prediction, 1 where relative risks are right.
    """

    kind: ClassVar[str] = "survival_calibration"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (RiskBins, SlopeTerms)

    @property
    def bin_labels(self) -> tuple[str, ...]:
        """Names of the bins of predicted risk."""
        return risk_bin_labels(self.spec.risk_bins)

    def summarise(self, exams: Exams, query: Query) -> RiskBins | SlopeTerms:
        """Return sums by bin of predicted risk, or the likelihood's terms.

        Raises
        ------
        QueryError
            If the query is neither step.
        KeyError, TableError
            If a column is absent or holds a value it cannot have.
        ValueError
            If a prediction is no risk between 0 and 1.
        """
        complete = self.cohort(exams)
        time, event = survival_data(self, complete)
        p = complete.column(self.spec.prediction)
        if np.any((p < 0) | (p > 1)):
            raise ValueError("a predicted risk is not between 0 and 1")
        if query == BINS_QUERY:
            return self._bins(p, time, event)
        beta = queried_parameters(query, 1)
        risk = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        x = np.log(-np.log1p(-risk))[:, None]
        try:
            terms = partial_likelihood(x, time, event, beta, TieMethod.EFRON)
        except ValueError as error:
            raise QueryError(str(error)) from error
        return SlopeTerms(
            n_patients=complete.n,
            n_events=terms.n_events,
            log_likelihood=terms.log_likelihood,
            gradient=tuple(terms.gradient.tolist()),
            information=tuple(tuple(row) for row in terms.information.tolist()),
            evidence=design_evidence(x, beta, np.zeros(1, dtype=np.bool_)),
        )

    def _bins(self, p: Vector, time: Vector, event: Flags) -> RiskBins:
        bins, horizon = bin_numbers(p, np.array(self.spec.risk_bins)), self.spec.horizon_days
        masks = [bins == number for number in range(len(self.bin_labels))]
        rows, groups = [], []
        for own in (*masks, np.ones(len(p), dtype=np.bool_)):
            size = int(np.count_nonzero(own))
            early = int(np.count_nonzero(event[own] & (time[own] <= horizon)))
            survival = kaplan_meier_at(time[own], event[own], horizon)
            variance = kaplan_meier_variance(time[own], event[own], horizon)
            rows.append((float(size), float(p[own].sum()), size * survival, size**2 * variance))
            groups.append(min(early, size - early))
        return RiskBins(
            n_patients=len(p),
            n_events=int(event.sum()),
            values=tuple(rows),
            evidence=Evidence(
                smallest_group=max(groups),
                row_groups=tuple(groups),
                # The bins are parts of all patients, whose row is the last.
                row_blocks=(*(0 for _ in masks), -1),
            ),
        )

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for the bins, then fit the slope."""
        shape = is_table(len(self.bin_labels) + 1, 4)
        given, refused = answered((yield BINS_QUERY), sites, RiskBins, shape)
        absent = RowStatus.SUPPRESSED if given else missing_status(refused.values())
        rows: list[Estimate] = []
        for number, label in enumerate((*self.bin_labels, "")):
            shown = [
                np.array(answer.values[number])
                for answer in given.values()
                if answer.values[number]
            ]
            rows.extend(self._risk_rows(shown, label, absent))
        fit = yield from maximise(sites, 1, SlopeTerms)
        rows.extend(self._slope_rows(fit))
        return tuple(rows)

    def _risk_rows(
        self, shown: Sequence[Vector], group: str, absent: RowStatus
    ) -> Iterator[Estimate]:
        values: dict[Measure, Value | None] = {
            Measure.OBSERVED_RISK: None,
            Measure.EXPECTED_RISK: None,
        }
        if not group:
            values[Measure.OE_RATIO] = None
        n, expected, survivors, variance = np.sum(shown, axis=0) if shown else np.zeros(4)
        if n > 0:
            observed = float(1 - survivors / n)
            # Where all or none had the event it is 0, and there is no interval.
            se = float(variance**0.5 / n)
            values[Measure.OBSERVED_RISK] = wald(
                observed, se, low=0.0, high=1.0, method="greenwood"
            )
            values[Measure.EXPECTED_RISK] = Value(float(expected / n))
            if not group and expected > 0:
                scale = float(n / expected)
                ratio = wald(observed * scale, se * scale, low=0.0, method="greenwood")
                values[Measure.OE_RATIO] = ratio
        status = RowStatus.NOT_ESTIMABLE if shown else absent
        for measure, value in values.items():
            yield value_row(
                self.spec.id,
                POOLED,
                measure,
                value,
                absent=status,
                group=group,
                n=round(n) if shown else None,
            )

    def _slope_rows(self, fit: Fit) -> Iterator[Estimate]:
        yield value_row(
            self.spec.id,
            POOLED,
            Measure.CALIBRATION_SLOPE,
            wald(float(fit.parameters[0]), float(fit.standard_errors[0])) if fit.is_ok else None,
            absent=fit_status(fit),
            n=fit.n_patients or None,
            n_events=fit.n_events if fit.n_patients else None,
        )
        for site, code in fit.refused.items():
            status = refusal_status(code)
            yield value_row(self.spec.id, site, Measure.CALIBRATION_SLOPE, None, absent=status)
