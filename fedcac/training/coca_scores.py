"""COCA's non-gated exams and the scores of their patients.

The scores come as a sheet, `scores.xlsx` or the same as CSV: a file's name (the patient's folder
and a letter 'A'), then LCA (left main), LAD, LCX, RCA and the total. A workbook is a ZIP of XML
parts; two of them are read here, without entities, formulas or anything else of it.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from xml.parsers import expat

from fedcac.errors import CohortError, TableError, UsageError
from fedcac.imaging import load_volume
from fedcac.imaging.volume import Volume
from fedcac.training.coca import CRITERIA, CocaProblem
from fedcac.vocabulary import Vessel

__all__ = ["CocaScore", "NonGatedExams", "read_scores"]

_HEADER = ("filename", "lca", "lad", "lcx", "rca", "total")
_TOTAL_TOLERANCE = 0.5
_MAXIMUM_BYTES = 16 * 1024**2
_CELL = re.compile(r"([A-Z]{1,3})[0-9]+")


@dataclass(frozen=True)
class CocaScore:
    """Agatston scores of one patient by vessel; their total is the sheet's own."""

    vessels: dict[Vessel, float]
    total: float


@dataclass(eq=False)
class NonGatedExams:
    """The non-gated part of a copy of COCA. Make one with `of`.

    `patients` have images and a usable row; `problems` lists the others: `no_images`, `no_score`,
    `bad_score`, `total_differs` (the vessels do not sum to the total), `two_rows`, or the exclusion
    reason of the DICOM.
    """

    patients: tuple[str, ...]
    problems: list[CocaProblem]
    scores: dict[str, CocaScore]
    _images: dict[str, Path]

    @classmethod
    def of(cls, root: Path) -> Self:
        """List the patients of a folder `deidentified_nongated`, or of one that holds it.

        Raises
        ------
        UsageError
            `no_coca` if there is no sheet of scores.
        TableError
            As `read_scores`.
        """
        sheets = [
            path
            for path in sorted([*root.rglob("scores.xlsx"), *root.rglob("scores.csv")])
            if path.is_file()
        ]
        if not sheets:
            raise UsageError(
                "There is no sheet of scores here.",
                code="no_coca",
                cure="Give the folder that holds scores.xlsx or scores.csv.",
            )
        scores, problems = read_scores(sheets[0])
        parent = next((p for p in root.rglob("deidentified_nongated") if p.is_dir()), None)
        images = {
            folder.name: folder
            for folder in (parent or sheets[0].parent).iterdir()
            if folder.is_dir()
        }
        known = scores.keys() | {problem.patient for problem in problems}
        problems += [CocaProblem(p, "no_score", True) for p in images.keys() - known]
        problems += [CocaProblem(p, "no_images", True) for p in scores.keys() - images.keys()]
        return cls(
            patients=tuple(sorted(images.keys() & scores.keys())),
            problems=sorted(problems, key=lambda problem: problem.patient),
            scores=scores,
            _images=images,
        )

    def exams(self, patients: Iterable[str]) -> Iterator[tuple[Volume, CocaScore]]:
        """Yield volumes and scores of patients that can be used; the others join `problems`."""
        for patient in patients:
            try:
                volume = load_volume(self._images[patient], CRITERIA)
            except CohortError as error:
                self.problems.append(CocaProblem(patient, error.code.partition(".")[2], True))
                continue
            yield volume, self.scores[patient]


def read_scores(path: Path) -> tuple[dict[str, CocaScore], list[CocaProblem]]:
    """Return usable scores by patient, and the problems of the other rows.

    Raises
    ------
    TableError
        `bad_sheet` if the file cannot be read, or its header is another.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _workbook_rows(path)
    header = tuple(cell.strip().lower() for cell in (rows[0] if rows else []))
    if header[: len(_HEADER)] != _HEADER:
        raise _bad_sheet("does not begin with filename, LCA, LAD, LCX, RCA, total")
    scores: dict[str, CocaScore] = {}
    problems: list[CocaProblem] = []
    seen: set[str] = set()
    for row in rows[1:]:
        name = row[0].strip() if row else ""
        if not name:
            continue
        patient = name.removesuffix("A")
        score, code = _score_of(row[1 : len(_HEADER)])
        if patient in seen:
            # Which of two rows holds is not ours to say: neither does.
            scores.pop(patient, None)
            score, code = None, "two_rows"
        seen.add(patient)
        if score is None:
            problems.append(CocaProblem(patient, code, True))
        else:
            scores[patient] = score
    return scores, problems


def _score_of(cells: list[str]) -> tuple[CocaScore | None, str]:
    try:
        *vessels, total = (float(cell) for cell in cells)
    except ValueError:
        return None, "bad_score"
    if len(vessels) != len(Vessel) or not all(
        math.isfinite(value) and value >= 0 for value in (*vessels, total)
    ):
        return None, "bad_score"
    if abs(sum(vessels) - total) > _TOTAL_TOLERANCE:
        return None, "total_differs"
    return CocaScore(dict(zip(Vessel, vessels, strict=True)), total), ""


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise _bad_sheet("cannot be read as CSV") from error


def _workbook_rows(path: Path) -> list[list[str]]:
    try:
        with zipfile.ZipFile(path) as book:
            shared: list[str] = []
            if "xl/sharedStrings.xml" in book.namelist():
                shared = _shared_strings(_part(book, "xl/sharedStrings.xml"))
            return _cells(_part(book, "xl/worksheets/sheet1.xml"), shared)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        IndexError,
        RuntimeError,
        NotImplementedError,
        expat.ExpatError,
    ) as error:
        raise _bad_sheet("cannot be read as a workbook") from error


def _part(book: zipfile.ZipFile, name: str) -> bytes:
    with book.open(name) as file:
        content = file.read(_MAXIMUM_BYTES + 1)
    if len(content) > _MAXIMUM_BYTES:
        raise ValueError("a part is larger than any sheet of scores")
    return content


def _parse(content: bytes, parser: expat.XMLParserType) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("a workbook has no document type")

    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    parser.Parse(content, True)


def _shared_strings(content: bytes) -> list[str]:
    found: list[str] = []
    is_text = False

    def start(name: str, _: dict[str, str]) -> None:
        nonlocal is_text
        if name == "si":
            found.append("")
        is_text = name == "t"

    def end(_: str) -> None:
        nonlocal is_text
        is_text = False

    def text(value: str) -> None:
        if is_text:
            found[-1] += value

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    _parse(content, parser)
    return found


def _cells(content: bytes, shared: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    column, kind, value, is_value = 0, "", "", False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal column, kind, value, is_value
        if name == "row":
            rows.append([])
        elif name == "c":
            column, kind, value = _column(attributes.get("r", "")), attributes.get("t", "n"), ""
        is_value = name in ("v", "t")

    def end(name: str) -> None:
        nonlocal is_value
        is_value = False
        if name == "c":
            row = rows[-1]
            row += [""] * (column + 1 - len(row))
            row[column] = shared[int(value)] if kind == "s" else value

    def text(part: str) -> None:
        nonlocal value
        if is_value:
            value += part

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    _parse(content, parser)
    return rows


def _column(reference: str) -> int:
    match = _CELL.fullmatch(reference)
    if match is None:
        raise ValueError("a cell without a place")
    number = 0
    for letter in match.group(1):
        number = number * 26 + ord(letter) - ord("A") + 1
    if number > 1000:
        raise ValueError("a cell far outside the sheet")
    return number - 1


def _bad_sheet(what: str) -> TableError:
    return TableError(
        f"The sheet of scores {what}.",
        code="bad_sheet",
        cure="Use scores.xlsx as published, or save its first sheet as scores.csv.",
    )
