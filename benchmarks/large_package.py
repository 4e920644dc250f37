"""`python -m benchmarks large_package`: 250 MB to four sites over TLS, broken off in the middle.

Half way the coordinator's courier and one site's courier are killed and started again. Beside it,
in the same run, the same bytes are copied to four files and their SHA-256 is taken, which is the
least that any way of bringing them must do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.consortium import Consortium
from benchmarks.processes import memory_rows
from benchmarks.side_by_side import RESULTS, Spread, machine, spread_of, version_of
from fedcac.phantom import eng_tables, write_tables

__all__ = ["NAME", "recorded"]

NAME = "large_package"
_PROTOCOL = "eng2021-nongated"
_MB = 250
_PARCEL = "package.weights"
_LIMIT_S = 560.0


def recorded(n_mb: int = _MB) -> dict[str, dict[str, Spread]]:
    """Measure, write the page; return the seconds to record."""
    payload = os.urandom(n_mb * 10**6)
    digest = hashlib.sha256(payload).hexdigest()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tables = {path.stem: path for path in write_tables(eng_tables(seed=1), scratch / "eng")}
        copies = [_copied(payload, scratch, len(tables)) for _ in range(2)]
        consortium = Consortium(scratch / "deployment", {_PROTOCOL: tables})
        try:
            consortium.start_all()
            before = memory_rows(consortium)
            seconds, held = _carried(consortium, payload, digest)
            after = memory_rows(consortium)
        finally:
            consortium.stop()
        copies.append(_copied(payload, scratch, len(tables)))
    _write_page(n_mb, len(tables), seconds, held, copies, {"before": before, "after": after})
    key = f"{n_mb}_mb_to_{len(tables)}_sites"
    return {"seconds": {f"{key}_over_tls": spread_of([seconds]), f"{key}_copy": spread_of(copies)}}


def _copied(payload: bytes, scratch: Path, n_sites: int) -> float:
    source = scratch / "weights"
    source.write_bytes(payload)
    start = time.perf_counter()
    for number in range(n_sites):
        target = scratch / f"copy-{number}"
        shutil.copyfile(source, target)
        with target.open("rb") as stream:
            os.fsync(stream.fileno())
            hashlib.file_digest(stream, "sha256")
    seconds = time.perf_counter() - start
    for number in range(n_sites):
        (scratch / f"copy-{number}").unlink()
    source.unlink()
    return seconds


def _carried(consortium: Consortium, payload: bytes, digest: str) -> tuple[float, float]:
    """Carry the package; return the seconds and the share that was held when it broke off."""
    start = time.perf_counter()
    round_id = consortium.launch_round(_PROTOCOL, {"weights": payload})
    places = [site.spool / "inbox" / f"{round_id}.{_PARCEL}" for site in consortium.sites.values()]
    broken = next(iter(consortium.sites))
    chunks = consortium.sites[broken].courier / "state" / "chunks"

    def held() -> int:
        return sum(path.stat().st_size for path in chunks.glob("[0-9a-f]*"))

    consortium.wait_for(lambda: held() > len(payload) / 2, "half does not arrive", _LIMIT_S)
    for process in ("run", f"run:{broken}"):
        consortium.kill(process)
    share = held() / len(payload)
    for process in ("run", f"run:{broken}"):
        consortium.start(process)
    consortium.wait_for(
        lambda: all(place.exists() for place in places), "the package does not arrive", _LIMIT_S
    )
    seconds = time.perf_counter() - start
    for place in places:
        with place.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise RuntimeError("other bytes arrived")
    return seconds, share


def _write_page(
    n_mb: int,
    n_sites: int,
    seconds: float,
    share: float,
    copies: Sequence[float],
    memory: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> None:
    copy = spread_of(copies)
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("fedcac", "flwr"))
    total_mb = n_mb * n_sites
    lines = [
        f"# A package of {n_mb} MB to {n_sites} sites over TLS, broken off in the middle",
        "",
        f"{machine()}; {versions}. All processes on this machine, over loopback and on one disk. "
        "Random bytes, which nothing compresses.",
        "",
        "| way | seconds | MB/s, all sites together |",
        "|---|---|---|",
        f"| over TLS, broken off once | {seconds:.0f} | {total_mb / seconds:.1f} |",
        f"| {n_sites} plain copies with SHA-256, median of {len(copies)} | {copy['median']:.1f} "
        f"| {total_mb / copy['median']:.0f} |",
        "",
        f"The coordinator's courier and one site's were killed when that site held "
        f"{share:.0%} of the package, and started again at once; the seconds hold that. Every site "
        "had the bytes with their SHA-256 in the end.",
        "",
        "MiB that each process has had at most (`VmHWM`), before the package and after; of the "
        "sites' processes the largest.",
        "",
        "| process | before | after |",
        "|---|---|---|",
        *(
            f"| {name} | {memory['before'][name]['peak']:.0f} | {row['peak']:.0f} |"
            for name, row in memory["after"].items()
        ),
    ]
    (RESULTS / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
