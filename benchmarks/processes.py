"""Memory of processes as Linux counts it, and what of each of a deployment it is."""

from __future__ import annotations

from pathlib import Path

from benchmarks.consortium import Deployment

__all__ = ["memory_of", "memory_rows", "peak_of"]

_WORDS = {
    "superlink": "coordinator: SuperLink",
    "front": "coordinator: front",
    "run": "coordinator: courier",
    "engine": "coordinator: engine",
    "node": "site: SuperNode",
    "run:": "site: courier",
    "agent": "site: agent",
}


def _status(pid: int, key: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(found[0]) / 1024 if found else 0.0


def _family(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    return [pid, *(one for child in text.split() for one in _family(int(child)))]


def memory_of(pid: int) -> float:
    """Return the resident MiB of a process and its children now."""
    return sum(_status(one, "VmRSS") for one in _family(pid))


def peak_of(pid: int) -> float:
    """Return the most resident MiB (`VmHWM`) of a process and its children, each at its own time.

    Pages that two processes share are counted in both.
    """
    return sum(_status(one, "VmHWM") for one in _family(pid))


def memory_rows(deployment: Deployment) -> dict[str, dict[str, float]]:
    """Return resident and peak MiB by kind of process; of the sites' processes the largest."""
    rows: dict[str, dict[str, float]] = {}
    for name, process in deployment.processes.items():
        kind, _, site = name.partition(":")
        word = _WORDS["run:" if kind == "run" and site else kind]
        now = {"now": memory_of(process.pid), "peak": peak_of(process.pid)}
        row = rows.setdefault(word, {"now": 0.0, "peak": 0.0})
        rows[word] = {key: round(max(row[key], now[key])) for key in row}
    order = list(_WORDS.values())
    return dict(sorted(rows.items(), key=lambda entry: order.index(entry[0])))
