"""The report's tables as one Word document, ruled as journals rule tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from fedcac.report.content import RoundReport
from fedcac.report.publishing import publishing_module
from fedcac.report.table import Row, Table

__all__ = ["WORD_FILE", "word_document"]

WORD_FILE: Final = "tables.docx"

_FONT = "Times New Roman"
_WIDEST_PORTRAIT = 6
_THICK, _THIN = 12, 6
"""Eighths of a point."""
_A4_MM = (210, 297)
_MARGIN_MM = 20
_HEAD_SHARE = 1.9
"""Width of the column of row headers, in columns of numbers."""


def word_document(report: RoundReport, tables: Sequence[Table]) -> bytes:
    """Return a .docx with every table: numbered title, three rules, header row repeated, note.

    Tables of more than six columns stand on landscape pages. No row breaks across pages. The page
    header names protocol and round, the footer has the page's number.

    Raises
    ------
    UsageError
        If python-docx is not installed (`no_publishing`).
    """
    docx = publishing_module("docx")
    document = docx.Document()
    _set_styles(document)
    _set_properties(document, report)
    is_wide = False
    section = document.sections[0]
    _shape_page(section, is_wide=False)
    _head_and_foot(section, report)
    document.add_heading(f"Tables: {report.protocol.title}", level=1)
    document.add_paragraph(
        f"Protocol {report.protocol.id}, version {report.protocol.version}. Round "
        f"{report.round_id}, finished {report.finished:%Y-%m-%d}. Made from released aggregates; "
        "research use only."
    )
    for number, table in enumerate(tables, start=1):
        wide = len(table.columns) > _WIDEST_PORTRAIT
        if wide != is_wide:
            section = document.add_section(_enum("section", "WD_SECTION").NEW_PAGE)
            _shape_page(section, is_wide=wide)
            is_wide = wide
        _add_table(document, number, table)
    sink = io.BytesIO()
    document.save(sink)
    return sink.getvalue()


def _enum(module: str, name: str) -> Any:
    return getattr(publishing_module(f"docx.enum.{module}"), name)


def _set_styles(document: Any) -> None:
    shared, qn = publishing_module("docx.shared"), publishing_module("docx.oxml.ns").qn
    normal = document.styles["Normal"]
    normal.font.name, normal.font.size = _FONT, shared.Pt(10)
    for name, size in (("Heading 1", 14), ("Heading 2", 10)):
        style = document.styles[name]
        style.font.name, style.font.size = _FONT, shared.Pt(size)
        style.font.bold, style.font.color.rgb = True, shared.RGBColor(0, 0, 0)
        # The theme's font would win over the name.
        fonts = style.element.rPr.rFonts
        for part in ("asciiTheme", "hAnsiTheme", "eastAsiaTheme", "cstheme"):
            fonts.attrib.pop(qn(f"w:{part}"), None)
        style.paragraph_format.space_before = shared.Pt(14)
        style.paragraph_format.space_after = shared.Pt(4)
        style.paragraph_format.keep_with_next = True


def _set_properties(document: Any, report: RoundReport) -> None:
    about = document.core_properties
    about.title = f"Tables of round {report.round_id}"
    about.subject = f"Protocol {report.protocol.id}, version {report.protocol.version}"
    about.author, about.comments = "fedcac", ""
    # The round's own time: when the file was made says nothing of the numbers.
    about.created = about.modified = _naive(report.finished)


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None, microsecond=0)


def _shape_page(section: Any, *, is_wide: bool) -> None:
    mm, orientation = publishing_module("docx.shared").Mm, _enum("section", "WD_ORIENT")
    short, long = (mm(side) for side in _A4_MM)
    section.orientation = orientation.LANDSCAPE if is_wide else orientation.PORTRAIT
    section.page_width, section.page_height = (long, short) if is_wide else (short, long)
    for side in ("left_margin", "right_margin", "top_margin", "bottom_margin"):
        setattr(section, side, mm(_MARGIN_MM))


def _head_and_foot(section: Any, report: RoundReport) -> None:
    align = _enum("text", "WD_ALIGN_PARAGRAPH")
    head = section.header.paragraphs[0]
    head.text = f"{report.protocol.id}, version {report.protocol.version} · {report.round_id}"
    foot = section.footer.paragraphs[0]
    foot.alignment = align.RIGHT
    foot.add_run("Page ")
    _add_field(foot, "PAGE")
    foot.add_run(" of ")
    _add_field(foot, "NUMPAGES")


def _add_field(paragraph: Any, code: str) -> None:
    element, qn = publishing_module("docx.oxml").OxmlElement, publishing_module("docx.oxml.ns").qn
    field = element("w:fldSimple")
    field.set(qn("w:instr"), code)
    run, text = element("w:r"), element("w:t")
    text.text = "1"
    run.append(text)
    field.append(run)
    paragraph._p.append(field)


def _add_table(document: Any, number: int, table: Table) -> None:
    shared = publishing_module("docx.shared")
    document.add_heading(f"Table {number}. {table.caption}", level=2)
    n = len(table.columns)
    size = shared.Pt(9 if n <= _WIDEST_PORTRAIT else 8 if n <= 9 else 6.5)
    made = document.add_table(rows=0, cols=n)
    made.alignment = _enum("table", "WD_TABLE_ALIGNMENT").LEFT
    section = document.sections[-1]
    room = section.page_width - section.left_margin - section.right_margin
    unit = room / (n - 1 + _HEAD_SHARE)
    widths = [int(unit * _HEAD_SHARE), *[int(unit)] * (n - 1)]
    head = _add_line(made, Row(table.columns[0], table.columns[1:]), widths, size, is_bold=True)
    _mark(head, "w:tblHeader")
    for row in table.rows:
        _add_line(made, row, widths, size, is_bold=False)
    _rule(made.rows[0].cells, top=_THICK, bottom=_THIN)
    _rule(made.rows[-1].cells, bottom=_THICK)
    note = document.add_paragraph(style="Normal")
    note.paragraph_format.space_before = shared.Pt(3)
    if table.note:
        run = note.add_run(table.note)
        run.font.size = shared.Pt(8)


def _add_line(made: Any, row: Row, widths: Sequence[int], size: Any, *, is_bold: bool) -> Any:
    line = made.add_row()
    _mark(line, "w:cantSplit")
    is_heading = not row.cells
    words = (row.head, *row.cells) if row.cells else (row.head,) + ("",) * (len(widths) - 1)
    for place, (cell, width) in enumerate(zip(line.cells, widths, strict=True)):
        cell.width = width
        if is_heading and place:
            continue
        paragraph = cell.paragraphs[0]
        paragraph.paragraph_format.space_after = 0
        paragraph.paragraph_format.keep_with_next = is_heading or is_bold
        run = paragraph.add_run(words[place])
        run.font.size, run.bold, run.italic = size, is_bold, is_heading
    if is_heading and len(widths) > 1:
        line.cells[0].merge(line.cells[-1])
    return line


def _mark(line: Any, name: str) -> None:
    element = publishing_module("docx.oxml").OxmlElement
    line._tr.get_or_add_trPr().append(element(name))


def _rule(cells: Sequence[Any], **eighths: int) -> None:
    element, qn = publishing_module("docx.oxml").OxmlElement, publishing_module("docx.oxml.ns").qn
    for tc in dict.fromkeys(cell._tc for cell in cells):
        properties = tc.get_or_add_tcPr()
        borders = element("w:tcBorders")
        for side, eighth in eighths.items():
            line = element(f"w:{side}")
            for key, value in (("val", "single"), ("sz", str(eighth)), ("color", "000000")):
                line.set(qn(f"w:{key}"), value)
            borders.append(line)
        properties.append(borders)
