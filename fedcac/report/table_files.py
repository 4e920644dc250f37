"""The report's tables: which the round has, and each as LaTeX for a manuscript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedcac.report.between_sites import bivariate_table, heterogeneity_table, leave_one_out_table
from fedcac.report.characteristics import characteristics_tables
from fedcac.report.checklist import checklist_table
from fedcac.report.clinical_tables import (
    added_value_table,
    cox_by_site_tables,
    cox_tables,
    log_rank_table,
)
from fedcac.report.figures.canvas import slug
from fedcac.report.findings import Findings
from fedcac.report.flow_tables import flow_by_site, flow_table
from fedcac.report.score_tables import (
    auc_by_site,
    comparison_tables,
    discrimination_table,
    fusion_table,
    score_test_table,
)
from fedcac.report.table import Row, Table
from fedcac.report.tables import (
    cross_table,
    disclosure_table,
    performance_by_site,
    performance_table,
)
from fedcac.report.withheld_tables import withheld_table

__all__ = ["latex_table", "report_tables", "write_tables"]

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
        "flow_by_site": flow_by_site(findings),
        "performance_by_site": performance_by_site(findings),
        "auc_by_site": auc_by_site(findings),
        "cox_by_site": cox_by_site_tables(findings),
    }
    found = [(name, table) for name, table in single.items() if table is not None and table.rows]
    for name, tables in series.items():
        found += [(f"{name}_{number}", table) for number, table in enumerate(tables, start=1)]
    return tuple(found)


def write_tables(findings: Findings, folder: Path) -> None:
    """Write every table as `NAME.tex` into an existing folder."""
    for name, table in report_tables(findings):
        (folder / f"{name}.tex").write_text(latex_table(table, slug(name)), encoding="utf-8")


def latex_table(table: Table, label: str) -> str:
    r"""Return a table with rules of the package booktabs, to be taken in by `\input`.

    A table of more than 40 rows is a `longtable` and breaks across pages. Signs beyond ASCII that
    have no command stay as they are, which UTF-8 input takes.
    """
    n = len(table.columns)
    head = f"\\toprule\n{_line(table.columns)}\n\\midrule\n"
    body = "".join(f"{line}\n" for line in _latex_rows(table.rows, n))
    caption = f"\\caption{{{_latex(table.caption)}}}\\label{{tab:{label}}}"
    below = f"\\par\\smallskip\\footnotesize {_latex(table.note)}\n" if table.note else ""
    note = "% needs \\usepackage{booktabs}"
    if len(table.rows) > _LONGEST_ON_A_PAGE:
        return (
            f"{note} and \\usepackage{{longtable}}\n\\begin{{longtable}}{{{'l' * n}}}\n"
            f"{caption}\\\\\n{head}\\endfirsthead\n{head}\\endhead\n\\bottomrule\n\\endfoot\n"
            f"{body}\\end{{longtable}}\n{below}"
        )
    return (
        f"{note}\n\\begin{{table}}\n\\centering\n{caption}\n\\begin{{tabular}}{{{'l' * n}}}\n"
        f"{head}{body}\\bottomrule\n\\end{{tabular}}\n{below}\\end{{table}}\n"
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
