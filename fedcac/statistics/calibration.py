"""Calibration of the index test's probabilities for the reference's cut-offs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, Evidence, LikelihoodTerms, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import CalibrationSpec
from fedcac.protocol.columns import probability_column
from fedcac.statistics.design import design_evidence
from fedcac.statistics.estimator import (
    NO_FITS,
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.grids import bin_numbers, positive_at, risk_bin_labels
from fedcac.statistics.intervals import wilson
from fedcac.statistics.logistic import logistic_terms, logit
from fedcac.statistics.newton import maximise, queried_parameters
from fedcac.statistics.rows import Value, fit_status, refusal_status, value_row, wald
from fedcac.statistics.sums import answered, is_table, missing_status
from fedcac.vocabulary import Measure, RowStatus, SiteName

__all__ = ["Calibration", "CalibrationBins", "CalibrationTerms"]

BINS_QUERY = Query(step="bins")

N_PARAMETERS = 3
"""Per cut-off: the intercept at slope 1; then intercept and slope together."""

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


@register
class CalibrationBins(Totals):
    """Per cut-off and bin of predicted risk: patients, observed positives, sum of predictions."""

    kind: ClassVar[str] = "calibration_bins"


@register
class CalibrationTerms(LikelihoodTerms):
    """Logistic likelihood on the logit of the prediction, per cut-off without and with a slope."""

    kind: ClassVar[str] = "calibration_terms"


@register_estimator
class Calibration(Estimator[CalibrationSpec]):
    """Whether predicted probabilities are borne out. Term = the cut-off; all rows `pooled`.

    observed_risk and expected_risk by bin of predicted risk (group such as `0.1-0.25`), and over
    all patients with group ''; oe_ratio; calibration_intercept at slope 1 (calibration in the
    large) and calibration_slope of the logistic regression on the logit of the prediction (Cox
    1958). A bin with too few patients at a site is withheld by that site. A site that refused has
    one calibration_slope row per cut-off with its status.
    """

    kind: ClassVar[str] = "calibration"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (CalibrationBins, CalibrationTerms)

    @property
    def cut_offs(self) -> tuple[float, ...]:
        """The cut-offs asked for, in the protocol's order."""
        return self.protocol.chosen_cut_offs(self.spec.cut_offs)

    @property
    def bin_labels(self) -> tuple[str, ...]:
        """Names of the bins of predicted risk."""
        return risk_bin_labels(self.spec.risk_bins)

    def summarise(self, exams: Exams, query: Query) -> CalibrationBins | CalibrationTerms:
        """Return sums by bin of predicted risk, or the likelihood's terms.

        Raises
        ------
        QueryError
            If the query is neither step.
        KeyError, ValueError
            If a column is absent, or a score negative.
        """
        complete = self.cohort(exams)
        reference = self.protocol.score_column("reference")
        pairs = [
            (
                complete.column(probability_column(cut)),
                positive_at(complete, reference, cut, self.protocol),
            )
            for cut in self.cut_offs
        ]
        if query == BINS_QUERY:
            return self._bins(complete.n, pairs)
        return self._terms(complete.n, pairs, queried_parameters(query, self._n_parameters))

    @property
    def _n_parameters(self) -> int:
        return N_PARAMETERS * len(self.cut_offs)

    def _bins(self, n: int, pairs: Sequence[tuple[Vector, Flags]]) -> CalibrationBins:
        edges = np.array(self.spec.risk_bins)
        rows, groups, blocks, nested = [], [], [], []
        for block, (p, positive) in enumerate(pairs):
            bins = bin_numbers(p, edges)
            for number in range(len(edges) + 1):
                own = bins == number
                observed = int(np.count_nonzero(positive & own))
                size = int(np.count_nonzero(own))
                rows.append((float(size), float(observed), float(p[own].sum())))
                groups.append(min(observed, size - observed))
                # The likelihood gives the sum of every cut-off's predictions.
                blocks.append(block)
                nested.append((int(np.count_nonzero(positive)),))
        evidence = Evidence(
            smallest_group=max(groups),
            row_groups=tuple(groups),
            row_blocks=tuple(blocks),
            nested=tuple(nested),
        )
        return CalibrationBins(n_patients=n, n_events=None, values=tuple(rows), evidence=evidence)

    def _terms(
        self, n: int, pairs: Sequence[tuple[Vector, Flags]], parameters: Vector
    ) -> CalibrationTerms:
        size = self._n_parameters
        log_likelihood, gradient, information = 0.0, np.zeros(size), np.zeros((size, size))
        smaller, norms = [], [0.0]
        for number, (p, positive) in enumerate(pairs):
            x = logit(p)
            ones = np.ones(n)
            first = N_PARAMETERS * number
            # At slope 1 the prediction is an offset.
            for place, design, offset in (
                (slice(first, first + 1), ones[:, None], x),
                (slice(first + 1, first + 3), np.column_stack([ones, x]), np.zeros(n)),
            ):
                own = logistic_terms(design, positive, parameters[place], offset)
                log_likelihood += own.log_likelihood
                gradient[place] = own.gradient
                information[place, place] = own.information
                seen = design_evidence(design, parameters[place], np.zeros(design.shape[1], bool))
                norms.append(seen.parameter_norm)
            smaller.append(int(np.count_nonzero(positive)))
        # Whichever cut-off has the fewest positives, or negatives, is the one to judge.
        classes = [min(events, n - events) for events in smaller]
        n_events = smaller[int(np.argmin(classes))]
        return CalibrationTerms(
            n_patients=n,
            n_events=n_events,
            log_likelihood=log_likelihood,
            gradient=tuple(gradient.tolist()),
            information=tuple(tuple(row) for row in information.tolist()),
            evidence=Evidence(
                n_parameters=size,
                parameter_norm=max(norms),
                smallest_group=min(classes),
                nested=tuple((events,) for events in smaller),
            ),
        )

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for the bins, then fit all cut-offs side by side."""
        shape = is_table(len(self.bin_labels) * len(self.cut_offs), 3)
        given, refused = answered((yield BINS_QUERY), sites, CalibrationBins, shape)
        absent = RowStatus.SUPPRESSED if given else missing_status(refused.values())
        rows: list[Estimate] = []
        for position, cut in enumerate(self.cut_offs):
            rows.extend(self._bin_rows(list(given.values()), position, f"{cut:g}", absent))
        fit = yield from maximise(sites, self._n_parameters, CalibrationTerms)
        rows.extend(self._fit_rows(fit))
        return tuple(rows)

    def _bin_rows(
        self, answers: Sequence[CalibrationBins], position: int, term: str, absent: RowStatus
    ) -> Iterator[Estimate]:
        n_bins = len(self.bin_labels)
        total, is_whole = np.zeros(3), bool(answers)
        for number, label in enumerate(self.bin_labels):
            shown = [answer.values[position * n_bins + number] for answer in answers]
            known = [row for row in shown if row]
            is_whole &= len(known) == len(answers)
            sums = np.sum(known, axis=0) if known else np.zeros(3)
            total += sums
            yield from self._risk_rows(sums, label, term, absent if not known else None)
        # Bins that single sites withhold would bias the ratio of all.
        status = None if is_whole else absent
        yield from self._risk_rows(total, "", term, status)
        n, observed, expected = total
        value = None
        if status is None and expected > 0:
            se = observed**0.5 / expected
            value = wald(observed / expected, se, low=0.0)
        yield value_row(
            self.spec.id,
            POOLED,
            Measure.OE_RATIO,
            value,
            absent=status or RowStatus.NOT_ESTIMABLE,
            term=term,
            n=round(n) if status is None else None,
        )

    def _risk_rows(
        self, sums: Vector, group: str, term: str, absent: RowStatus | None
    ) -> Iterator[Estimate]:
        n, observed, expected = sums
        low, high = wilson(observed, n) if n > 0 else (0.0, 0.0)
        for measure, value in (
            (
                Measure.OBSERVED_RISK,
                Value(observed / n, None, float(low), float(high), "wilson") if n > 0 else None,
            ),
            (Measure.EXPECTED_RISK, Value(expected / n) if n > 0 else None),
        ):
            yield value_row(
                self.spec.id,
                POOLED,
                measure,
                value if absent is None else None,
                absent=absent or RowStatus.NOT_ESTIMABLE,
                group=group,
                term=term,
                n=round(n) if absent is None else None,
            )

    def _fit_rows(self, fit: Fit) -> Iterator[Estimate]:
        for number, cut in enumerate(self.cut_offs):
            for measure, place in (
                (Measure.CALIBRATION_INTERCEPT, N_PARAMETERS * number),
                (Measure.CALIBRATION_SLOPE, N_PARAMETERS * number + 2),
            ):
                # Nothing is identified where the search failed.
                value = (
                    wald(float(fit.parameters[place]), float(fit.standard_errors[place]))
                    if fit.identified[place]
                    else None
                )
                status = fit_status(fit)
                yield value_row(
                    self.spec.id,
                    POOLED,
                    measure,
                    value,
                    absent=RowStatus.NOT_ESTIMABLE if status is RowStatus.OK else status,
                    term=f"{cut:g}",
                    n=fit.n_patients or None,
                )
            for site, code in fit.refused.items():
                status = refusal_status(code)
                yield value_row(
                    self.spec.id,
                    site,
                    Measure.CALIBRATION_SLOPE,
                    None,
                    absent=status,
                    term=f"{cut:g}",
                )
