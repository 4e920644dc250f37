"""Rules of the house that a linter does not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for package in ("fedcac", "site_agent", "coordinator")
    for path in (ROOT / package).rglob("*.py")
)
FORBIDDEN_IMPORTS = {"pickle", "shelve", "marshal", "dill", "joblib", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "print"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FILES:
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.split(".")[0]}
    return set()


def test_nothing_that_runs_foreign_code_or_prints() -> None:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if imported(node) & FORBIDDEN_IMPORTS or isinstance(node, ast.Assert):
                found.append(f"{path}:{node.lineno}")  # type: ignore[attr-defined]
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else ""
                full = ast.unparse(node.func)
                if name in FORBIDDEN_CALLS or full in ("torch.load", "torch.jit.load"):
                    found.append(f"{path}:{node.lineno}")
    assert found == []


def test_only_the_gate_makes_a_release() -> None:
    makers = set()
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Release":
                makers.add(path.as_posix())
    assert makers == {"fedcac/disclosure/gate.py"}


def test_heavy_libraries_stay_in_their_rooms() -> None:
    rooms = {
        "torch": ("fedcac/models", "fedcac/training"),
        "monai": ("fedcac/models", "fedcac/training"),
        "pydicom": ("fedcac/imaging", "fedcac/phantom", "site_agent/pacs"),
        "pynetdicom": ("site_agent/pacs",),
        "highdicom": ("fedcac/imaging", "fedcac/phantom"),
        "sqlalchemy": ("coordinator",),
        "flwr": (
            "coordinator/flower_courier/adapter.py",
            "site_agent/flower_courier/adapter.py",
        ),
    }
    for path, tree in trees():
        for node in ast.walk(tree):
            for library in imported(node) & rooms.keys():
                assert path.as_posix().startswith(rooms[library]), (path, library)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_modules_name_what_they_offer(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    has_code = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    assert not has_code or "__all__" in names


def test_files_stay_short() -> None:
    long = [p for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 420]
    assert long == []
