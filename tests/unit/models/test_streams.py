"""Reading ahead: bounded, and one exam's crash, hang or error is that exam's alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from unit.models.reading import read

from fedcac.models.streams import Arrival, Failure, ReadAhead, StreamLimits


def taking(names: list[str]) -> Callable[[], Path | None]:
    items = iter([Path(name) for name in names])
    return lambda: next(items, None)


def collect(names: list[str], limits: StreamLimits) -> dict[str, Arrival[Path]]:
    found = {}
    with ReadAhead(read, limits) as ahead:
        for arrival in ahead.arrivals(taking(names)):
            found[arrival.item.name] = arrival
            ahead.release()
    return found


def test_every_item_arrives_once_as_it_was_read_or_with_its_own_failure() -> None:
    names = ["exam-1", "crash-2", "corrupt-3", "exam-4", "bug-5", "exam-6"]
    found = collect(names, StreamLimits(n_in_flight=3, n_workers=2))
    assert set(found) == set(names)
    for name in ("exam-1", "exam-4", "exam-6"):
        reading = found[name].value
        assert reading is not None
        assert reading.facts == {"name": name}
        value = reading.arrays["hu"]
        assert found[name].failure is None
        assert np.array_equal(value, np.full((3, 64, 64), float(name[-1]), np.float32))
        value += 1  # what arrives belongs to the receiver
    assert found["crash-2"].failure == Failure("died")
    assert found["corrupt-3"].failure == Failure("raised", "DicomError", "dicom.corrupt_pixels")
    assert found["bug-5"].failure == Failure("raised", "KeyError", None)
    assert "patient" not in repr([arrival.failure for arrival in found.values()])


def test_a_hanging_item_is_given_up_and_the_others_go_on() -> None:
    limits = StreamLimits(n_in_flight=2, n_workers=2, time_limit_s=6.0)
    found = collect(["hang-1", "exam-2", "exam-3"], limits)
    assert found["hang-1"].failure == Failure("timed_out")
    assert found["exam-2"].failure is None
    assert found["exam-3"].failure is None


@pytest.mark.parametrize(("n_in_flight", "n_workers"), [(1, 2), (2, 1), (3, 2)])
def test_never_more_in_flight_than_allowed(n_in_flight: int, n_workers: int) -> None:
    names = [f"exam-{number}" for number in range(8)]
    items, alive, most = taking(names), 0, 0

    def next_item() -> Path | None:
        nonlocal alive, most
        item = items()
        if item is not None:
            alive += 1
            most = max(most, alive)
        return item

    held = 0
    with ReadAhead(read, StreamLimits(n_in_flight, n_workers)) as ahead:
        for _ in ahead.arrivals(next_item):
            held += 1
            while held == n_in_flight or (held and not ahead.is_reading):
                held, alive = held - 1, alive - 1
                ahead.release()
    assert most == n_in_flight
    assert alive == 0


def test_holding_every_place_is_an_error_and_not_a_wait_for_ever() -> None:
    with ReadAhead(read, StreamLimits(1, 1)) as ahead:
        arrivals = ahead.arrivals(taking(["exam-1", "exam-2"]))
        next(arrivals)
        with pytest.raises(RuntimeError, match="release"):
            next(arrivals)


def test_no_process_is_left_behind() -> None:
    with ReadAhead(read, StreamLimits(2, 2, 60.0)) as ahead:
        arrivals = ahead.arrivals(taking(["exam-1", "hang-2"]))
        assert next(arrivals).item.name == "exam-1"
        processes = [worker._process.pid for worker in ahead._workers]
        assert len(processes) == 2
    for pid in processes:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


_PARENT = """
from pathlib import Path
from unit.models.reading import read
from fedcac.models.streams import ReadAhead, StreamLimits
names = iter([Path("exam-1"), Path("hang-2")])
with ReadAhead(read, StreamLimits(2, 2)) as ahead:
    for _ in ahead.arrivals(lambda: next(names, None)):
        print(*[worker._process.pid for worker in ahead._workers], flush=True)
"""


def test_a_reader_that_hangs_ends_with_its_killed_parent() -> None:
    folder = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
    ) as parent:
        assert parent.stdout is not None
        readers = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(readers) == 2
    deadline = time.monotonic() + 240
    while any(_is_alive(pid) for pid in readers):
        assert time.monotonic() < deadline, "a reader outlives its parent"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("limits", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)])
def test_limits_that_would_stop_everything(limits: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        StreamLimits(*limits)
