"""What stands for other software in the benchmarks computes what it says."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from benchmarks.cox_pooled_rows import VANTAGE6, _design, _skipped
from benchmarks.estimator_parity import _apart
from benchmarks.pooled_survival import _efron_hazard, _ordered
from fedcac.phantom import miller_tables, write_tables
from fedcac.protocol.catalogue import load_shipped
from fedcac.statistics.estimator import Estimate
from fedcac.statistics.risk_sets import baseline_hazard
from fedcac.vocabulary import Measure, TieMethod

with warnings.catch_warnings():
    # Flower's command line uses what click will drop.
    warnings.simplefilter("ignore", DeprecationWarning)
    from benchmarks.kaplan_meier import _carried, _over_flower, _patients

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = write_tables(miller_tables(seed=3), tmp_path_factory.mktemp("tables"))
    return {path.stem: path for path in paths}


def test_rows_over_flower_give_the_curve_of_all_patients(tables: dict[str, Path]) -> None:
    fitted = _over_flower(tables)
    rows = pd.concat([pd.read_csv(path) for path in tables.values()])
    direct = KaplanMeierFitter().fit(rows["follow_up_days"], rows["event"])
    days = [1, 91, 500, 1820]
    assert np.allclose(fitted.survival(days), direct.survival_function_at_times(days), atol=1e-14)
    assert fitted.n_patients == tuple(len(_patients(path)[0]) for path in tables.values())
    # A time and an event of eight bytes each, for every patient, and little beside.
    for n_bytes, n_patients in zip(fitted.n_bytes, fitted.n_patients, strict=True):
        assert 16 * n_patients < n_bytes < 16 * n_patients + 1000


def test_a_carried_message_arrives_as_it_was_sent(tables: dict[str, Path]) -> None:
    from flwr.app import ArrayRecord, Message, RecordDict

    _over_flower(dict(list(tables.items())[:1]))
    sent = RecordDict({"x": ArrayRecord([np.array([1.5, 2.0])])})
    arrived, n_bytes = _carried(Message(sent, dst_node_id=7, message_type="query"))
    assert arrived.content["x"].to_numpy_ndarrays()[0].tolist() == [1.5, 2.0]
    assert arrived.metadata.dst_node_id == 7
    assert n_bytes > 16


def test_the_design_of_pooled_rows_is_the_protocols(tables: dict[str, Path]) -> None:
    design = _design(tables)
    rows = pd.concat([pd.read_csv(path) for path in tables.values()], ignore_index=True)
    categories = load_shipped("miller2023-ctac").categories.categorise(
        rows["index_score"].to_numpy()
    )
    assert (design[["low", "middle", "high"]].to_numpy() @ [1, 2, 3] == categories).all()
    assert np.allclose(design["age"] * 10, rows["age"])


def test_the_written_out_baseline_hazard_is_the_one_that_r_confirms() -> None:
    rng = np.random.default_rng(5)
    x, beta = rng.normal(size=(120, 2)), np.array([0.4, -0.2])
    # Whole months: many ties.
    days = 90.0 * rng.integers(1, 20, 120)
    event = rng.random(120) < 0.5
    expected = baseline_hazard(x, days, event, beta, 1096, TieMethod.EFRON)
    assert _efron_hazard(x, days, event, beta) == pytest.approx(expected, rel=1e-12)


def test_pairs_are_ordered_by_who_has_the_event_first() -> None:
    days = np.array([1.0, 2.0, 3.0, 3.0])
    event = np.array([True, False, True, False])
    # Comparable: the first with all three, the third with the fourth, who is still followed then.
    assert _ordered(np.array([4.0, 3.0, 2.0, 1.0]), days, event) == (4.0, 4.0)
    assert _ordered(np.zeros(4), days, event) == (2.0, 4.0)
    assert _ordered(np.array([1.0, 2.0, 3.0, 3.0]), days, event) == (0.5, 4.0)


def test_a_missing_number_is_an_error_and_no_agreement() -> None:
    key = ("bias", "", "")
    row = Estimate("x", "pooled", Measure.BIAS, estimate=1.0, se=0.5)
    assert _apart({key: row}, {key: (1.25, 0.5)}) == (0.25, 0.0)
    with pytest.raises(RuntimeError, match="no number"):
        _apart({}, {key: (1.0, None)})
    empty = Estimate("x", "pooled", Measure.BIAS)
    with pytest.raises(RuntimeError, match="no number"):
        _apart({key: empty}, {key: (1.0, None)})


def test_without_its_environment_vantage6_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VANTAGE6, raising=False)
    assert VANTAGE6 in _skipped()
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'coxph'\" >&2\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setenv(VANTAGE6, str(python))
    assert _skipped() == "ModuleNotFoundError: No module named 'coxph'"
