"""`python -m benchmarks kaplan_meier`: a survival curve against sending every patient's time.

The other side is what Flower's example `federated-kaplan-meier-fitter` does: every client answers
with its patients' times and events, and the server fits lifelines to all of them. It is written
here with Flower's own objects: a ClientApp, messages, their serialisation in both directions. No
SuperLink runs on either side: both are in one process, and the network is left out of both.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.task_identity import TaskIdentity
from lifelines import KaplanMeierFitter
from numpy.typing import NDArray

from benchmarks.one_analysis import (
    answer_bytes,
    paths_by_site,
    pooled_rows,
    protocol_with,
    round_of,
)
from benchmarks.side_by_side import (
    OURS,
    RESULTS,
    Case,
    Spread,
    only,
    time_in_turn,
    write_tables,
)
from coordinator.rounds.views import RoundView
from fedcac.phantom import miller_tables
from fedcac.phantom import write_tables as write_site_tables
from fedcac.protocol import KaplanMeierSpec

__all__ = ["RATIO_NAME", "recorded"]

RATIO_NAME = "kaplan_meier_round_speed_relative_to_sending_rows_over_flower"
_DIFFERENCE_NAME = "kaplan_meier_survival_from_lifelines_on_pooled_rows"
_BYTES_NAME = "kaplan_meier_daily"
_MERGED_BYTES_NAME = "kaplan_meier_under_the_policy_research"
_FLOWER_BYTES_NAME = "kaplan_meier_rows_over_flower"
_ROWS_NAME = "kaplan_meier_patients_whose_own_day_left_over_flower"

_FLOWER = "rows over Flower"
_ROUNDS = 9
_HORIZON_DAYS = 1820
_PROTOCOL = protocol_with(
    "miller2023-ctac",
    [
        KaplanMeierSpec(
            id="curve",
            kind="kaplan_meier",
            endpoint="mace",
            by="all",
            bin_days=1,
            horizon_days=_HORIZON_DAYS,
        )
    ],
)

Vector = NDArray[np.float64]


def _patients(path: Path) -> tuple[Vector, Vector]:
    """Return days of follow-up and events of a site's patients."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [(row["follow_up_days"], row["event"]) for row in csv.DictReader(stream)]
    times, events = np.array(rows, dtype=np.float64).T
    return times, events


def _client_app() -> ClientApp:
    app = ClientApp()

    @app.query()  # type: ignore[untyped-decorator]
    def rows(message: Message, context: Context) -> Message:
        times, events = _patients(Path(str(context.node_config["table"])))
        content = RecordDict({"patients": ArrayRecord([times, events])})
        return Message(content, reply_to=message)

    return app


def _carried(message: Message) -> tuple[Message, int]:
    """Return a message as it arrives, and the bytes of it on the way."""
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(MessageProto.FromString(data)), len(data)


@dataclass(frozen=True)
class _Fitted:
    """What the server ends with: the curve, and per site the bytes and patients that left it."""

    curve: KaplanMeierFitter
    n_bytes: tuple[int, ...]
    n_patients: tuple[int, ...]

    def survival(self, days: list[int]) -> Vector:
        found: Vector = self.curve.survival_function_at_times(days).to_numpy()
        return found


def _over_flower(tables: Mapping[str, Path]) -> _Fitted:
    app = _client_app()
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    times: list[Vector] = []
    events: list[Vector] = []
    sizes = []
    for number, table in enumerate(tables.values(), start=1):
        asked = Message(RecordDict(), dst_node_id=number, message_type=MessageType.QUERY)
        context = Context(
            run_id=1,
            node_id=number,
            node_config={"table": str(table)},
            state=RecordDict(),
            run_config={},
        )
        reply, n_bytes = _carried(app(_carried(asked)[0], context))
        record: Any = reply.content["patients"]
        own_times, own_events = record.to_numpy_ndarrays()
        times.append(own_times)
        events.append(own_events)
        sizes.append(n_bytes)
    curve = KaplanMeierFitter().fit(np.concatenate(times), np.concatenate(events))
    return _Fitted(curve, tuple(sizes), tuple(len(own) for own in times))


def _differences(view: RoundView, fitted: _Fitted) -> tuple[int, float]:
    """Return how many days of the curve both have, and the largest difference on them."""
    shown = {
        int(term): row.estimate
        for (measure, _, term), row in pooled_rows(view, "curve").items()
        if measure == "survival" and row.estimate is not None
    }
    days = sorted(shown)
    ours = np.array([shown[day] for day in days], dtype=np.float64)
    return len(days), float(np.max(np.abs(ours - fitted.survival(days))))


def _write_page(case: Case, lines: list[str]) -> None:
    write_tables(
        "kaplan_meier",
        "One survival curve over four sites, Miller's 2,271 generated patients",
        [case],
        ("fedcac", "flwr", "lifelines", "numpy"),
        f"{_ROUNDS} rounds, contenders in turn within each; tables are read from disk. `fedcac` "
        "is a signed round in memory with daily bins: gate, ledger on disk, log-rank test, two "
        "exchanges. The other sends each patient's time and event as an ArrayRecord, as Flower's "
        "example `federated-kaplan-meier-fitter` does, and fits lifelines; it signs nothing and "
        "checks nothing. Its messages are Flower's, serialised and read again; ray is not "
        "installed, so its simulation engine is not in the seconds, and no SuperLink is in either.",
    )
    path = RESULTS / "kaplan_meier.md"
    path.write_text(
        path.read_text(encoding="utf-8") + "\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark, write its tables and return what `benchmarks` records.

    Raises
    ------
    RuntimeError
        If the two curves differ by more than rounding.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_site_tables(miller_tables(seed=1), Path(scratch) / "tables")
        tables = paths_by_site(paths)
        fitted = _over_flower(tables)
        views = {policy: round_of(_PROTOCOL, tables, policy) for policy in ("open", "research")}
        found = {policy: _differences(view, fitted) for policy, view in views.items()}
        if found["open"][1] > 1e-9:
            raise RuntimeError(f"the curves differ by {found['open'][1]}")
        case = time_in_turn(
            f"{len(tables)} sites, {sum(fitted.n_patients)} patients",
            {
                OURS: lambda: lambda: round_of(_PROTOCOL, tables),
                _FLOWER: lambda: lambda: _over_flower(tables),
            },
            n_rounds=_ROUNDS,
        )
    n_bytes = {policy: answer_bytes(view) for policy, view in views.items()}
    flower_bytes = sum(fitted.n_bytes) / len(fitted.n_bytes)
    n_patients = sum(fitted.n_patients)
    left = {"open": f"{n_patients}, as counts by day", "research": "0"}
    rows = [
        (f"`fedcac`, policy {name}", *found[name], n_bytes[name], view.n_exchanges, left[name])
        for name, view in views.items()
    ]
    rows.append((_FLOWER, _HORIZON_DAYS, 0.0, flower_bytes, 1, f"{n_patients}, as rows"))
    _write_page(
        case,
        [
            "| way | days of the curve | largest difference from lifelines on pooled rows | bytes "
            "out per site | exchanges | patients whose own day left |",
            "|---|---|---|---|---|---|",
            *(
                f"| {way} | {days} | {apart:.1e} | {size:.0f} | {n} | {whose} |"
                for way, days, apart, size, n, whose in rows
            ),
            "",
            "Daily bins under the policy `open` tell as much as the rows do: they are for this "
            "comparison and for public data. Under `research` a site merges days until every bin "
            "has at least five events, and the pooled curve has the days that all sites show.",
        ],
    )
    return {
        "ratios": {RATIO_NAME: case.ratios_to(_FLOWER)},
        "differences": {
            _DIFFERENCE_NAME: only(found["open"][1]),
            f"{_DIFFERENCE_NAME}_research": only(found["research"][1]),
        },
        "bytes_out_per_site": {
            _BYTES_NAME: only(n_bytes["open"]),
            _MERGED_BYTES_NAME: only(n_bytes["research"]),
            _FLOWER_BYTES_NAME: only(flower_bytes),
        },
        "counts": {_ROWS_NAME: only(n_patients)},
    }
