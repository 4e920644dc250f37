"""The gate of coverage: gaps in guarded rooms are named, and an empty report does not pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage_gate
import pytest
from coverage_gate import GUARDED, main, rooms_of


def measured(
    n_lines: int = 10,
    n_branches: int = 4,
    lines: tuple[int, ...] = (),
    branches: tuple[tuple[int, int], ...] = (),
) -> dict[str, Any]:
    return {
        "missing_lines": list(lines),
        "missing_branches": [list(pair) for pair in branches],
        "summary": {
            "num_statements": n_lines,
            "covered_lines": n_lines - len(lines),
            "num_branches": n_branches,
            "covered_branches": n_branches - len(branches),
        },
    }


def report(**changes: dict[str, Any]) -> dict[str, Any]:
    files = {
        "fedcac/disclosure/gate.py": measured(),
        "fedcac/disclosure/rules/sums.py": measured(),
        "fedcac/exchange/mailbox.py": measured(),
        "fedcac/protocol/schema.py": measured(),
        "fedcac/signing.py": measured(),
        "fedcac/vocabulary.py": measured(n_branches=0),
        "fedcac/__init__.py": measured(0, 0),
        "fedcac/statistics/cox.py": measured(),
        "site_agent/rounds/answering.py": measured(),
        "coordinator/cli.py": measured(),
        **changes,
    }
    return {"meta": {"branch_coverage": True}, "files": files}


def judged(tmp_path: Path, document: dict[str, Any]) -> int:
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return main([str(path)])


def test_what_is_covered_passes_room_by_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(tmp_path, report()) == 0
    rooms = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rooms == [
        [name, "100.00", "%"]
        for name in (
            "coordinator",
            "fedcac",
            "fedcac.disclosure",
            "fedcac.exchange",
            "fedcac.protocol",
            "fedcac.signing",
            "fedcac.statistics",
            "site_agent.rounds",
        )
    ]


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("fedcac/disclosure/rules/sums.py", "fedcac.disclosure"),
        ("fedcac/signing.py", "fedcac.signing"),
    ],
)
def test_one_branch_of_a_guarded_room_is_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, room: str
) -> None:
    gap = measured(10_000, 4_000, branches=((7, -1),))
    assert judged(tmp_path, report(**{path: gap})) == 1
    out = capsys.readouterr().out
    # Never rounded up to a hundred.
    assert f"{room:<32}  99.99 %  NOT COVERED, at least 100\n" in out
    assert out.endswith(f"\n{room} is not run at:\n  {path}: branches 7->exit\n")


def test_gaps_are_named_by_lines_and_branches_the_largest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    branches = ((1, 3), (2, 9), (8, 10))
    files = {
        "fedcac/protocol/schema.py": measured(lines=(3, 4, 5, 8), branches=branches),
        "fedcac/protocol/analyses.py": measured(lines=(2,)),
    }
    assert judged(tmp_path, report(**files)) == 1
    assert capsys.readouterr().out.endswith(
        "fedcac.protocol is not run at:\n"
        # From 1 to 3 and from 8 on nothing could be run.
        "  fedcac/protocol/schema.py: lines 3-5, 8; branches 2->9\n"
        "  fedcac/protocol/analyses.py: lines 2\n"
    )


@pytest.mark.parametrize(("n_missing", "code"), [(5, 0), (6, 1)])
def test_any_other_room_may_lack_a_twentieth(tmp_path: Path, n_missing: int, code: int) -> None:
    cox = measured(60, 40, lines=tuple(range(1, n_missing + 1)))
    assert judged(tmp_path, report(**{"fedcac/statistics/cox.py": cox})) == code
    # A room is judged as a whole, its files together.
    other = measured(60, 40)
    files = {"fedcac/statistics/cox.py": cox, "fedcac/statistics/kappa.py": other}
    assert judged(tmp_path, report(**files)) == 0


def test_modules_beside_the_packages_are_one_room(tmp_path: Path) -> None:
    files = {"fedcac/vocabulary.py": measured(lines=(1, 2)), "fedcac/console.py": measured()}
    (room,) = (room for room in rooms_of(report(**files)) if room.name == "fedcac")
    assert set(room.files) == {"fedcac/vocabulary.py", "fedcac/__init__.py", "fedcac/console.py"}
    assert not room.is_covered


@pytest.mark.parametrize("name", GUARDED)
def test_a_report_without_a_guarded_room_is_none(name: str) -> None:
    document = report()
    where = name.replace(".", "/")
    document["files"] = {
        path: file for path, file in document["files"].items() if not path.startswith(where)
    }
    with pytest.raises(ValueError, match=f"nothing of {name}"):
        rooms_of(document)


def test_a_report_without_branches_is_none() -> None:
    with pytest.raises(ValueError, match="branch = true"):
        rooms_of({**report(), "meta": {"branch_coverage": False}})


def test_a_report_of_coverage_itself_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in GUARDED:
        path = tmp_path / (name.replace(".", "/") + "/room.py")
        path.parent.mkdir(parents=True)
        path.write_text("import sys\nif len(sys.argv) > 9:\n    print()\n", encoding="utf-8")
    run = [sys.executable, "-m", "coverage"]
    (tmp_path / "run.py").write_text(
        "from runpy import run_path\n"
        + "".join(f"run_path({name.replace('.', '/') + '/room.py'!r})\n" for name in GUARDED),
        encoding="utf-8",
    )
    monkeypatch.setenv("COVERAGE_FILE", str(tmp_path / ".coverage"))
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    subprocess.run([*run, "run", "--branch", "--source=fedcac", "run.py"], check=True)
    subprocess.run([*run, "json", "-q", "-o", "coverage.json"], check=True)
    assert main(["coverage.json"]) == 1
    out = capsys.readouterr().out
    for name in GUARDED:
        assert f"{name} is not run at:\n  {name.replace('.', '/')}/room.py: lines 3\n" in out


def test_the_script_runs_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps(report()), encoding="utf-8")
    script = [sys.executable, coverage_gate.__file__, str(path)]
    assert subprocess.run(script, capture_output=True, check=False).returncode == 0
