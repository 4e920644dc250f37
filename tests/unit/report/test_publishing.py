"""Parquet and Word: the same numbers, and a clear word where their packages are missing."""

from __future__ import annotations

import builtins
import importlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import docx
import pandas as pd
import pyarrow.parquet as pq
import pytest
from docx.enum.section import WD_ORIENT

import fedcac
from fedcac.errors import FedcacError, UsageError
from fedcac.report import COLUMNS, ReportFormats, RoundReport, read_estimates
from fedcac.report.estimates_frame import estimates_frame
from fedcac.report.findings import Findings
from fedcac.report.table import Row, Table
from fedcac.report.table_files import report_tables
from fedcac.report.word_document import word_document
from fedcac.report.writing import write_report

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, report: RoundReport) -> Path:
    out = tmp_path_factory.mktemp("formats") / "out"
    write_report(report, out, formats=ReportFormats(has_word=True, has_parquet=True))
    return out


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_holds_the_rows_of_the_csv_bit_for_bit(folder: Path, report: RoundReport) -> None:
    table = pq.read_table(folder / "estimates.parquet")
    assert table.column_names == list(COLUMNS)
    kinds = {field.name: str(field.type) for field in table.schema}
    assert {kinds[name] for name in ("estimate", "se", "ci_low", "ci_high", "p_value")} == {
        "double"
    }
    assert kinds["n"] == kinds["n_events"] == "int64"
    assert kinds["status"] == kinds["measure"] == "string"
    rows = read_estimates(folder / "estimates.csv")
    for column in COLUMNS:
        # None for an absent number: repr tells -0.0 from 0.0 and every last digit.
        expected = [getattr(row, column) for row in rows]
        expected = [str(v) if kinds[column] == "string" else v for v in expected]
        assert list(map(repr, table[column].to_pylist())) == list(map(repr, expected)), column
    assert len(rows) == len(report.estimates) > 100


def test_parquet_names_its_schema_its_round_and_its_protocol(
    folder: Path, report: RoundReport
) -> None:
    words = pq.read_schema(folder / "estimates.parquet").metadata
    assert words[b"fedcac_schema_version"] == b"1"
    assert words[b"fedcac_round"] == report.round_id.encode()
    assert words[b"fedcac_protocol_digest"] == report.protocol.digest().encode()


def test_pandas_reads_the_same_frame_from_either_file(folder: Path, tmp_path: Path) -> None:
    whole = fedcac.read_output(folder).estimates
    alone = pd.read_parquet(folder / "estimates.parquet")
    pd.testing.assert_frame_equal(whole, alone, check_exact=True)
    only = tmp_path / "only"
    only.mkdir()
    for name in ("provenance.json", "results.json", "estimates.parquet"):
        (only / name).write_bytes((folder / name).read_bytes())
    pd.testing.assert_frame_equal(whole, fedcac.read_output(only).estimates, check_exact=True)


@pytest.mark.parametrize("name", ["estimates.parquet", "estimates.csv"])
def test_an_altered_table_of_either_kind_is_found(folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(FedcacError) as caught:
        fedcac.read_output(copy)
    assert caught.value.code == "integrity.output_altered"


def test_a_table_of_another_schema_is_refused(folder: Path, tmp_path: Path) -> None:
    from fedcac.report.estimates_frame import read_estimates_parquet

    table = pq.read_table(folder / "estimates.parquet")
    other = table.replace_schema_metadata({b"fedcac_schema_version": b"2"})
    pq.write_table(other, tmp_path / "later.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"not parquet at all")
    for name in ("later.parquet", "noise.parquet"):
        with pytest.raises(FedcacError) as caught:
            read_estimates_parquet(tmp_path / name)
        assert caught.value.code == "table.estimates_columns"


def test_no_row_at_all_keeps_the_types() -> None:
    frame = estimates_frame(())
    assert str(frame["n"].dtype) == "Int64"
    assert str(frame["estimate"].dtype) == "float64"
    assert str(frame["status"].dtype) == "object"


# --- Word -----------------------------------------------------------------------------------------


def borders(cell: ElementTree.Element) -> dict[str, str]:
    found = cell.find(f"{W}tcPr/{W}tcBorders")
    return {} if found is None else {x.tag.removeprefix(W): x.get(f"{W}sz", "") for x in found}


def test_word_has_every_table_with_title_cells_and_note(folder: Path, report: RoundReport) -> None:
    document = docx.Document(str(folder / "tables.docx"))
    given = [table for _, table in report_tables(Findings(report))]
    titles = [p.text for p in document.paragraphs if p.style and p.style.name == "Heading 2"]
    assert titles == [f"Table {i}. {table.caption}" for i, table in enumerate(given, start=1)]
    texts = {paragraph.text for paragraph in document.paragraphs}
    assert len(document.tables) == len(given)
    for made, table in zip(document.tables, given, strict=True):
        assert [cell.text for cell in made.rows[0].cells] == list(table.columns)
        assert len(made.rows) == 1 + len(table.rows)
        for line, row in zip(made.rows[1:], table.rows, strict=True):
            words = [row.head, *row.cells] if row.cells else [row.head] * len(table.columns)
            assert [cell.text for cell in line.cells] == words
        assert not table.note or table.note in texts


def test_word_tables_have_three_rules_and_repeat_their_head(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tables.docx") as archive:
        body = ElementTree.fromstring(archive.read("word/document.xml"))  # noqa: S314 - our own
    for table in body.iter(f"{W}tbl"):
        rows = table.findall(f"{W}tr")
        assert rows[0].find(f"{W}trPr/{W}tblHeader") is not None
        assert all(row.find(f"{W}trPr/{W}cantSplit") is not None for row in rows)
        for number, row in enumerate(rows):
            for cell in row.findall(f"{W}tc"):
                expected = {0: {"top": "12", "bottom": "6"}, len(rows) - 1: {"bottom": "12"}}
                assert borders(cell) == expected.get(number, {})


def test_wide_tables_lie_on_landscape_pages(report: RoundReport) -> None:
    narrow = Table("Narrow.", ("a", "b"), (Row("x", ("1",)),))
    wide = Table("Wide.", tuple("abcdefgh"), (Row("x", tuple("1234567")),), note="Of note.")
    payload = word_document(report, [narrow, wide, narrow])
    import io

    document = docx.Document(io.BytesIO(payload))
    assert [section.orientation for section in document.sections] == [
        WD_ORIENT.PORTRAIT,
        WD_ORIENT.LANDSCAPE,
        WD_ORIENT.PORTRAIT,
    ]
    for section in document.sections:
        assert section.page_width is not None
        assert section.page_height is not None
        is_wide = section.page_width > section.page_height
        assert is_wide == (section.orientation == WD_ORIENT.LANDSCAPE)
        # A table is never wider than what the page leaves between its margins.
        assert section.left_margin is not None
        assert section.right_margin is not None
    room = document.sections[1].page_width - 2 * document.sections[1].left_margin  # type: ignore[operator]
    assert sum(cell.width for cell in document.tables[1].rows[0].cells) <= room  # type: ignore[misc]


# --- without the packages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formats", "package"),
    [
        (ReportFormats(has_word=True), "python-docx"),
        (ReportFormats(has_parquet=True), "pyarrow"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_written(
    build: Callable[..., RoundReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    formats: ReportFormats,
    package: str,
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in {"docx", "pyarrow"}]:
        monkeypatch.delitem(sys.modules, name)
    genuine = builtins.__import__

    def blocked(name: str, *rest: object) -> object:
        if name.partition(".")[0] in {"docx", "pyarrow"}:
            raise ImportError(name)
        return genuine(name, *rest)  # type: ignore[arg-type]

    def import_module(name: str, package: str | None = None) -> object:
        if name.partition(".")[0] in {"docx", "pyarrow"}:
            raise ImportError(name)
        return importlib.import_module(name, package)

    monkeypatch.setattr(builtins, "__import__", blocked)
    monkeypatch.setattr("fedcac.report.publishing.import_module", import_module)
    with pytest.raises(UsageError) as caught:
        write_report(build(), tmp_path / "out", formats=formats)
    assert caught.value.code == "usage.no_publishing"
    assert package in str(caught.value)
    assert "pip install 'fedcac[publishing]'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_core_loads_neither_package() -> None:
    code = (
        "import sys\n"
        "for name in ('pyarrow', 'docx'): sys.modules[name] = None\n"
        "import fedcac, fedcac.output, fedcac.report, fedcac.cli.analyze, coordinator.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
