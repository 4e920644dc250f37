"""What a maximisation over sites ended with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["Fit", "FitStatus"]

Vector = NDArray[np.float64]


class FitStatus(StrEnum):
    """How a fit ended.

    not_identified: the patients do not determine the parameters. unbounded: the likelihood
    still rose at the last exchange, as it does for ever where a covariate separates those with
    the event from the rest. out_of_bounds: a site's bounds on the parameters kept the search from
    ending. not_converged: it stalled.
    """

    OK = "ok"
    NO_ANSWER = "no_answer"
    NOT_IDENTIFIED = "not_identified"
    UNBOUNDED = "unbounded"
    NOT_CONVERGED = "not_converged"
    OUT_OF_BOUNDS = "out_of_bounds"


@dataclass(frozen=True)
class Fit:
    """A maximum of the summed log-likelihood, or the reason why there is none.

    Attributes
    ----------
    parameters, standard_errors
        Shape (p,). NaN where a parameter is not identified, everywhere unless `status` is OK.
    identified
        Shape (p,): False for a parameter whose column is constant or a linear combination of
        earlier ones; it is held at zero, as R's coxph does.
    covariance
        Inverse of the information at the maximum, shape (p, p); zero where not identified.
    log_likelihood, null_log_likelihood
        At the maximum and at the start, over the sites that answered to the end.
    sites
        The sites behind the fit.
    refused
        The sites left out, and the code with which they refused.
    """

    status: FitStatus
    parameters: Vector
    standard_errors: Vector
    covariance: Vector
    identified: NDArray[np.bool_]
    log_likelihood: float
    null_log_likelihood: float
    n_patients: int
    n_events: int
    sites: tuple[SiteName, ...]
    refused: Mapping[SiteName, RefusalCode]
    n_exchanges: int

    @property
    def is_ok(self) -> bool:
        """Say whether there is a maximum."""
        return self.status is FitStatus.OK

    @property
    def coefficients(self) -> Vector:
        """The parameters with 0 where not identified: what a prediction uses, shape (p,)."""
        return np.where(self.identified, self.parameters, 0.0)

    @property
    def degrees_of_freedom(self) -> int:
        """Number of identified parameters."""
        return int(np.count_nonzero(self.identified))
