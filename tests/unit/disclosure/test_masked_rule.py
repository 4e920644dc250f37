"""What a site may add to a sum over sites, shape by shape and at the very limits."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from fedcac.aggregate import (
    Aggregate,
    BinnedCounts,
    CrossTable,
    Evidence,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)
from fedcac.disclosure import Policy, load_policy
from fedcac.disclosure.cross_table import two_by_two_tables
from fedcac.disclosure.masked import judge
from fedcac.vocabulary import CellStatus, RefusalCode

RESEARCH = load_policy("research")
# Of 20 patients, 10 events and 5 per group, three sites need 7, 4 and 2 each.
T = 3


class Table(CrossTable):
    kind: ClassVar[str] = "masked_test_table"


class Bins(BinnedCounts):
    kind: ClassVar[str] = "masked_test_bins"


class Curves(SurvivalTable):
    kind: ClassVar[str] = "masked_test_curves"


class Means(Moments):
    kind: ClassVar[str] = "masked_test_means"


class Pairs(PairedMoments):
    kind: ClassVar[str] = "masked_test_pairs"


class Terms(LikelihoodTerms):
    kind: ClassVar[str] = "masked_test_terms"


class Sums(Totals):
    kind: ClassVar[str] = "masked_test_sums"


def table(n: int) -> Table:
    matrix = ((n - 1, 1), (0, 0))
    return Table(n_patients=n, matrix=matrix, two_by_two=two_by_two_tables(matrix))


def bins(n: int) -> Bins:
    return Bins(n_patients=n, starts=(((0, 1),),), counts=(((n - 1, 1),),))


def curves(n: int) -> Curves:
    return Curves(
        n_patients=n,
        edges=((0, 1, 2),),
        at_risk=((n, 1),),
        events=((n - 1, 1),),
        censored=((0, 0),),
        n_events=n,
    )


def means(n_patients: int, *n: int) -> Means:
    return Means(n_patients=n_patients, n=n, mean=(1.5,) * len(n), m2=(2.5,) * len(n))


def pairs(n_patients: int, *n: int) -> Pairs:
    same = (1.5,) * len(n)
    return Pairs(
        n_patients=n_patients, n=n, mean_x=same, mean_y=same, m2_x=same, m2_y=same, cross=same
    )


def terms(n: int, n_events: int, p: int = 1, smallest_group: int | None = None) -> Terms:
    return Terms(
        n_patients=n,
        n_events=n_events,
        log_likelihood=-1.0,
        gradient=(1.0,) * p,
        information=((1.0,) * p,) * p,
        evidence=Evidence(n_parameters=p, smallest_group=smallest_group),
    )


def sums(*groups: int, n: int = 60) -> Sums:
    return Sums(
        n_patients=n,
        n_events=None,
        values=((1.0, 2.0),) * len(groups),
        evidence=Evidence(smallest_group=max(groups), row_groups=groups),
    )


@pytest.mark.parametrize("make", [table, bins, curves])
def test_counts_are_added_whole_however_small(make: Any) -> None:
    # In the open hardly a cell of these could leave.
    added = judge(make(7), RESEARCH, T)
    assert added == make(7)


@pytest.mark.parametrize("make", [table, bins, curves, lambda n: means(n, n)])
def test_a_site_below_its_share_of_the_patients_adds_nothing(make: Any) -> None:
    assert judge(make(6), RESEARCH, T) is RefusalCode.TOO_FEW_PATIENTS
    assert isinstance(judge(make(7), RESEARCH, T), Aggregate)


@pytest.mark.parametrize("make", [means, pairs])
@pytest.mark.parametrize(
    ("least_sites", "least"),
    # Its share of the patients, but never fewer than k: nobody else may add to the term.
    [(3, 7), (4, 5), (10, 5)],
)
def test_a_mean_has_so_many_patients_of_the_site_behind_it(
    make: Any, least_sites: int, least: int
) -> None:
    added: Any = judge(make(60, least - 1, least), RESEARCH, least_sites)
    assert added.n == (CellStatus.SUPPRESSED, least)


def test_the_openness_of_a_site_holds_for_sums_as_well() -> None:
    public = load_policy("open")
    assert judge(table(2), public, T) == table(2)
    nobody = Table(n_patients=0, matrix=((0, 0), (0, 0)), two_by_two=((0, 0, 0, 0),))
    assert judge(nobody, public, T) == nobody
    far = terms(6, 1)
    far = far.model_copy(update={"evidence": Evidence(n_parameters=1, parameter_norm=5000.0)})
    assert isinstance(judge(far, public, T), LikelihoodTerms)


def test_sums_of_which_a_row_is_missing_are_not_added() -> None:
    # The other sites' row would stand beside sums of all.
    assert judge(sums(30, 1), RESEARCH, T) is RefusalCode.TOO_FEW_PER_CATEGORY
    added: Any = judge(sums(30, 2), RESEARCH, T)
    assert added.values == ((1.0, 2.0), (1.0, 2.0))
    assert added.evidence is None


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (terms(60, 4), None),
        (terms(60, 3), RefusalCode.TOO_FEW_EVENTS),
        # Everybody had the event: one site without event-free patients is no small group.
        (terms(60, 60), None),
        (terms(60, 59), RefusalCode.TOO_FEW_EVENTS),
        (terms(60, 58), None),
        (terms(60, 20, smallest_group=2), None),
        (terms(60, 20, smallest_group=1), RefusalCode.TOO_FEW_PER_CATEGORY),
        # Of 0.1 parameters per patient, and three sites like this one.
        (terms(20, 10, p=6), None),
        (terms(20, 10, p=7), RefusalCode.TOO_MANY_PARAMETERS),
    ],
)
def test_a_likelihood_has_its_share_of_every_limit_behind_it(
    given: Terms, code: RefusalCode | None
) -> None:
    answer = judge(given, RESEARCH, T)
    assert (answer if isinstance(answer, RefusalCode) else None) is code


def test_a_refusal_keeps_its_reason() -> None:
    few = sums(1, 1)
    assert judge(few, RESEARCH, T) is RefusalCode.TOO_FEW_PER_CATEGORY
    strict = Policy.model_validate(
        {**RESEARCH.model_dump(), "profile": "custom", "minimum_patients": 300}
    )
    assert judge(sums(30), strict, T) is RefusalCode.TOO_FEW_PATIENTS
