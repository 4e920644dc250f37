"""One round asks for every kind of analysis at once, under every shipped policy."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import BASE, FULL, SPECS, draw_exams, plan

from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.store import CoordinatorStore, EnrolledSite, RoundState
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import MemoryLedger, load_policy
from fedcac.exams import Exams
from fedcac.exchange import MailboxCourier, Spool
from fedcac.protocol import AucSpec, ComparisonSpec, Pooling, Protocol
from fedcac.report.estimates_csv import estimates_csv
from fedcac.signing import SigningKey
from fedcac.site_table import read_site_table
from fedcac.statistics import POOLED, Estimate, PoolingSession, estimator_for
from fedcac.vocabulary import Measure, RefusalCode, Resampling, RowStatus, SiteName
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

SIZES = {"north": 600, "east": 550, "south": 500, "west": 500}
VENDORS = ("a", "b", "c")
MOST_EXCHANGES = 45
QUICK = ("agreement", "accuracy", "auc", "comparison", "descriptives", "kaplan_meier", "fusion")

# What a site may only answer if its software, or the coordinator's, is at fault.
FAULTS = {
    RefusalCode.UNREGISTERED_TYPE,
    RefusalCode.MALFORMED_QUERY,
    RefusalCode.INTERNAL,
    RefusalCode.NOT_COMPUTABLE,
    RefusalCode.UNKNOWN_ANALYSIS,
}


def every_analysis() -> Protocol:
    """Return a plan with every kind under an id of its own, and the variants of each."""
    analyses = [
        spec.model_copy(update={"id": kind})
        for kind, spec in SPECS.items()
        if kind != "reclassification"
    ]

    def variant(kind: str, name: str, **changes: Any) -> None:
        analyses.append(SPECS[kind].model_copy(update={"id": name, **changes}))

    variant("accuracy", "accuracy_women", subgroup="women")
    variant("agreement", "agreement_second", index="comparator", reference="second_reference")
    variant("descriptives", "descriptives_index", by="index", covariates=("age", "sex"))
    variant("zero_inflated", "zero_inflated_old", patient_effect=True, n_nodes=1, subgroup="old")
    analyses.append(AucSpec(id="auc_score", kind="auc", bins=100))
    analyses.append(ComparisonSpec(id="references", kind="comparison", compare="references"))
    plain = {"robust": False, "proportionality": False, "concordance": False}
    variant("cox", "cox_old", subgroup="old", **plain)
    variant("cox", "cox_landmark", endpoint="late_mace", **plain)
    variant("cox", "cox_excluded", endpoint="kept_mace", by_site=True)
    variant("cox", "cox_indicator", missing="indicator", **plain)
    variant("cox", "cox_univariable", univariable=True, risk_category="index", **plain)
    analyses += [BASE, FULL]
    variant("reclassification", "added_jackknife")
    variant("reclassification", "added_bootstrap", uncertainty=Resampling.BOOTSTRAP)
    return plan(analyses)


PROTOCOL = every_analysis()
# One analysis of each kind, without those that iterate longest.
SHORT = plan(
    [
        *(SPECS[kind].model_copy(update={"id": kind}) for kind in SPECS if kind in QUICK),
        BASE,
        FULL,
        SPECS["reclassification"],
    ]
)


def write_site_table(path: Path, seed: int, n: int) -> Path:
    """Write patients whose events follow their scores and whose tables have ordinary gaps."""
    exams = draw_exams(seed, n)
    rng = np.random.default_rng([seed, n])
    # A classifier that is less sure than the plan's: limits on coefficients let its slope pass.
    seen = 0.4 * (np.log1p(exams.column("reference_score")) - np.log1p(100)) + rng.normal(0, 1, n)
    exams = exams.with_column("index_probability_100", (1 / (1 + np.exp(-seen))).round(3))
    hazard = np.exp(0.3 * np.log1p(exams.column("index_score")) - 9.0)
    hazard *= np.exp(0.03 * (exams.column("age") - 62))
    event_day = np.ceil(rng.exponential(1 / hazard))
    last_day = rng.integers(200, 1800, n).astype(float)
    columns: dict[str, list[str]] = {
        name: [f"{value:g}" for value in values.tolist()] for name, values in exams.columns.items()
    }
    columns["follow_up_days"] = [f"{day:g}" for day in np.minimum(event_day, last_day)]
    columns["event"] = [str(int(is_first)) for is_first in event_day <= last_day]
    columns["vendor"] = [VENDORS[int(level)] for level in exams.column("vendor")]
    for name, share in (("age", 0.08), ("visual_score", 0.05), ("other_reader", 0.05)):
        is_gap = rng.random(n) < share
        columns[name] = ["" if gap else c for c, gap in zip(columns[name], is_gap, strict=True)]
    columns["patient_id"] = [f"P{seed}-{number}" for number in range(n)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    return {
        name: write_site_table(folder / f"{name}.csv", seed, n)
        for seed, (name, n) in enumerate(SIZES.items())
    }


@pytest.fixture(scope="module")
def round_under(
    tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RoundView]:
    """Return a function that runs the round, once per policy and attempt."""
    seen: dict[tuple[str, int, Protocol], RoundView] = {}

    def run(profile: str, attempt: int = 1, protocol: Protocol = PROTOCOL) -> RoundView:
        key = profile, attempt, protocol
        if key not in seen:
            folder = tmp_path_factory.mktemp(profile)
            # Nobody sits in this process to look through replies, which `cms` would ask for.
            policy = load_policy(profile).model_copy(update={"review": "auto"})
            sites = [
                InMemorySite(
                    name=name,
                    source=TableSource(path),
                    store=SiteStore(":memory:"),
                    ledger_path=folder / name / "ledger.jsonl",
                    secret=name.encode(),
                )
                for name, path in tables.items()
            ]
            seen[key] = run_round(protocol, sites, policy, SigningKey.generate())
            for site in sites:
                site.store.close()
        return seen[key]

    return run


def refusals_of(view: RoundView) -> Iterator[tuple[str, str, RefusalCode]]:
    """Yield site, analysis (or 'flow') and code of everything that was not answered."""
    for site in view.sites:
        for reply in site.replies:
            for analysis, answer in {**reply.answers, "flow": reply.flow}.items():
                if answer.refusal is not None:
                    yield site.name, analysis, answer.refusal


def test_the_plan_has_every_kind() -> None:
    assert {spec.kind for spec in PROTOCOL.analyses} == set(SPECS)


@pytest.mark.parametrize("profile", ["open", "research", "cms"])
def test_the_round_ends_with_every_analysis(
    round_under: Callable[..., RoundView], profile: str
) -> None:
    view = round_under(profile)
    assert view.record.state is RoundState.POOLED
    assert view.n_exchanges <= MOST_EXCHANGES
    # Refused or not, every analysis has its say in the table.
    assert {row.analysis for row in view.estimates} == {spec.id for spec in PROTOCOL.analyses}
    assert {code for _, _, code in refusals_of(view)} & FAULTS == set()
    for row in view.estimates:
        numbers = (row.estimate, row.se, row.ci_low, row.ci_high, row.p_value)
        assert all(number is None or np.isfinite(number) for number in numbers), row
        assert (row.status is RowStatus.OK) or row.estimate is None, row


def test_open_sites_refuse_nothing_and_every_pooled_row_has_a_number(
    round_under: Callable[..., RoundView],
) -> None:
    view = round_under("open")
    assert list(refusals_of(view)) == []
    missing = [
        (row.analysis, row.measure, row.term)
        for row in view.estimates
        if row.scope == POOLED and row.status is not RowStatus.OK
    ]
    # Only age has gaps: the indicator that the sex is missing is 0 for everybody.
    assert missing == [
        ("cox_indicator", Measure.LOG_HAZARD_RATIO, "sex=missing"),
        ("cox_indicator", Measure.HAZARD_RATIO, "sex=missing"),
    ]


# --- in sums over sites ---------------------------------------------------------------------------

# Each site's own model is not a sum.
MASKED = PROTOCOL.model_copy(update={"pooling": Pooling(mode="masked", per_site=("cox_excluded",))})


def test_masked_sums_give_the_pooled_rows_of_the_estimators_alone(
    round_under: Callable[..., RoundView], ungated: tuple[Estimate, ...]
) -> None:
    view = round_under("open", protocol=MASKED)
    assert list(refusals_of(view)) == []
    given, expected = by_key(view.estimates), by_key(ungated)
    by_site = {key for key in given if key[1] != POOLED}
    assert {analysis for analysis, *_ in by_site} == {"cox_excluded"}
    left_out = {key for key in expected if key not in given and key[1] == POOLED}
    # Leave-one-site-out rows are all that a sum cannot give.
    assert all(group.startswith("without ") for _, _, _, group, _ in left_out)
    for key, row in given.items():
        assert_same(row, expected[key], tolerance=1e-7)


def test_masked_sums_show_more_of_small_sites(round_under: Callable[..., RoundView]) -> None:
    view = round_under("research", protocol=MASKED)
    assert {code for _, _, code in refusals_of(view)} & FAULTS == set()
    shown, alone = (
        {
            (row.analysis, row.measure, row.group, row.term)
            for row in rows
            if row.scope == POOLED and row.status is RowStatus.OK
        }
        for rows in (view.estimates, round_under("research").estimates)
    )
    assert len(shown) > len(alone)


# --- against the estimators alone -----------------------------------------------------------------


def pool_without_gate(
    exams: Mapping[str, Exams],
    refuses: Callable[[str, int], RefusalCode | None] = lambda site, exchange: None,
    protocol: Protocol = PROTOCOL,
) -> tuple[Estimate, ...]:
    """Drive the estimators of all analyses over the sites' patients, with nothing in between."""
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}
    session = PoolingSession(protocol, [SiteName(name) for name in exams])
    for exchange in range(1, MOST_EXCHANGES + 1):
        if session.is_finished:
            return session.estimates()
        queries = session.queries
        session.answer(
            {
                SiteName(site): {
                    name: refuses(site, exchange) or estimators[name].summarise(patients, query)
                    for name, query in queries.items()
                }
                for site, patients in exams.items()
            }
        )
    raise AssertionError("the pooling does not end")


@pytest.fixture(scope="module")
def patients(tables: dict[str, Path]) -> dict[str, Exams]:
    found = {}
    for name, path in tables.items():
        exams = read_site_table(path, PROTOCOL).exams
        # A frozen cohort's rows stand in the order of their keys; sums of the same terms in
        # another order differ in the last digits, and numerical second derivatives in more.
        order = sorted(range(exams.n), key=exams.keys.__getitem__)
        found[name] = Exams(
            columns={column: values[order] for column, values in exams.columns.items()},
            keys=tuple(exams.keys[row] for row in order),
            # Folds and resampling groups follow from the secret: the same one as in the round.
            secret=name.encode(),
        )
    return found


@pytest.fixture(scope="module")
def ungated(patients: dict[str, Exams]) -> tuple[Estimate, ...]:
    return pool_without_gate(patients)


Key = tuple[str, str, str, str, str]


def by_key(rows: tuple[Estimate, ...]) -> dict[Key, Estimate]:
    keyed = {(row.analysis, row.scope, row.measure.value, row.group, row.term): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def assert_same(given: Estimate, expected: Estimate, tolerance: float = 1e-9) -> None:
    assert (given.status, given.n, given.n_events, given.ci_method) == (
        expected.status,
        expected.n,
        expected.n_events,
        expected.ci_method,
    ), (given, expected)
    for name in ("estimate", "se", "ci_low", "ci_high", "p_value"):
        number, other = getattr(given, name), getattr(expected, name)
        assert (number is None) == (other is None), (given, expected)
        if number is not None:
            assert number == pytest.approx(other, rel=tolerance, abs=tolerance), (given, expected)


def test_open_round_gives_the_numbers_of_the_estimators_alone(
    round_under: Callable[..., RoundView], ungated: tuple[Estimate, ...]
) -> None:
    given, expected = by_key(round_under("open").estimates), by_key(ungated)
    assert list(given) == list(expected)
    for key, row in given.items():
        assert_same(row, expected[key])


# Sums without a table: a gate that withholds cells has nothing to withhold in them.
@pytest.mark.parametrize("analysis", ["bland_altman", "correlation", "zero_inflated"])
def test_a_default_policy_does_not_change_what_it_releases_whole(
    round_under: Callable[..., RoundView], ungated: tuple[Estimate, ...], analysis: str
) -> None:
    view = round_under("research")
    assert all(refused != analysis for _, refused, _ in refusals_of(view))
    expected = by_key(ungated)
    given = [row for row in view.estimates if (row.analysis, row.scope) == (analysis, POOLED)]
    assert given
    for row in given:
        assert_same(row, expected[row.analysis, row.scope, row.measure.value, row.group, row.term])


def test_the_same_round_gives_the_same_bytes(round_under: Callable[..., RoundView]) -> None:
    first, second = round_under("research"), round_under("research", attempt=2)
    assert first.record.round_id != second.record.round_id
    assert estimates_csv(first.estimates) == estimates_csv(second.estimates)


# --- sites that do not answer ---------------------------------------------------------------------


def test_a_site_that_answers_only_now_and_then_does_not_stop_the_pooling(
    patients: dict[str, Exams],
) -> None:
    def refuses(site: str, exchange: int) -> RefusalCode | None:
        is_refused = site == "east" and exchange % 2 == 0
        return RefusalCode.REJECTED_BY_SITE if is_refused else None

    rows = pool_without_gate({name: patients[name] for name in ("east", "west")}, refuses)
    assert {row.analysis for row in rows} == {spec.id for spec in PROTOCOL.analyses}


def test_nobody_answers_and_every_row_says_so(patients: dict[str, Exams]) -> None:
    two = {name: patients[name] for name in ("south", "west")}
    rows = pool_without_gate(two, lambda site, exchange: RefusalCode.TOO_FEW_PATIENTS)
    assert {row.analysis for row in rows} == {spec.id for spec in PROTOCOL.analyses}
    assert {row.status for row in rows} <= {RowStatus.SUPPRESSED, RowStatus.NOT_ESTIMABLE}
    assert all(row.estimate is None for row in rows)


@dataclass(frozen=True)
class Site:
    agent: SiteAgent
    store: SiteStore


class Reviewed:
    """East and west answer, north's people reject every reply, and south says nothing at all."""

    def __init__(self, tables: Mapping[str, Path]) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        lead = SigningKey.generate()
        self.spools = {SiteName(name): Spool.in_memory() for name in tables}
        self.store = CoordinatorStore("sqlite://")
        self.sites: dict[str, Site] = {}
        for name, path in tables.items():
            key = SigningKey.generate()
            self.store.enrol(EnrolledSite(name, key.public, spool=""))
            policy = load_policy("open")
            if name == "north":
                policy = policy.model_copy(update={"review": "hold"})
            store = SiteStore(":memory:")
            agent = SiteAgent(
                identity=SiteIdentity(name, key, lead.public),
                spool=self.spools[SiteName(name)],
                store=store,
                source=TableSource(path),
                answerer=Answerer(policy, MemoryLedger(), name.encode()),
                is_auto_approving=True,
                clock=lambda: self.now,
            )
            self.sites[name] = Site(agent, store)
        self.engine = RoundEngine(
            store=self.store,
            courier=MailboxCourier(self.spools),
            key=lead,
            clock=lambda: self.now,
        )

    def run(self) -> RoundView:
        deadline = self.now + timedelta(days=10)
        round_id = self.engine.launch(
            SHORT,
            LaunchPlan(tuple(self.sites), 2, deadline, package_digest=None, package_files={}),
        )
        view = self.engine.step(round_id)
        for name in ("north", "east", "west"):
            self.sites[name].agent.step()
        assert self.engine.step(round_id).record.state is RoundState.OFFERED
        self.now = deadline + timedelta(days=1)
        view = self.engine.step(round_id)
        for exchange in range(1, MOST_EXCHANGES + 1):
            if view.is_finished:
                break
            for name in ("north", "east", "west"):
                self.sites[name].agent.step()
            if exchange == 1:
                # A reply that waits for a person holds the exchange.
                assert self.engine.step(round_id).n_exchanges == 0
            self.sites["north"].agent.reject(round_id, exchange)
            view = self.engine.step(round_id)
        return view

    def close(self) -> None:
        self.store.close()
        for site in self.sites.values():
            site.store.close()


def test_the_round_ends_without_a_rejecting_and_a_missing_site(
    tables: dict[str, Path], patients: dict[str, Exams]
) -> None:
    consortium = Reviewed(tables)
    view = consortium.run()
    consortium.close()
    assert view.record.state is RoundState.POOLED
    assert {(site, code) for site, _, code in refusals_of(view)} == {
        ("north", RefusalCode.REJECTED_BY_SITE)
    }
    assert {site.name: site.is_accepting for site in view.sites}["south"] is None
    # What is pooled is what the two others would pool alone.
    two = {name: patients[name] for name in ("east", "west")}
    alone = pool_without_gate(two, protocol=SHORT)
    given = by_key(view.estimates)
    pooled = [key for key, row in given.items() if row.scope == POOLED]
    expected = {key: row for key, row in by_key(alone).items() if row.scope == POOLED}
    assert set(pooled) == set(expected)
    for key, row in expected.items():
        assert_same(given[key], row)
