"""The only file of the coordinator that touches Flower: orders out, receipts in.

Starts a run without any code in it, takes over that run's task and pushes and pulls messages
itself, so that no app of anyone runs at the coordinator. `Message` and `RecordDict` are public
(`flwr.app`); the clients of the Control and Runtime interfaces and `HttpGrid` are not: the
version is pinned and tests/flower/test_contract.py holds what is used here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from coordinator.flower_courier.dispatch import Answered
from fedcac.errors import RoundError, UsageError
from fedcac.exchange.couriering import CourierPublicKey, Sealed

if TYPE_CHECKING:
    from coordinator.flower_courier.folder import CourierFolder

__all__ = ["MESSAGE_TYPE", "PINNED_VERSION", "FlowerLink", "check_version", "empty_bundle"]

PINNED_VERSION = "1.41.0"
MESSAGE_TYPE = "query.courier"
_MESSAGE_LIFE_S = 240.0
_HEARTBEAT_S = 10.0
_NODES_S = 2.0
_CLAIM_TRIES = 200
_CLAIM_PAUSE_S = 0.05

_BUNDLE = f"""[project]
name = "fedcac-courier"
version = "1.0.0"
description = "No code: names what is installed at a site."
license = {{ file = "LICENSE" }}
dependencies = ["flwr>={PINNED_VERSION}"]

[tool.flwr.app]
publisher = "fedcac"
flwr-version-target = "{PINNED_VERSION}"
fab-format-version = 1

[tool.flwr.app.components]
serverapp = "coordinator.none:app"
clientapp = "site_agent.none:app"
"""


def check_version() -> None:
    """Raise UsageError `flower_version` unless the pinned version of Flower is installed."""
    if version("flwr") != PINNED_VERSION:
        raise UsageError(
            f"flwr {version('flwr')} is installed; this courier is written for {PINNED_VERSION}.",
            code="flower_version",
            cure=f"pip install flwr=={PINNED_VERSION}, or adapt and re-run tests/flower.",
        )


def empty_bundle() -> bytes:
    """Return the bundle of every run: a manifest that names modules which do not exist."""
    files = {"pyproject.toml": _BUNDLE.encode("utf-8"), "LICENSE": b"Apache-2.0\n"}
    bundle: bytes = build_fab_from_files(files)[0]
    return bundle


class FlowerLink:
    """A run on the SuperLink over which orders travel. Any trouble: make a new one.

    Parameters
    ----------
    folder
        The courier's folder, for the port, the authority and the executor's secret.
    roster
        The sites' node keys. Afterwards the SuperLink's registry holds these and no others.

    Raises
    ------
    RoundError
        From every method, `flower_link` if the SuperLink does not answer or ended the run.
    """

    def __init__(self, folder: CourierFolder, roster: Mapping[str, CourierPublicKey]) -> None:
        check_version()
        self._address = f"127.0.0.1:{folder.ports().superlink_port}"
        self._authority = (folder.root / "ca.crt").read_bytes()
        self._roster = {key.to_text(): name for name, key in roster.items()}
        self._control = ControlHttpClient.from_server_address(
            self._address, False, self._authority, interceptors=[]
        )
        self._clients = ExitStack()
        self._clients.callback(self._control.close)
        self._nodes: dict[str, int] = {}
        self._nodes_at = self._beat_at = float("-inf")
        try:
            self._register()
            self._token = self._claim(folder.secret_path.read_bytes())
            self._client = RuntimeHttpClient.from_server_address(
                self._address,
                False,
                self._authority,
                interceptors=[
                    RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                    RuntimeTokenHttpInterceptor(self._token),
                ],
            )
            self._clients.callback(self._client.close)
            given = self._client.PullTaskInput(PullTaskInputRequest())
        except (httpx.HTTPError, RunNotRunningException) as error:
            # Whoever makes a new one every few seconds would run out of sockets.
            self._clients.close()
            raise _broken(error) from error
        self._run_id = given.run.run_id
        # Message() reads who it is from these process-wide fields.
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = self._run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._grid = HttpGrid(self._address, False, self._authority, token=self._token)
        # The stock grid retries a dead SuperLink for ever; here that is the caller's decision.
        self._grid._retry_invoker = None
        self._grid.set_run(Run.create_empty(self._run_id))

    def _register(self) -> None:
        known = {
            _line(node.public_key): node
            for node in self._control.ListNodes(ListNodesRequest()).nodes_info
        }
        for text, node in known.items():
            # A site that was revoked, or has another key: its SuperNode is turned away from now on.
            if text not in self._roster and node.status != "unregistered":
                self._control.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
        for text, name in self._roster.items():
            if text not in known:
                self._control.RegisterNode(RegisterNodeRequest(public_key=_raw(text), name=name))

    def _claim(self, secret: bytes) -> str:
        bundle = empty_bundle()
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        run_id = self._control.StartRun(StartRunRequest(fab=fab)).run_id
        executor = RuntimeHttpClient.from_server_address(
            self._address,
            False,
            self._authority,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=secret,
                    protected_methods={"/flwr.proto.Runtime/AcquireTask"},
                ),
            ],
        )
        try:
            for _ in range(_CLAIM_TRIES):
                claim = executor.AcquireTask(
                    AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
                )
                # Someone else's run may have been pending; it is left to time out.
                if claim.token and claim.task.run_id == run_id:
                    return str(claim.token)
                time.sleep(_CLAIM_PAUSE_S)
        finally:
            executor.close()
        raise RoundError("The SuperLink gives out no task.", code="flower_link")

    def online(self) -> Mapping[str, int]:
        """Return the node of each site of the roster that is online."""
        if time.monotonic() - self._nodes_at > _NODES_S:
            try:
                nodes = self._control.ListNodes(ListNodesRequest()).nodes_info
            except httpx.HTTPError as error:
                raise _broken(error) from error
            self._nodes = {
                self._roster[_line(node.public_key)]: node.node_id
                for node in nodes
                if node.status == "online" and _line(node.public_key) in self._roster
            }
            self._nodes_at = time.monotonic()
        return self._nodes

    def send(self, node: int, sealed: Sealed, bodies: Mapping[str, bytes]) -> str:
        """Push an order to a node and return the message's id."""
        content = RecordDict(
            {
                "order": ConfigRecord({"document": sealed.document, "signature": sealed.signature}),
                "chunks": ArrayRecord(
                    {
                        digest: Array(dtype="uint8", shape=(len(chunk),), stype="raw", data=chunk)
                        for digest, chunk in bodies.items()
                    }
                ),
            }
        )
        message = Message(content, node, MESSAGE_TYPE, ttl=_MESSAGE_LIFE_S)
        try:
            (ticket,) = self._grid.push_messages([message])
        except (httpx.HTTPError, RunNotRunningException, ValueError) as error:
            raise _broken(error) from error
        if not ticket:
            raise RoundError("The SuperLink took no message.", code="flower_link")
        return str(ticket)

    def poll(self, tickets: Sequence[str]) -> Mapping[str, Answered]:
        """Pull the answers that have come, by the id of the message they answer."""
        try:
            replies = list(self._grid.pull_messages(tickets))
        except (httpx.HTTPError, RunNotRunningException) as error:
            raise _broken(error) from error
        # Not by source: an error that the SuperLink made up itself has its own node as source.
        return {reply.metadata.reply_to_message_id: _answered(reply) for reply in replies}

    def beat(self) -> None:
        """Tell the SuperLink that the run's task is alive; call it at least every 20 seconds."""
        if time.monotonic() - self._beat_at < _HEARTBEAT_S:
            return
        try:
            is_alive = self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
        except (httpx.HTTPError, RunNotRunningException) as error:
            raise _broken(error) from error
        if not is_alive:
            raise RoundError("The SuperLink ended the run.", code="flower_link")
        self._beat_at = time.monotonic()

    def close(self) -> None:
        """Close the connections; the run is left to time out."""
        self._grid.close()
        self._clients.close()


def _answered(reply: Message) -> Answered:
    try:
        config, arrays = reply.content["receipt"], reply.content["chunks"]
        sealed = Sealed(document=config["document"], signature=config["signature"])
        return Answered(sealed, {digest: array.data for digest, array in arrays.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answered(None, {})


def _line(raw: bytes) -> str:
    return CourierPublicKey(bytes_to_public_key(raw)).to_text()


def _raw(text: str) -> bytes:
    key = CourierPublicKey.from_text(text)
    raw: bytes = public_key_to_bytes(key.as_key())
    return raw


def _broken(error: Exception) -> RoundError:
    return RoundError(
        f"The SuperLink does not answer as it should ({type(error).__name__}).",
        code="flower_link",
        cure="Look whether `fedcac-coordinator courier superlink` runs; it is tried again.",
    )
