"""What suppression cost: a round on generated tables, open and under a policy, and single cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.reports.reporting import write_round_report
from coordinator.rounds.answers import exchange_answers
from coordinator.rounds.views import RoundView
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.phantom import miller_tables, write_tables
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_protocol_or_shipped
from fedcac.report import ExchangeAnswer, RoundReport, SiteSummary, read_estimates
from fedcac.report.withheld import AnalysisCost, Number, SiteCost, costs_of
from fedcac.report.withheld_tables import withheld_document, withheld_table
from fedcac.signing import SigningKey
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import Measure, RefusalCode, Resampling, RowStatus
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

KEPT = (
    "accuracy",
    "agreement",
    "cox_adjusted_model",
    "cox_adjusted_expert",
    "cox_without_early",
    "cox_death_model",
    "survival_model",
    "cox_without_calcium",
    "added_value_model",
)
SINGLE = ("cox_adjusted_model", "cox_adjusted_expert", "cox_death_model", "cox_without_calcium")


def protocol() -> Protocol:
    whole = load_protocol_or_shipped("miller2023-ctac")
    specs = tuple(
        spec.model_copy(update={"uncertainty": Resampling.NONE})
        if spec.id == "added_value_model"
        else spec
        for spec in whole.analyses
        if spec.id in KEPT
    )
    return whole.model_copy(update={"analyses": specs})


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = write_tables(miller_tables(7, copies=1), tmp_path_factory.mktemp("tables") / "t")
    return {path.stem: path for path in paths}


@pytest.fixture(scope="module")
def folders(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the output folder of one round per policy."""
    return {
        name: output(tables, name, tmp_path_factory.mktemp(name)) for name in ("open", "research")
    }


def output(tables: Mapping[str, Path], profile: str, folder: Path) -> Path:
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
    policy = load_policy(profile).model_copy(update={"review": "auto"})
    view: RoundView = run_round(protocol(), sites, policy, SigningKey.generate())
    for site in sites:
        site.store.close()
    write_round_report(view, folder / "out", package=None)
    return folder / "out"


def withheld_of(folder: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {cost["analysis"]: cost for cost in document["withheld"]}


def complete(path: Path, columns: list[str], event: str) -> tuple[int, int]:
    """Return patients with a value in every column, and those of them with the event."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if all(row[name] for name in columns)]
    return len(rows), sum(row[event] == "1" for row in rows)


@pytest.mark.parametrize("analysis", SINGLE)
def test_open_sites_withhold_nothing_and_the_tables_own_counts_are_stated(
    folders: dict[str, Path], tables: dict[str, Path], analysis: str
) -> None:
    spec = protocol().analysis(analysis)
    endpoint = protocol().endpoint(spec.endpoint)
    columns = [*spec.covariates, endpoint.time_column, endpoint.event_column, "index_score"]
    cost = withheld_of(folders["open"])[analysis]
    assert cost["is_whole"]
    assert cost["n_absent"] == 0
    for site in cost["sites"]:
        n, n_events = complete(tables[site["site"]], columns, endpoint.event_column)
        assert site["n_patients"] == {"value": n, "is_exact": True}
        assert site["n_events"] == {"value": n_events, "is_exact": True}
        assert (site["n_patients_pooled"], site["n_events_pooled"]) == (n, n_events)


def test_an_open_report_says_that_it_cost_nothing(folders: dict[str, Path]) -> None:
    assert all(cost["is_whole"] for cost in withheld_of(folders["open"]).values())
    page = (folders["open"] / "report.html").read_text(encoding="utf-8")
    assert "Disclosure control cost nothing in this round" in page
    assert "What was withheld" not in page


def test_what_a_policy_cost_is_what_open_sites_would_have_given(folders: dict[str, Path]) -> None:
    whole, costs = withheld_of(folders["open"]), withheld_of(folders["research"])
    n_refused = n_exact = 0
    for analysis, cost in costs.items():
        for own, same in zip(cost["sites"], whole[analysis]["sites"], strict=True):
            stated, true = own["n_patients"], same["n_patients"]["value"]
            # What is called exact is, and a limit is not below the truth.
            assert stated["value"] == true if stated["is_exact"] else stated["value"] >= true
            assert own["n_patients_pooled"] in (0, true)
            n_refused += bool(own["codes"])
            n_exact += bool(own["codes"]) and stated["is_exact"]
            if own["n_events"] is not None and own["n_events"]["value"] is not None:
                events = same["n_events"]["value"]
                is_exact = own["n_events"]["is_exact"]
                assert own["n_events"]["value"] >= events
                assert own["n_events"]["value"] == events or not is_exact
    # The policy bites, and both kinds of number occur.
    assert n_refused > n_exact > 0


def test_pooled_numbers_are_those_of_the_estimates(folders: dict[str, Path]) -> None:
    rows = read_estimates(folders["research"] / "estimates.csv")
    costs = withheld_of(folders["research"])
    n_lost = 0
    for analysis in SINGLE:
        found = {
            (row.n, row.n_events)
            for row in rows
            if (row.analysis, row.scope, row.status) == (analysis, POOLED, RowStatus.OK)
        }
        cost = costs[analysis]
        assert found <= {(cost["n_patients_pooled"], cost["n_events_pooled"])}
        assert bool(found) is (cost["n_patients_pooled"] > 0) is (cost["status"] == "ok")
        n_lost += cost["n_patients"]["value"] > cost["n_patients_pooled"]
    assert n_lost > 0


def test_the_report_prints_every_code_and_no_blank(folders: dict[str, Path]) -> None:
    page = (folders["research"] / "report.html").read_text(encoding="utf-8")
    part = page.split("What was withheld</h3>")[1].split("</table>")[0]
    codes = {
        code
        for cost in withheld_of(folders["research"]).values()
        for site in cost["sites"]
        for code in site["codes"]
    }
    assert codes
    for code in codes:
        assert f"({code})" in part
    assert "suppressed (&lt;5)" in part
    assert "></td>" not in part
    assert ">0</td>" not in part


# --- single cases -----------------------------------------------------------------------------

FIT = {"kind": "cox_terms", "is_fit": True}
GIVEN = ExchangeAnswer(**FIT, n_patients=80, n_events=12, n_parts=1)
LATER = ExchangeAnswer("cox_totals", n_patients=80, n_events=12, n_parts=1)


def refused(code: RefusalCode, **changes: Any) -> ExchangeAnswer:
    return ExchangeAnswer(**{**FIT, "refusal": code, **changes})


def cost_of(
    build: Callable[..., RoundReport], answers: tuple[ExchangeAnswer, ...], **changes: Any
) -> tuple[AnalysisCost, SiteCost]:
    """Return the cost of the analysis `outcome`, and of its first site with these answers."""
    first, *rest = build().sites
    site = SiteSummary(
        **{
            "name": first.name,
            "flow": first.flow,
            "policy": first.policy,
            "answers": {"outcome": answers},
            **changes,
        }
    )
    report = build(sites=(site, *rest))
    (cost,) = (cost for cost in costs_of(report) if cost.analysis == "outcome")
    return cost, cost.sites[0]


def test_a_site_that_answers_to_the_end_is_whole(build: Callable[..., RoundReport]) -> None:
    _, site = cost_of(build, (GIVEN, GIVEN, LATER))
    assert site.is_whole
    assert (site.n_patients_pooled, site.n_events_pooled) == (80, 12)
    assert (site.n_patients, site.n_events) == (Number(80), Number(12))


def test_a_site_that_leaves_a_fit_is_in_nothing_that_follows_it(
    build: Callable[..., RoundReport],
) -> None:
    # It is still asked, and still answers; nobody counts it any more.
    _, site = cost_of(build, (GIVEN, refused(RefusalCode.BUDGET_SPENT), GIVEN, LATER))
    assert (site.n_patients_pooled, site.n_events_pooled) == (0, 0)
    assert site.codes == (RefusalCode.BUDGET_SPENT,)
    assert (site.n_patients, site.n_events) == (Number(80), Number(12))
    assert not site.is_partial


def test_a_step_out_of_a_sites_bounds_does_not_end_its_part(
    build: Callable[..., RoundReport],
) -> None:
    _, site = cost_of(build, (GIVEN, refused(RefusalCode.PARAMETERS_OUT_OF_BOUNDS), GIVEN))
    assert site.n_patients_pooled == 80


def test_a_later_step_refused_leaves_the_site_in_part(build: Callable[..., RoundReport]) -> None:
    later = refused(RefusalCode.TOO_FEW_EVENTS, kind="cox_totals", is_fit=False)
    _, site = cost_of(build, (GIVEN, GIVEN, later))
    assert site.is_partial
    assert not site.is_whole
    assert (site.n_patients_pooled, site.codes) == (80, (RefusalCode.TOO_FEW_EVENTS,))


def test_where_a_search_starts_is_in_no_pooled_value(build: Callable[..., RoundReport]) -> None:
    start = ExchangeAnswer("zip_start", n_patients=80, n_parts=1)
    _, site = cost_of(build, (start, refused(RefusalCode.TOO_FEW_EVENTS)))
    assert site.n_patients_pooled == 0


def test_without_any_answer_the_flow_limits_the_patients_and_nothing_the_events(
    build: Callable[..., RoundReport],
) -> None:
    first = build().sites[0]
    assert first.flow is not None
    _, site = cost_of(build, (refused(RefusalCode.TOO_FEW_EVENTS),))
    assert site.n_patients == Number(first.flow.n_patients, is_exact=False)
    assert site.n_events == Number(None, is_exact=False)
    _, unknown = cost_of(build, (refused(RefusalCode.NO_REPLY),), flow=None)
    assert unknown.n_patients == Number(None, is_exact=False)


def test_where_nothing_was_pooled_no_patient_is(build: Callable[..., RoundReport]) -> None:
    rows = (Estimate("outcome", POOLED, Measure.HAZARD_RATIO, status=RowStatus.ERROR),)
    first = build().sites[0]
    site = SiteSummary(first.name, None, first.policy, answers={"outcome": (GIVEN,)})
    report = build(estimates=rows, sites=(site,))
    (cost,) = (cost for cost in costs_of(report) if cost.analysis == "outcome")
    assert (cost.status, cost.n_absent, cost.n_values) == (RowStatus.ERROR, 1, 1)
    assert cost.sites[0].n_patients_pooled == 0
    cells = next(row.cells for row in reversed(withheld_table(report).rows) if row.cells)
    assert cells == ("80", "none", "12", "none", "no pooled value: error")


def test_a_site_that_refused_the_round_has_its_code_everywhere(
    build: Callable[..., RoundReport],
) -> None:
    first = build().sites[0]
    site = SiteSummary(
        first.name, None, None, refusals={"round": RefusalCode.REJECTED_BY_SITE}, answers={}
    )
    report = build(sites=(site,))
    for cost in costs_of(report):
        assert cost.sites[0].codes == (RefusalCode.REJECTED_BY_SITE,)
    words = [row.cells[-1] for row in withheld_table(report).rows if row.cells]
    assert "rejected at the site's review (rejected_by_site)" in words


def test_a_site_of_which_nothing_is_known_is_said_to_have_no_answer(
    build: Callable[..., RoundReport],
) -> None:
    first = build().sites[0]
    report = build(sites=(SiteSummary(first.name, None, None),))
    rows = withheld_table(report).rows
    place = next(i for i, row in enumerate(rows) if row.head == "outcome")
    assert rows[place + 1].cells == ("not stated", "none", "not stated", "none", "no answer")


def test_the_document_is_json(build: Callable[..., RoundReport]) -> None:
    document = withheld_document(build())
    assert [cost["analysis"] for cost in json.loads(json.dumps(document))] == [
        spec.id for spec in build().protocol.analyses
    ]


def test_no_site_no_answer() -> None:
    assert exchange_answers([]) == {}
