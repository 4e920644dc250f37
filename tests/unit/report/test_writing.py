from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedcac.canonical import sha256_hex
from fedcac.errors import UsageError
from fedcac.report import PackageCard, RoundReport
from fedcac.report.findings import Findings
from fedcac.report.wording import REFUSAL_WORDS
from fedcac.report.writing import write_report
from fedcac.statistics.estimator import Estimate
from fedcac.vocabulary import Measure, RefusalCode


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def _parse(page: str) -> _Page:
    parser = _Page()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def folder(report: RoundReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    write_report(report, out)
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_folder_holds_the_contract_and_nothing_else(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    contract = {"estimates.csv", "results.json", "report.html", "provenance.json", "figures"}
    assert names == contract
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_writing_twice_gives_the_same_bytes(
    folder: Path, build: Callable[..., RoundReport], tmp_path: Path
) -> None:
    write_report(build(), tmp_path / "again")
    assert _contents(tmp_path / "again") == _contents(folder)


def test_provenance_names_the_digests_of_the_tables(folder: Path, report: RoundReport) -> None:
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["protocol"]["digest"] == report.protocol.digest()
    for name in ("estimates.csv", "results.json"):
        assert provenance["files"][name] == sha256_hex((folder / name).read_bytes())


def test_results_hold_every_estimate(folder: Path, report: RoundReport) -> None:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert len(results["estimates"]) == len(report.estimates)
    assert [site["name"] for site in results["sites"]] == [site.name for site in report.sites]


def test_a_foreign_folder_is_left_alone(report: RoundReport, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="output_not_empty"):
        write_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_an_earlier_output_is_replaced_and_its_ledgers_stay(
    build: Callable[..., RoundReport], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "sites" / "Site-1").mkdir(parents=True)
    (out / "sites" / "Site-1" / "ledger.jsonl").write_text("{}\n", encoding="utf-8")
    write_report(build(4), out)
    write_report(build(2), out)
    assert (out / "sites" / "Site-1" / "ledger.jsonl").read_text(encoding="utf-8") == "{}\n"
    assert not (out / "figures" / "flow_site_4.svg").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    tags = _parse(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "img", "object", "form"}
    for tag, attributes in tags:
        assert "style" not in attributes
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith("#") or (tag == "a" and target.startswith("https://doi.org/"))
    assert "url(http" not in page
    assert "@import" not in page


def test_the_policy_admits_the_one_style_sheet_only(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy.group(1)
    assert "unsafe" not in policy.group(1)


def test_ids_are_unique_and_tables_have_headers(page: str) -> None:
    tags = _parse(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert all(a.get("aria-label") for tag, a in tags if tag == "svg")


def test_a_gap_is_said_with_the_sites_own_threshold(page: str) -> None:
    assert "suppressed (&lt;11)" in page
    assert "suppressed (&lt;5)" in page
    assert "not estimable" in page
    assert "<td></td>" not in page
    assert REFUSAL_WORDS[RefusalCode.TOO_FEW_EVENTS] in page


def test_a_matrix_that_could_not_leave_shows_no_number(folder: Path) -> None:
    svg = (folder / "figures" / "confusion_kappa_site_3.svg").read_text(encoding="utf-8")
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]  # noqa: S314
    assert "suppressed (too_few_per_category)" in texts
    assert not [text for text in texts if text and text.endswith("%")]


def test_every_figure_is_well_formed_with_text_as_text(folder: Path) -> None:
    for path in (folder / "figures").iterdir():
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314
        assert root.get("aria-label")
        assert any(node.tag.endswith("}text") for node in root.iter())
        assert not any("style" in node.attrib for node in root.iter())


def test_the_pooled_merged_matrix_covers_every_site(report: RoundReport) -> None:
    full, merged = Findings(report).matrices("kappa", "pooled")
    assert full.n == 75 + 135
    assert merged.n == 22 + 75 + 135
    assert merged.labels == ("0-100", ">100")


def test_banners_follow_card_and_policy(
    build: Callable[..., RoundReport], tmp_path: Path, page: str
) -> None:
    assert "Demonstration model - not for clinical use" in page
    assert "No disclosure control" not in page
    sites = build(2).sites
    policy = sites[1].policy
    assert policy is not None
    opened = type(sites[1])(sites[1].name, None, policy.model_copy(update={"profile": "open"}))
    write_report(build(2, sites=(sites[0], opened), package_card=None), tmp_path / "open")
    text = (tmp_path / "open" / "report.html").read_text(encoding="utf-8")
    assert "No disclosure control was applied (open policy)" in text
    assert "Demonstration model" not in text


def test_hostile_words_are_escaped(build: Callable[..., RoundReport], tmp_path: Path) -> None:
    hostile = '"><script>alert(1)</script><svg onload=x>'
    report = build(
        provenance={"note": hostile},
        package_card=PackageCard(hostile, "1", hostile, False),
        estimates=(
            *build().estimates,
            Estimate("difference", "pooled", Measure.BIAS, term=hostile, estimate=1.0),
        ),
    )
    write_report(report, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    tags = _parse(page).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not any("onload" in attributes for _, attributes in tags)


def test_sites_whose_names_clash_keep_their_figures(
    build: Callable[..., RoundReport], tmp_path: Path
) -> None:
    first, second = build(2).sites
    twin = type(second)("site_1", first.flow, first.policy)
    write_report(build(sites=(first, twin)), tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "flow_site_1_2.svg").exists()


def test_an_infinite_estimate_is_refused(build: Callable[..., RoundReport]) -> None:
    row = Estimate("a", "pooled", Measure.HAZARD_RATIO, estimate=float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        build(estimates=(row,))


def test_every_refusal_code_has_words() -> None:
    assert set(REFUSAL_WORDS) == set(RefusalCode)


def test_a_site_without_a_flow_is_as_large_as_its_largest_whole_cohort(
    report: RoundReport,
) -> None:
    assert [Findings(report).size(site) for site in report.sites] == [22, 75, 71, 135]
