"""Attackers' programs, run in processes of their own: `thief.py VERB ARGUMENTS.json`.

`bundle` holds everything of the coordinator's host but the courier's key: it reaches the loopback
port and knows the executor's secret. `impostor` is a registered site that answers for another.
Each prints one JSON document with what it got.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.cli.build import build_fab_from_files

from coordinator.flower_courier import adapter
from coordinator.flower_courier.adapter import FlowerLink
from fedcac.exchange.couriering import CourierKey, Order, Sealed

HOSTILE = """
from pathlib import Path
from flwr.clientapp import ClientApp
Path({marker!r}).write_text("imported")
app = ClientApp()
@app.query("courier")
@app.train()
def steal(message, context):
    Path({marker!r}).write_text("called")
"""


def hostile_bundle(marker: str) -> bytes:
    manifest = adapter._BUNDLE.replace("site_agent.none:app", "hostile.client_app:app")
    return bytes(
        build_fab_from_files(
            {
                "pyproject.toml": manifest.encode(),
                "LICENSE": b"Apache-2.0\n",
                "hostile/__init__.py": b"",
                "hostile/client_app.py": HOSTILE.format(marker=marker).encode(),
                # What an unpacked bundle would put before the installed package on sys.path.
                "site_agent/__init__.py": HOSTILE.format(marker=marker).encode(),
            }
        )[0]
    )


def content(sealed: Sealed) -> RecordDict:
    config = ConfigRecord({"document": sealed.document, "signature": sealed.signature})
    return RecordDict({"order": config, "chunks": ArrayRecord({})})


def bundle(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Start a run with a hostile bundle and ask a site for what is in its outbox."""
    from coordinator.flower_courier.folder import CourierFolder

    adapter.empty_bundle = lambda: hostile_bundle(arguments["marker"])
    folder = CourierFolder(Path(arguments["folder"]))
    link = FlowerLink(folder, folder.roster())
    while arguments["site"] not in link.online():
        link.beat()
        time.sleep(0.5)
    node = link.online()[arguments["site"]]
    serial = time.time_ns()
    wanted: dict[str, Any] = {name: {} for name in arguments["outbox"]}
    order = Order.model_validate({"site": arguments["site"], "serial": serial, "collect": wanted})
    replayed = Sealed(
        document=arguments["replayed"]["document"].encode(),
        signature=bytes.fromhex(arguments["replayed"]["signature"]),
    )
    messages = [
        Message(content(order.seal(CourierKey.generate())), node, "query.courier", ttl=120),
        Message(content(replayed), node, "query.courier", ttl=120),
        Message(content(replayed), node, "train", ttl=120),
        Message(RecordDict({"x": ConfigRecord({"y": 1})}), node, "query.courier", ttl=120),
    ]
    # One at a time, as the SuperLink hands them out.
    got = []
    tickets = list(link._grid.push_messages(messages))
    end = time.monotonic() + 80
    while len(got) < len(tickets) and time.monotonic() < end:
        link.beat()
        answered = {reply.metadata.reply_to_message_id for reply in got}
        got += link._grid.pull_messages([ticket for ticket in tickets if ticket not in answered])
        time.sleep(0.3)
    return [
        {
            "is_error": reply.has_error(),
            "code": reply.error.code if reply.has_error() else None,
            "reason": reply.error.reason if reply.has_error() else None,
        }
        for reply in got
    ]


def pending_message(database: str, node_id: int, end: float) -> dict[str, Any]:
    """Read a message that waits for a node out of the SuperLink's database."""
    while time.monotonic() < end:
        with sqlite3.connect(database, timeout=10) as connection:
            connection.row_factory = sqlite3.Row
            signed = node_id - 2**64 if node_id >= 2**63 else node_id
            row = connection.execute(
                "SELECT * FROM message_ins WHERE dst_node_id = ?", (signed,)
            ).fetchone()
        if row is not None:
            return dict(row)
        time.sleep(0.2)
    raise TimeoutError("no order waits")


def last_serial(journal: str) -> int:
    with sqlite3.connect(journal, timeout=10) as connection:
        (serial,) = connection.execute("SELECT last FROM serial").fetchone()
    return int(serial)


def impostor(arguments: dict[str, Any]) -> dict[str, Any]:
    """As one registered site, push a reply to the order that waits for another site."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.app import Metadata
    from flwr.app.message import make_message, remove_content_from_message
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import push_objects
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    from fedcac.exchange.chunks import Manifest
    from fedcac.exchange.couriering import Receipt

    own, victim = arguments["own_node"], arguments["victim_node"]
    row = pending_message(arguments["database"], victim, time.monotonic() + 60)
    key_path = Path(arguments["own_key"])
    key = load_ssh_private_key(key_path.read_bytes(), None)
    client = FleetHttpClient.from_server_address(
        arguments["superlink"],
        False,
        Path(arguments["ca"]).read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )
    run_id = row["run_id"] + (2**64 if row["run_id"] < 0 else 0)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, own
    forged = b"forged reply"
    receipt = Receipt(
        site=arguments["victim"],
        serial=last_serial(arguments["journal"]),
        collected={arguments["parcel"]: Manifest.of(forged)},
    ).seal(CourierKey.load(key_path))
    reply = make_message(
        metadata=Metadata(
            run_id=run_id,
            message_id="",
            src_node_id=victim,
            dst_node_id=1,
            reply_to_message_id=row["message_id"],
            group_id="",
            created_at=time.time(),
            ttl=100.0,
            message_type="query.courier",
        ),
        content=RecordDict(
            {
                "receipt": ConfigRecord(
                    {"document": receipt.document, "signature": receipt.signature}
                ),
                "chunks": ArrayRecord({}),
            }
        ),
    )
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        answer = client.PushMessages(
            PushMessagesRequest(
                node=Node(node_id=own),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.1],
            )
        )
        push_objects(
            get_all_nested_objects(reply),
            make_push_object_fn_protobuf(
                client.PushObject, Node(node_id=own), run_id, answer.session_id
            ),
            object_ids_to_push=set(answer.objects_to_push),
        )
    return {"answered": row["message_id"], "results": dict(answer.results)}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps({"bundle": bundle, "impostor": impostor}[sys.argv[1]](given)))
