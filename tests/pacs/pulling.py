"""What the tests of both protocols share: three exams, a client, and what went wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from orthanc_server import write_exam
from pydicom.dataset import Dataset

from site_agent.pacs.clients import open_client
from site_agent.pacs.faults import PacsError
from site_agent.pacs.query import PacsClient, SeriesRecord
from site_agent.pacs.settings import PacsSettings

__all__ = [
    "CANARY",
    "DAY",
    "N_SLICES",
    "fault_of",
    "opened_over",
    "series_of",
    "write_three_exams",
]

DAY, OTHER_DAY = date(2020, 3, 1), date(2020, 5, 1)
CANARY = "ZZCANARY4711"
N_SLICES = 8


@contextmanager
def opened_over(protocol: str, connection: dict[str, Any], **changes: Any) -> Iterator[PacsClient]:
    document = {
        "connection": {"protocol": protocol, **connection},
        "rules": {"index": {}},
        "pause_s": 0.0,
        "timeout_s": 10.0,
        **changes,
    }
    with open_client(PacsSettings.model_validate(document), Path) as client:
        yield client


def write_three_exams(root: Path) -> dict[str, list[Dataset]]:
    """Write two series of one study, and another patient's, weeks later."""
    chest = write_exam(
        root / "a", CANARY, DAY, is_gated=False, seed=1, n_slices=N_SLICES, AccessionNumber="A1"
    )
    gated = write_exam(
        root / "b",
        CANARY,
        DAY,
        is_gated=True,
        seed=2,
        n_slices=N_SLICES,
        AccessionNumber="A1",
        StudyInstanceUID=chest[0].StudyInstanceUID,
    )
    other = write_exam(
        root / "c",
        "P2",
        OTHER_DAY,
        is_gated=True,
        seed=3,
        n_slices=N_SLICES,
        AccessionNumber="A2",
        StudyDescription="Cardiac CT",
    )
    return {"chest": chest, "gated": gated, "other": other}


def series_of(datasets: list[Dataset], n_instances: int | None = None) -> SeriesRecord:
    first = datasets[0]
    return SeriesRecord(
        first.StudyInstanceUID, first.SeriesInstanceUID, "CT", "", n_instances or len(datasets)
    )


def fault_of(action: Callable[[], object]) -> str:
    """Return the code of what an action must raise, without its family."""
    with pytest.raises(PacsError) as caught:
        action()
    assert caught.value.exit_code == 6
    assert caught.value.cure
    assert CANARY not in str(caught.value)
    return caught.value.code.removeprefix("cohort.pacs_")
