"""The only file at a site that touches Flower: takes tasks from the SuperNode, runs no app.

Stands where Flower's own executor would. It never looks at the bundle that comes with a task; it
hands the message's bytes to the carrier and sends back what the carrier returns, or one fixed
code. `pull_task_input`, `push_message` and `push_task_output` are not Flower's public interface:
the version is pinned and tests/flower/test_contract.py holds what is used here.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from importlib.metadata import version
from types import SimpleNamespace

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedcac.errors import FedcacError, UsageError
from fedcac.exchange.couriering import Sealed
from site_agent.flower_courier.carrying import SiteCarrier
from site_agent.flower_courier.settings import CourierFolder

__all__ = [
    "MESSAGE_TYPE",
    "PINNED_VERSION",
    "REFUSED",
    "FlowerTasks",
    "check_version",
    "sign_off",
]

PINNED_VERSION = "1.41.0"
MESSAGE_TYPE = "query.courier"
REFUSED = 100
"""The code of every error reply; its reason is the word 'refused', whatever went wrong."""

_PAUSE_S = 0.25
_LOG = logging.getLogger("fedcac.courier")


def check_version() -> None:
    """Raise UsageError `flower_version` unless the pinned version of Flower is installed."""
    if version("flwr") != PINNED_VERSION:
        raise UsageError(
            f"flwr {version('flwr')} is installed; this courier is written for {PINNED_VERSION}.",
            code="flower_version",
            cure=f"pip install flwr=={PINNED_VERSION}, or adapt and re-run tests/flower.",
        )


def sign_off(folder: CourierFolder) -> None:
    """Tell the SuperLink that this site's node is gone, in case it was killed.

    Otherwise the SuperLink holds it for online for up to a minute and turns its successor away.
    Does nothing before the first task, and where the SuperLink does not answer.
    """
    try:
        node_id = int(folder.node_path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return
    settings = folder.settings()
    key = load_ssh_private_key(folder.key_path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return
    try:
        client = FleetHttpClient.from_server_address(
            settings.superlink,
            False,
            folder.trust_path().read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        )
        with client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
    except (httpx.HTTPError, OSError) as error:
        _LOG.info("the SuperLink was not told (%s)", type(error).__name__)


class FlowerTasks:
    """Takes one task after another from the SuperNode's runtime interface on loopback.

    Parameters
    ----------
    folder
        The courier's folder: the SuperNode's port and the secret that it is shown.
    carrier
        Carries out what the messages say.
    """

    def __init__(self, folder: CourierFolder, carrier: SiteCarrier) -> None:
        check_version()
        address = f"127.0.0.1:{folder.settings().port}"
        self._node_path = folder.node_path
        self._task_path = folder.task_path
        self._node_id = 0
        self._address = address
        self._carrier = carrier
        self._claims = RuntimeHttpClient.from_server_address(
            address,
            True,
            None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=folder.secret_path.read_bytes(),
                    protected_methods={"/flwr.proto.Runtime/AcquireTask"},
                ),
            ],
        )

    def run(self) -> None:
        """Take tasks for ever; a SuperNode that is down is waited for."""
        self._refuse_interrupted()
        is_told = False
        while True:
            try:
                is_busy = self.step()
                is_told = False
            except httpx.HTTPError as error:
                if not is_told:
                    _LOG.warning("the SuperNode does not answer (%s)", type(error).__name__)
                is_told, is_busy = True, False
            if not is_busy:
                time.sleep(_PAUSE_S)

    def step(self) -> bool:
        """Take and answer one task; say whether there was one."""
        claim = self._claims.AcquireTask(
            AcquireTaskRequest(supported_task_types=["flwr-clientapp"])
        )
        if not claim.token:
            return False
        client = self._client(claim.token)
        try:
            # The bundle comes with the input and is dropped unread.
            message, context, _, _ = pull_task_input(client)
            self._remember(context.node_id)
            self._begin(claim.token, message)
            push_message(client, self.answer(message), context)
            push_task_output(client, context, SubStatus.COMPLETED, "")
            self._task_path.unlink(missing_ok=True)
        finally:
            client.close()
        return True

    def _client(self, token: str) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            self._address,
            True,
            None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
        )

    def _begin(self, token: str, message: Message) -> None:
        proto = message_to_proto(remove_content_from_message(message))
        text = base64.b64encode(proto.SerializeToString()).decode("ascii")
        task = {"token": token, "task_id": TaskIdentity.task_id, "message": text}
        temporary = self._task_path.with_suffix(".part")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(task), encoding="ascii")
        os.replace(temporary, self._task_path)

    def _refuse_interrupted(self) -> None:
        """Refuse the task at which this courier was killed, if any.

        The SuperNode waits for its answer and takes nothing else for a minute. Sending the order
        again is the coordinator's part.
        """
        try:
            task = json.loads(self._task_path.read_text(encoding="ascii"))
            proto = MessageProto.FromString(base64.b64decode(task["message"]))
        except FileNotFoundError:
            return
        message = message_from_proto(proto)
        TaskIdentity.task_id = task["task_id"]
        TaskIdentity.run_id = message.metadata.run_id
        TaskIdentity.node_id = message.metadata.dst_node_id
        context = SimpleNamespace(
            run_id=message.metadata.run_id, node_id=message.metadata.dst_node_id
        )
        client = self._client(task["token"])
        try:
            push_message(client, Message(Error(REFUSED, "refused"), reply_to=message), context)
            push_task_output(client, None, SubStatus.FAILED, "restarted")
        except httpx.HTTPError as error:
            _LOG.info("an interrupted task had gone (%s)", type(error).__name__)
        finally:
            client.close()
            self._task_path.unlink(missing_ok=True)

    def _remember(self, node_id: int) -> None:
        if node_id != self._node_id:
            self._node_id = node_id
            self._node_path.parent.mkdir(parents=True, exist_ok=True)
            self._node_path.write_text(str(node_id), encoding="ascii")

    def answer(self, message: Message) -> Message:
        """Return the reply to a message: a receipt, or an error that says nothing."""
        try:
            return self._receipt(message)
        except FedcacError as error:
            _LOG.warning("an order was refused: %s", error.code)
        except Exception as error:
            # Nothing of an exception may travel: its text can hold anything.
            _LOG.warning("an order could not be carried out: %s", type(error).__name__)
        return Message(Error(REFUSED, "refused"), reply_to=message)

    def _receipt(self, message: Message) -> Message:
        if message.metadata.message_type != MESSAGE_TYPE:
            raise UsageError("Not a message of a courier.", code="wrong_message_type")
        config = message.content["order"]
        arrays = message.content["chunks"]
        sealed = Sealed(document=config["document"], signature=config["signature"])
        bodies = {digest: array.data for digest, array in arrays.items()}
        receipt, chunks = self._carrier.answer(sealed, bodies)
        content = RecordDict(
            {
                "receipt": ConfigRecord(
                    {"document": receipt.document, "signature": receipt.signature}
                ),
                "chunks": ArrayRecord(
                    {
                        digest: Array(dtype="uint8", shape=(len(chunk),), stype="raw", data=chunk)
                        for digest, chunk in chunks.items()
                    }
                ),
            }
        )
        return Message(content, reply_to=message)
