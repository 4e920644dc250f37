"""Parsers of what a hospital writes with a spreadsheet: tables, manifests, worklists."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from fuzz.engine import CANARY, Parser, file_at, register
from fuzz.mutations import (
    damage_bytes,
    damage_cells,
    damage_numbers,
    damage_text,
)

from fedcac.imaging.manifest import read_manifest
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.site_table import read_clinical_table, read_site_table, survey_clinical_table
from site_agent.pacs.worklist import read_worklist

# tables


@cache
def asked() -> Protocol:
    """Return the protocol that the tables are read under."""
    return load_shipped("demo-nongated")


def site_rows() -> list[bytes]:
    """Return a small scored table."""
    rng = np.random.default_rng(5)
    lines = [
        "patient_id,index_score,reference_score,index_lm,reference_lm,age,sex,follow_up_days,event"
    ]
    for number in range(8):
        score = round(float(rng.lognormal(3, 1)), 1)
        sex = ("female", "male")[number % 2]
        lines.append(
            f"{CANARY}-{number},{score},{score + 1},0,{number},{50 + number},{sex},{number * 90},"
            f"{number % 2}"
        )
    return ["\n".join(lines).encode() + b"\n"]


def _clinical_rows() -> list[bytes]:
    lines = [
        "patient_id,reference_score,reference_annotation,reference_date,age,sex,"
        "follow_up_days,event"
    ]
    lines += [f"{CANARY}-{n},{n * 10},,2020-01-0{n},{60 + n},male,{n},0" for n in range(1, 5)]
    lines += [f"{CANARY}-9,,masks/{CANARY}.nii.gz,20200109,61,female,12,1"]
    return ["\n".join(lines).encode() + b"\n"]


def _read_site_table(payload: bytes, folder: Path) -> None:
    table = read_site_table(file_at(folder, "table.csv", payload), asked())
    columns = table.exams.columns
    assert {len(column) for column in columns.values()} <= {len(table.exams.keys)}
    for name in ("index_score", "reference_score"):
        assert (columns[name] >= 0).all()
        assert np.isfinite(columns[name]).all()
    assert len(set(table.exams.keys)) == len(table.exams.keys)
    assert CANARY not in repr(table)


def _read_clinical_table(payload: bytes, folder: Path) -> None:
    table = read_clinical_table(file_at(folder, "clinical.csv", payload), asked())
    survey = survey_clinical_table(table)
    assert survey.n_patients == len(table.rows)
    assert all(0 <= n <= survey.n_patients for n in survey.missing.values())
    for row in table.rows.values():
        assert not any(math.isinf(value) for value in row.values())
    assert CANARY not in repr(table)


for _name, _seeds, _parse, _entry in (
    ("site-table", site_rows, _read_site_table, "fedcac.site_table.read_site_table"),
    (
        "clinical-table",
        _clinical_rows,
        _read_clinical_table,
        "fedcac.site_table.read_clinical_table",
    ),
):
    register(
        Parser(
            name=_name,
            writer="a hospital, with a spreadsheet",
            entry=_entry,
            promise="finite scores of 0 or above, one row per patient; its repr names none",
            seeds=_seeds,
            parse=_parse,
            mutators=(damage_cells, damage_cells, damage_numbers, damage_text, damage_bytes),
            n_cases=300,
        )
    )


def _manifest_rows() -> list[bytes]:
    lines = ["path,role,patient_id,study_date", f"exams/{CANARY}/1,index,{CANARY},20200101"]
    lines += [f"exams/{CANARY}/2,reference,{CANARY},20200103", "/data/3,index,P3,"]
    return ["\n".join(lines).encode() + b"\n"]


def _read_manifest(payload: bytes, folder: Path) -> None:
    entries = read_manifest(file_at(folder, "manifest.csv", payload))
    assert entries
    assert len({entry.path for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.path.is_absolute()
        assert ".." not in entry.path.parts
        assert CANARY not in repr(entry)


register(
    Parser(
        name="manifest",
        writer="a hospital, with a spreadsheet or an export program",
        entry="fedcac.imaging.manifest.read_manifest",
        promise="absolute paths without '..', each once; no repr names a patient",
        seeds=_manifest_rows,
        parse=_read_manifest,
        mutators=(damage_cells, damage_cells, damage_text, damage_bytes),
        n_cases=300,
    )
)


def _worklist_rows() -> list[bytes]:
    lines = ["patient_id,accession_number,study_date,role", f"{CANARY},A1,20200101,index"]
    return ["\n".join([*lines, "P2,,,", ",A3,20200102,reference"]).encode() + b"\n"]


def _read_worklist(payload: bytes, folder: Path) -> None:
    for wish in read_worklist(file_at(folder, "worklist.csv", payload), "CT"):
        assert wish.query.patient_id or wish.query.accession_number
        assert not set(wish.query.patient_id + wish.query.accession_number) & set("*?\\")
        assert CANARY not in repr(wish)


register(
    Parser(
        name="worklist",
        writer="a hospital, with a spreadsheet",
        entry="site_agent.pacs.worklist.read_worklist",
        promise="every line asks for one patient or study, without a wildcard",
        seeds=_worklist_rows,
        parse=_read_worklist,
        mutators=(damage_cells, damage_cells, damage_text, damage_bytes),
        n_cases=300,
    )
)
