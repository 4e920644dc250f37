"""Every method of a protocol has its paper in the report's list."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fedcac.protocol.catalogue import load_shipped
from fedcac.report import RoundReport
from fedcac.report.findings import Findings
from fedcac.report.page import render_page
from fedcac.report.references import REFERENCES_BY_KIND, references_of
from fedcac.statistics import registered_estimators


def test_every_kind_of_analysis_has_a_reference() -> None:
    assert set(REFERENCES_BY_KIND) == set(registered_estimators())


@pytest.mark.parametrize("name", ["eng2021-nongated", "miller2023-ctac", "hong2025-cxr"])
def test_a_protocol_lists_its_study_and_each_paper_once(name: str) -> None:
    protocol = load_shipped(name)
    found = references_of(protocol)
    assert found[0].endswith(protocol.citation.doi)
    assert len(set(found)) == len(found)
    for spec in protocol.analyses:
        assert set(REFERENCES_BY_KIND[spec.kind]) <= set(found)
    for reference in found[1:]:
        assert re.search(r"(19|20)\d\d(;\d+)?:\d+-\d+\.$", reference), reference


def test_the_page_numbers_them(build: Callable[..., RoundReport]) -> None:
    report = build()
    page = render_page(Findings(report), (), {})
    part = page.split('<ol class="references">')[1].split("</ol>")[0]
    assert part.count("<li>") == len(references_of(report.protocol))
