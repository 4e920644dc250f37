"""How contenders take turns, what is kept of a run, and what the command refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import __main__ as command
from benchmarks import page, side_by_side
from benchmarks.side_by_side import OURS, Case, only, record, spread_of, time_in_turn


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path)
    return tmp_path / "results.json"


def test_contenders_take_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []

    def contender(name: str) -> object:
        return lambda: lambda: calls.append(name)

    case = time_in_turn("x", {OURS: contender("a"), "other": contender("b")}, n_rounds=3)  # type: ignore[dict-item]
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {len(seconds) for seconds in case.seconds.values()} == {3}


def test_a_ratio_is_that_of_one_round_and_above_one_where_ours_is_faster() -> None:
    case = Case("x", {OURS: (1.0, 2.0, 4.0), "other": (3.0, 4.0, 2.0)})
    assert case.ratios_to("other") == {"median": 2.0, "least": 0.5, "greatest": 3.0}
    assert spread_of([0.126, 0.1]) == {"median": 0.11, "least": 0.1, "greatest": 0.13}


@pytest.mark.parametrize(
    ("value", "kept"),
    [(0.0, 0.0), (2.7756e-15, 2.78e-15), (391.25, 391.25), (1348771.5, 1348771.5)],
)
def test_a_number_without_spread_keeps_what_counts(value: float, kept: float) -> None:
    assert only(value) == {"median": kept, "least": kept, "greatest": kept}


def test_what_others_recorded_stays(results: Path) -> None:
    results.write_text(json.dumps({"ratios": {"old": only(3)}, "seconds": {"old": only(1)}}))
    record("ratios", {"new": only(2)})
    found = json.loads(results.read_text())
    assert found == {"ratios": {"old": only(3), "new": only(2)}, "seconds": {"old": only(1)}}


def test_a_run_records_its_figures_its_machine_and_ends_with_the_table(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = ModuleType("benchmarks.joining")
    seconds = {"from_a_kit_to_a_passed_dry_run": only(12.5)}
    module.recorded = lambda: {"seconds": seconds}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.joining", module)
    written: list[str] = []
    monkeypatch.setattr(command, "write_page", lambda: written.append("page"))
    command.main(["joining"])
    found = json.loads(results.read_text())
    assert found["seconds"] == seconds
    assert list(found["measured"]) == ["joining"]
    assert "cores" in found["measured"]["joining"]
    assert written == ["page"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 1: ")
    assert "| `joining` | five commands | 12.5 s | " in "\n".join(lines)
    assert lines[-1] == page.table_of_figures(found)[-1]


def test_an_unknown_name_is_refused_before_anything_runs(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["joining", "nonsense"])
    assert "there is no benchmark nonsense" in capsys.readouterr().err
    assert not results.exists()
