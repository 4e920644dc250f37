"""The report's tables as files for a manuscript: LaTeX, and HTML that a word processor opens."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

from fedcac.report.between_sites import bivariate_table, heterogeneity_table, leave_one_out_table
from fedcac.report.characteristics import characteristics_tables
from fedcac.report.checklist import checklist_table
from fedcac.report.clinical_tables import added_value_table, cox_tables, log_rank_table
from fedcac.report.figures.canvas import slug
from fedcac.report.findings import Findings
from fedcac.report.score_tables import (
    comparison_tables,
    discrimination_table,
    fusion_table,
    score_test_table,
)
from fedcac.report.table import Row, Table
from fedcac.report.tables import cross_table, disclosure_table, flow_table, performance_table
from fedcac.report.withheld_tables import withheld_table

__all__ = ["latex_table", "report_tables", "word_table", "write_tables"]

_LONGEST_ON_A_PAGE = 40

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{SUPERSCRIPT TWO}": r"\textsuperscript{2}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREEK SMALL LETTER TAU}": r"$\tau$",
    "\N{GREEK SMALL LETTER KAPPA}": r"$\kappa$",
    "\N{GREEK SMALL LETTER CHI}": r"$\chi$",
    "\N{NO-BREAK SPACE}": "~",
}

_WORD_STYLE = (
    "body{font-family:'Times New Roman',serif;font-size:10pt}"
    "table{border-collapse:collapse;border-top:1.5pt solid #000;border-bottom:1.5pt solid #000}"
    "caption{text-align:left;padding-bottom:6pt}"
    "th,td{padding:2pt 6pt;text-align:left;vertical-align:top;font-weight:normal}"
    "thead th{border-bottom:0.75pt solid #000;font-weight:bold}"
    "tr.heading th{font-style:italic}"
)


def report_tables(findings: Findings) -> tuple[tuple[str, Table], ...]:
    """Return the tables that the round has, each with a file name that is its own."""
    single = {
        "flow": flow_table(findings),
        "performance": performance_table(findings),
        "cross_tabulation": cross_table(findings),
        "score_tests": score_test_table(findings),
        "discrimination": discrimination_table(findings),
        "fusion": fusion_table(findings),
        "log_rank": log_rank_table(findings),
        "added_value": added_value_table(findings),
        "heterogeneity": heterogeneity_table(findings),
        "bivariate": bivariate_table(findings),
        "leave_one_out": leave_one_out_table(findings),
        "disclosure": disclosure_table(findings),
        "withheld": withheld_table(findings.report),
        "checklist": checklist_table(findings),
    }
    series = {
        "characteristics": characteristics_tables(findings),
        "comparison": comparison_tables(findings),
        "cox": cox_tables(findings),
    }
    found = [(name, table) for name, table in single.items() if table is not None and table.rows]
    for name, tables in series.items():
        found += [(f"{name}_{number}", table) for number, table in enumerate(tables, start=1)]
    return tuple(found)


def write_tables(findings: Findings, folder: Path) -> None:
    """Write every table as `NAME.tex` and `NAME.html` into an existing folder."""
    for name, table in report_tables(findings):
        (folder / f"{name}.tex").write_text(latex_table(table, slug(name)), encoding="utf-8")
        (folder / f"{name}.html").write_text(word_table(table), encoding="utf-8")


def latex_table(table: Table, label: str) -> str:
    r"""Return a table with rules of the package booktabs, to be taken in by `\input`.

    A table of more than 40 rows is a `longtable` and breaks across pages. Signs beyond ASCII that
    have no command stay as they are, which UTF-8 input takes.
    """
    n = len(table.columns)
    head = f"\\toprule\n{_line(table.columns)}\n\\midrule\n"
    body = "".join(f"{line}\n" for line in _latex_rows(table.rows, n))
    caption = f"\\caption{{{_latex(table.caption)}}}\\label{{tab:{label}}}"
    note = "% needs \\usepackage{booktabs}"
    if len(table.rows) > _LONGEST_ON_A_PAGE:
        return (
            f"{note} and \\usepackage{{longtable}}\n\\begin{{longtable}}{{{'l' * n}}}\n"
            f"{caption}\\\\\n{head}\\endfirsthead\n{head}\\endhead\n\\bottomrule\n\\endfoot\n"
            f"{body}\\end{{longtable}}\n"
        )
    return (
        f"{note}\n\\begin{{table}}\n\\centering\n{caption}\n\\begin{{tabular}}{{{'l' * n}}}\n"
        f"{head}{body}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def word_table(table: Table) -> str:
    """Return a page with the table alone, ruled as journals rule tables.

    Word and LibreOffice open it and keep it as a table of their own; no package for `.docx` is
    among this project's dependencies.
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    body = "".join(_word_row(row, len(table.columns)) for row in table.rows)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(table.caption)}</title><style>{_WORD_STYLE}</style></head><body>\n"
        f"<table>\n<caption>{html.escape(table.caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</body></html>\n"
    )


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _line(cells: tuple[str, ...]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex_rows(rows: tuple[Row, ...], n: int) -> Iterator[str]:
    for number, row in enumerate(rows):
        if row.cells:
            yield _line((row.head, *row.cells))
        else:
            space = "\\addlinespace\n" if number else ""
            yield f"{space}\\multicolumn{{{n}}}{{l}}{{\\textit{{{_latex(row.head)}}}}} \\\\"


def _word_row(row: Row, n: int) -> str:
    head = html.escape(row.head)
    if not row.cells:
        return f'<tr class="heading"><th colspan="{n}">{head}</th></tr>\n'
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)
    return f"<tr><th>{head}</th>{cells}</tr>\n"
