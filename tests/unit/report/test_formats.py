"""PDF, PNG figures and LaTeX tables for a manuscript."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedcac.errors import UsageError
from fedcac.report import ReportFormats, RoundReport
from fedcac.report.browser import find_browser
from fedcac.report.figures import draw_figures
from fedcac.report.findings import Findings
from fedcac.report.rasters import pixels_across, printed_width_mm, write_pngs
from fedcac.report.table import Row, Table
from fedcac.report.table_files import latex_table, report_tables
from fedcac.report.writing import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
needs_browser = pytest.mark.skipif(
    not any(shutil.which(name) for name in BROWSERS), reason="no Chromium browser is installed"
)


def unescaped(latex: str) -> str:
    """Undo the escapes of a cell, written independently of the code that makes them."""
    words = {
        r"\textbackslash{}": "\\",
        r"\textasciicircum{}": "^",
        r"\textasciitilde{}": "~",
        r"\textless{}": "<",
        r"\textgreater{}": ">",
        r"\textbar{}": "|",
        r"\textquotedbl{}": '"',
    }
    pattern = "|".join(re.escape(word) for word in words) + r"|\\[{}$&#%_]"
    return re.sub(pattern, lambda m: words.get(m.group(), m.group()[1:]), latex)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_no_sign_of_a_cell_is_a_command_of_latex(cell: str) -> None:
    table = latex_table(Table("c", ("a", "b"), (Row("head", (cell,)),)), "x")
    line = next(line for line in table.splitlines() if line.startswith("head & "))
    inside = line.removeprefix("head & ").removesuffix(r" \\")
    assert unescaped(inside) == cell
    # Column separators, comments and mathematics come from us alone.
    assert not re.search(r"(?<!\\)[&%$#_~^]", inside)


def test_every_latex_table_has_its_columns_and_its_note(report: RoundReport) -> None:
    found = report_tables(Findings(report))
    names = [name for name, _ in found]
    assert len(set(names)) == len(names)
    assert {"performance", "cross_tabulation", "flow", "disclosure"} <= set(names)
    for name, table in found:
        latex = latex_table(table, name)
        assert latex.count(r"\toprule") == latex.count(r"\midrule") > 0
        assert latex.count(r"\bottomrule") == 1
        body = re.findall(r"^(?!\\multicolumn|\\caption)(.*[^\\]) \\\\$", latex, re.MULTILINE)
        widths = {len(re.findall(r"(?<!\\)&", line)) for line in body}
        assert widths == {len(table.columns) - 1}, name
        assert bool(table.note) == (r"\footnotesize" in latex), name


def test_a_long_latex_table_breaks_across_pages() -> None:
    rows = tuple(Row(f"row {number}", ("1",)) for number in range(41))
    assert r"\begin{longtable}{ll}" in latex_table(Table("c", ("a", "b"), rows), "x")
    assert r"\begin{tabular}{ll}" in latex_table(Table("c", ("a", "b"), rows[:40]), "x")


def test_forms_of_an_earlier_output_do_not_stay(
    build: Callable[..., RoundReport], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_report(build(), out, formats=ReportFormats(has_tables=True))
    assert (out / "tables" / "performance.tex").exists()
    for name in ("report.pdf", "tables.docx", "estimates.parquet"):
        (out / name).write_bytes(b"of other numbers")
    write_report(build(2), out)
    for name in ("tables", "report.pdf", "tables.docx", "estimates.parquet"):
        assert not (out / name).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("formats", [ReportFormats(has_pdf=True), ReportFormats(png_mm=85)])
def test_without_a_browser_nothing_is_written(
    report: RoundReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formats: ReportFormats
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        write_report(report, tmp_path / "out", formats=formats)
    assert caught.value.code == "usage.no_browser"
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_fails_is_a_coded_error(
    report: RoundReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 3\n", encoding="ascii")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() == str(broken)
    with pytest.raises(UsageError, match="exit code 3") as caught:
        write_report(report, tmp_path / "out", formats=ReportFormats(has_pdf=True))
    assert caught.value.code == "usage.browser_failed"


@needs_browser
def test_the_pdf_is_a4(report: RoundReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "out", formats=ReportFormats(has_pdf=True))
    pdf = (tmp_path / "out" / "report.pdf").read_bytes()
    boxes = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", pdf)
    assert len(boxes) > 3
    for width, height in boxes:
        assert float(width) == pytest.approx(210 / 25.4 * 72, abs=1)
        assert float(height) == pytest.approx(297 / 25.4 * 72, abs=1)


@needs_browser
def test_pngs_are_as_wide_as_journals_print(report: RoundReport, tmp_path: Path) -> None:
    figures = draw_figures(Findings(report))
    chosen = [
        next(figure for figure in figures if figure.name.startswith(start))
        for start in ("confusion", "flow", "forest", "bland_altman")
    ]
    widened = write_pngs(chosen, tmp_path, 85)
    assert len(list(tmp_path.iterdir())) == len(chosen)
    for figure in chosen:
        width_mm = 175 if figure.name in widened else 85
        with Image.open(tmp_path / f"{figure.name}_{width_mm}mm.png") as image:
            assert image.width == pixels_across(width_mm)
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            # White paper with something on it, and nothing touches the edge.
            grey = image.convert("L")
            assert grey.getextrema()[0] < 100
            edge = [grey.crop((0, grey.height - 1, grey.width, grey.height))]
            assert all(strip.getextrema()[0] > 240 for strip in edge)


def test_text_below_five_points_asks_for_the_wider_form() -> None:
    assert printed_width_mm(480, 85) == 85
    assert printed_width_mm(500, 85) == 175
    assert printed_width_mm(820, 175) == 175
    assert pixels_across(85) == 1004
