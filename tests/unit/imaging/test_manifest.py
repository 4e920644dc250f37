from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from fedcac.errors import TableError
from fedcac.imaging import Role, read_manifest


def write(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_relative_and_absolute_paths_and_overrides(tmp_path: Path) -> None:
    text = "path,role,patient_id,study_date\na/b,index,P1,20200131\n\n/data/c,reference,,\n"
    first, second = read_manifest(write(tmp_path, text))
    assert (first.path, first.role, first.line) == (tmp_path / "a/b", Role.INDEX, 2)
    assert (first.patient_id, first.study_date) == ("P1", date(2020, 1, 31))
    assert (second.path, second.role, second.line) == (Path("/data/c"), Role.REFERENCE, 4)
    assert (second.patient_id, second.study_date) == (None, None)
    assert "P1" not in repr(first)
    assert str(tmp_path) not in repr(first)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "empty_manifest", 1),
        ("path,role\n", "empty_manifest", 2),
        ("path\na\n", "missing_column", 1),
        ("path,role,colour\na,index,x\n", "unknown_column", 1),
        ("path,role,role\na,index,index\n", "repeated_column", 1),
        ("path,role\na,index\nb,gold\n", "unknown_role", 3),
        ("path,role\n,index\n", "missing_path", 2),
        ("path,role\n../a,index\n", "path_escapes", 2),
        ("path,role\na/../../b,index\n", "path_escapes", 2),
        ("path,role\na,index\n./a,reference\n", "repeated_path", 3),
        ("path,role\na,index,extra\n", "malformed_line", 2),
        ("path,role,study_date\na,index,2020-01-01\n", "bad_study_date", 2),
        ("path,role,study_date\na,index,20201301\n", "bad_study_date", 2),
    ],
)
def test_a_fault_names_its_code_and_line(tmp_path: Path, text: str, code: str, line: int) -> None:
    with pytest.raises(TableError) as caught:
        read_manifest(write(tmp_path, text))
    assert caught.value.code == f"table.{code}"
    assert f"ine {line}" in caught.value.cure


def test_an_absent_or_binary_manifest_is_coded(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no_manifest"):
        read_manifest(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"path,role\n\xff\xfe,index\n")
    with pytest.raises(TableError, match="unreadable_manifest"):
        read_manifest(tmp_path / "binary.csv")
