"""The site's adapter against a stand-in SuperNode: Flower's own messages over loopback HTTP.

What a task's message says comes back as a receipt or as one fixed error; what a killed courier left
is refused; the SuperLink is told of a node that is gone.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
import stat
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedcac.exchange.chunks import Manifest, chunks_of
from fedcac.exchange.couriering import Asked, CourierKey, Delivery, Order, Receipt, Sealed
from fedcac.exchange.mailbox import DirectoryMailbox
from site_agent.__main__ import main as site_main
from site_agent.flower_courier import __main__ as packed
from site_agent.flower_courier import line
from site_agent.flower_courier.line import Finding
from site_agent.flower_courier.settings import CourierFolder, create_courier_folder, settings_of

with warnings.catch_warnings():
    # Flower's own imports warn; they are not ours to mend.
    warnings.simplefilter("ignore")
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.proto import fleet_pb2, message_pb2, runtime_pb2
    from flwr.supercore.auth import superexec
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supercore.task_identity import TaskIdentity

    from site_agent.flower_courier import adapter
    from site_agent.flower_courier.adapter import FlowerTasks, sign_off

LEAD = CourierKey.generate()
NODE, RUN = 77, 5


class SuperNode:
    """What a SuperNode's runtime interface answers, and what it was sent."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, Message]] = []
        self.at_work: Message | None = None
        self.sent: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                what = self.path.rpartition("/")[2]
                headers = {name.lower(): value for name, value in self.headers.items()}
                node.headers.append(headers)
                node.sent.append((what, headers.get("flwr-task-token", ""), body))
                answer = node.answer(what, body).SerializeToString()
                self.send_response_only(node.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, what: str, body: bytes) -> Any:
        if what == "acquire-task":
            if not self.tasks:
                return runtime_pb2.AcquireTaskResponse()
            token, self.at_work = self.tasks.pop(0)
            return runtime_pb2.AcquireTaskResponse(token=token)
        if what == "pull-task-input":
            made = runtime_pb2.PullTaskInputResponse(task_id=9)
            made.run.run_id = made.context.run_id = RUN
            made.context.node_id = NODE
            # A bundle that nobody may open.
            made.fab.content = b"import os; os.abort()"
            return made
        message = self.at_work
        if what == "pull-messages":
            return runtime_pb2.PullAppMessagesResponse(
                messages_list=[message_pb2.Message()],
                message_object_trees=[get_object_tree(message)],
            )
        if what == "pull-object":
            wanted = message_pb2.PullObjectRequest.FromString(body).object_id
            found = get_all_nested_objects(message)[wanted]
            return message_pb2.PullObjectResponse(
                object_found=True, object_available=True, object_content=found.deflate()
            )
        if what == "push-messages":
            (tree,) = runtime_pb2.PushAppMessagesRequest.FromString(body).message_object_trees
            return runtime_pb2.PushAppMessagesResponse(objects_to_push=list(ids_of(tree)))
        if what == "push-object":
            return message_pb2.PushObjectResponse(stored=True)
        return message_pb2.ConfirmMessageReceivedResponse()

    def reply(self) -> Message:
        """Return the last reply that was sent, put together from its objects."""
        pushed = [
            message_pb2.PushObjectRequest.FromString(body)
            for what, _, body in self.sent
            if what == "push-object"
        ]
        objects = {one.object_id: one.object_content for one in pushed}
        body = next(body for what, _, body in reversed(self.sent) if what == "push-messages")
        (tree,) = runtime_pb2.PushAppMessagesRequest.FromString(body).message_object_trees
        return inflate_object_from_contents(tree.object_id, objects)

    def ends(self) -> list[tuple[str, str]]:
        """Return (token, status) of every task that was ended."""
        return [
            (token, runtime_pb2.PushTaskOutputRequest.FromString(body).sub_status)
            for what, token, body in self.sent
            if what == "push-task-output"
        ]


def ids_of(tree: Any) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from ids_of(child)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperNode]:
    # Flower keeps a process's task in one place; a test must not leave its own there.
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)
    # The line's settings go into the environment of the process.
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    made = SuperNode()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


@pytest.fixture
def folder(tmp_path: Path, node: SuperNode) -> CourierFolder:
    settings = settings_of(
        site="duke",
        spool="../spool",
        superlink=f"127.0.0.1:{node.port}",
        coordinator_key=LEAD.public.to_text(),
        port=node.port,
    )
    create_courier_folder(tmp_path / "courier", settings)
    return CourierFolder(tmp_path / "courier")


def order(serial: int = 1, key: CourierKey = LEAD, **parts: Any) -> Sealed:
    return Order(site="duke", serial=serial, **parts).seal(key)


def message_of(sealed: Sealed, chunks: dict[str, bytes], kind: str = "query.courier") -> Message:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 9, RUN, NODE
    content = RecordDict(
        {
            "order": ConfigRecord({"document": sealed.document, "signature": sealed.signature}),
            "chunks": ArrayRecord(
                {
                    digest: Array(dtype="uint8", shape=(len(chunk),), stype="raw", data=chunk)
                    for digest, chunk in chunks.items()
                }
            ),
        }
    )
    return Message(content, dst_node_id=NODE, message_type=kind)


def tasks_of(folder: CourierFolder) -> FlowerTasks:
    return FlowerTasks(folder, folder.carrier())


def receipt_of(reply: Message, folder: CourierFolder) -> tuple[Receipt, dict[str, bytes]]:
    config = reply.content["receipt"]
    sealed = Sealed(document=config["document"], signature=config["signature"])
    receipt = Receipt.open(sealed, CourierKey.load(folder.key_path).public)
    return receipt, {name: array.data for name, array in reply.content["chunks"].items()}


def test_a_task_brings_parcels_and_takes_others_back(
    folder: CourierFolder, node: SuperNode
) -> None:
    offer, reply = b"an offer" * 20, b"a reply" * 30
    spool = folder.root.parent / "spool"
    DirectoryMailbox(spool / "outbox").put("r-1.reply-0001", reply)
    sealed = order(
        deliver=(Delivery(name="r-1.offer", manifest=Manifest.of(offer)),),
        collect={"r-1.reply-0001": Asked()},
    )
    node.tasks.append(("token-1", message_of(sealed, dict(chunks_of(offer)))))
    tasks = tasks_of(folder)
    assert tasks.step()
    receipt, chunks = receipt_of(node.reply(), folder)
    assert receipt.delivered == ("r-1.offer",)
    assert receipt.collected == {"r-1.reply-0001": Manifest.of(reply)}
    assert b"".join(chunks[digest] for digest in Manifest.of(reply).chunks) == reply
    assert (spool / "inbox" / "r-1.offer").read_bytes() == offer
    # The SuperNode hears the end under the task's own token, and knows this courier's secret.
    assert node.ends() == [("token-1", "completed")]
    assert is_claimed_with(folder.secret_path.read_bytes(), node.headers[0])
    assert not is_claimed_with(b"\0" * 32, node.headers[0])
    assert folder.node_path.read_text("ascii") == str(NODE)
    assert not folder.task_path.exists()
    # There is no second task.
    assert not tasks.step()


def is_claimed_with(secret: bytes, headers: dict[str, str]) -> bool:
    """Say whether a task was asked for with what this secret signs."""
    expected = superexec.compute_superexec_signature(
        auth_secret=superexec.derive_auth_secret(secret),
        method="/flwr.proto.Runtime/AcquireTask",
        timestamp=int(headers["flwr-superexec-ts"]),
        nonce=headers["flwr-superexec-nonce"],
        body_sha256=headers["flwr-superexec-body-sha256"],
    )
    return headers["flwr-superexec-signature"] == expected


@pytest.mark.parametrize("fault", ["kind", "signature", "replay", "shape"])
def test_whatever_is_wrong_the_answer_is_one_word(
    folder: CourierFolder, node: SuperNode, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.WARNING, "fedcac.courier")
    sealed = order(key=CourierKey.generate() if fault == "signature" else LEAD)
    message = message_of(sealed, {}, kind="train" if fault == "kind" else "query.courier")
    if fault == "replay":
        folder.carrier().answer(sealed, {})
    if fault == "shape":
        message = Message(RecordDict({}), dst_node_id=NODE, message_type="query.courier")
    reply = tasks_of(folder).answer(message)
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (adapter.REFUSED, "refused")
    words = {
        "kind": "an order was refused: usage.wrong_message_type",
        "signature": "an order was refused: signature.courier_signature",
        "replay": "an order was refused: round.courier_replayed",
        "shape": "an order could not be carried out: KeyError",
    }
    assert caplog.messages == [words[fault]]


def test_the_task_at_work_is_kept_where_nobody_else_reads(
    folder: CourierFolder, node: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.tasks.append(("token-1", message_of(order(), {})))
    tasks = tasks_of(folder)

    def killed(_: Message) -> Message:
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        tasks.step()
    kept = json.loads(folder.task_path.read_text("ascii"))
    assert (kept["token"], kept["task_id"]) == ("token-1", 9)
    assert stat.S_IMODE(folder.task_path.stat().st_mode) == 0o600
    assert node.ends() == []


class Enough(Exception):
    """Ends a courier that works for ever."""


def let_sleep(monkeypatch: pytest.MonkeyPatch, n_pauses: int) -> list[float]:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) >= n_pauses:
            raise Enough

    monkeypatch.setattr(adapter.time, "sleep", sleep)
    return pauses


def leave_a_task(folder: CourierFolder, node: SuperNode, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        test_the_task_at_work_is_kept_where_nobody_else_reads(folder, node, patch)
    node.sent.clear()
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)


def test_a_restarted_courier_refuses_the_task_it_was_killed_at(
    folder: CourierFolder, node: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_task(folder, node, monkeypatch)
    let_sleep(monkeypatch, 1)
    with pytest.raises(Enough):
        tasks_of(folder).run()
    reply = node.reply()
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (adapter.REFUSED, "refused")
    assert node.ends() == [("token-1", "failed")]
    assert not folder.task_path.exists()
    # Once it is refused it is asked for the next one.
    assert node.sent[-1][0] == "acquire-task"


def test_an_interrupted_task_that_has_gone_is_forgotten(
    folder: CourierFolder,
    node: SuperNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fedcac.courier")
    leave_a_task(folder, node, monkeypatch)
    node.status = 404
    let_sleep(monkeypatch, 1)
    with pytest.raises(Enough):
        tasks_of(folder).run()
    assert "an interrupted task had gone (HTTPStatusError)" in caplog.messages
    assert not folder.task_path.exists()


def test_a_supernode_that_is_down_is_waited_for_and_told_once(
    folder: CourierFolder,
    node: SuperNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "fedcac.courier")
    pauses = let_sleep(monkeypatch, 3)
    tasks = tasks_of(folder)
    faults = [httpx.ConnectError("down"), httpx.ReadTimeout("slow")]
    genuine = tasks.step

    def step() -> bool:
        if faults:
            raise faults.pop(0)
        return genuine()

    monkeypatch.setattr(tasks, "step", step)
    node.tasks.append(("token-1", message_of(order(), {})))
    with pytest.raises(Enough):
        tasks.run()
    assert caplog.messages == ["the SuperNode does not answer (ConnectError)"]
    # No pause after the task that was there.
    assert pauses == [0.25, 0.25, 0.25]
    assert node.ends() == [("token-1", "completed")]


# signing off


def test_before_the_first_task_there_is_nothing_to_sign_off(
    folder: CourierFolder, node: SuperNode
) -> None:
    sign_off(folder)
    assert node.sent == []


def remembered(folder: CourierFolder) -> None:
    folder.state_path.mkdir()
    folder.node_path.write_text(str(NODE), encoding="ascii")
    (folder.root / "ca.crt").write_bytes(b"none")


def test_the_superlink_is_told_of_a_node_that_is_gone(
    folder: CourierFolder, node: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(folder)
    genuine = adapter.FleetHttpClient.from_server_address

    def plain(address: str, insecure: bool, trust: bytes, **options: Any) -> Any:
        # The stand-in has no certificate; what is asked for is TLS under the pinned one.
        assert (insecure, trust) == (False, b"none")
        return genuine(address, True, None, **options)

    monkeypatch.setattr(adapter.FleetHttpClient, "from_server_address", plain)
    sign_off(folder)
    ((what, _, body),) = node.sent
    assert what == "deactivate-node"
    assert fleet_pb2.DeactivateNodeRequest.FromString(body).node_id == NODE
    # Signed with the SuperNode's own key: nobody else signs a node off.
    signature = base64.b64decode(node.headers[0]["flwr-signature"])
    moment = node.headers[0]["flwr-timestamp"].encode("ascii")
    own = CourierKey.load(folder.key_path).public.as_key()
    own.verify(signature, moment, ec.ECDSA(hashes.SHA256()))


def test_a_superlink_that_does_not_answer_keeps_nobody_from_starting(
    folder: CourierFolder, node: SuperNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fedcac.courier")
    remembered(folder)
    sign_off(folder)
    assert caplog.messages == ["the SuperLink was not told (SSLError)"]
    assert node.sent == []


def test_a_key_of_another_kind_signs_nothing_off(folder: CourierFolder, node: SuperNode) -> None:
    remembered(folder)
    folder.key_path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
        )
    )
    sign_off(folder)
    assert node.sent == []


# the command


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = packed.main(list(words))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_packed_command_makes_a_courier_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lead.pub").write_text(LEAD.public.to_text() + "\n", encoding="ascii")
    home = tmp_path / "courier"
    words = [
        *("--home", str(home), "init", "duke", "--spool", str(tmp_path / "site" / "spool")),
        *("--superlink", "lead.example.org:8443", "--ca", str(tmp_path / "ca.crt")),
        *("--coordinator-key", str(tmp_path / "lead.pub"), "--extra-ca", str(tmp_path / "x.crt")),
    ]
    code, out, _ = told(capsys, *words)
    assert code == 0
    assert out.strip() == CourierKey.load(home / "node.key").public.to_text()
    settings = CourierFolder(home).settings()
    assert settings.spool == "../site/spool"
    assert settings.extra_ca == str(tmp_path / "x.crt")
    code, _, err = told(capsys, *words)
    assert code == 2
    assert "usage.courier_exists" in err
    assert "Use it as it is" in err


def test_a_courier_that_is_interrupted_ends_as_a_shell_expects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packed, "run", interrupted)
    assert told(capsys, "--home", str(tmp_path), "run") == (130, "", "")


def test_put_takes_files_and_leaves_the_offer_for_last(
    folder: CourierFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = ["r-1.offer", "r-1.protocol"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    order_of: list[str] = []
    genuine = DirectoryMailbox.put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            DirectoryMailbox,
            "put",
            lambda box, name, payload: order_of.append(name) or genuine(box, name, payload),
        )
        files = [str(tmp_path / name) for name in names]
        # A folder among them is no parcel.
        code, out, _ = told(capsys, "--home", str(folder.root), "put", *files, str(tmp_path))
    assert (code, out) == (0, "2\n")
    assert order_of == ["r-1.protocol", "r-1.offer"]
    inbox = tmp_path / "spool" / "inbox"
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == {
        name: name.encode() for name in names
    }


@pytest.mark.parametrize(("is_good", "mark", "code"), [(True, "ok  ", 0), (False, "LOOK", 1)])
def test_check_marks_every_finding_and_ends_with_what_they_say(
    folder: CourierFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_good: bool,
    mark: str,
    code: int,
) -> None:
    found = [Finding(True, "It is reached."), Finding(is_good, "The clocks.")]
    monkeypatch.setattr(packed, "look", lambda _: found)
    text = f"ok    It is reached.\n{mark}  The clocks.\n"
    assert told(capsys, "--home", str(folder.root), "check") == (code, text, "")
    home = ("--courier-home", str(folder.root))
    assert site_main(["courier", "check", *home, "--format", "json"]) == code
    shown = json.loads(capsys.readouterr().out)["data"]["findings"]
    assert shown[1] == {"is_good": is_good, "text": "The clocks."}


def test_pack_tells_the_digest_of_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "courier.pyz"
    assert site_main(["courier", "pack", "--out", str(out), "--format", "json"]) == 0
    digest = json.loads(capsys.readouterr().out)["data"]["digest"]
    assert sha256(out.read_bytes()).hexdigest() in digest


@pytest.mark.parametrize("is_packed", [True, False])
def test_the_node_becomes_a_supernode_after_signing_off_its_predecessor(
    folder: CourierFolder, monkeypatch: pytest.MonkeyPatch, is_packed: bool
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(packed.os, "execve", lambda *given: became.append(given))
    monkeypatch.setattr(adapter, "sign_off", lambda one: became.append(one.root))
    (folder.root / "ca.crt").write_bytes(b"none")

    def start() -> None:
        if is_packed:
            assert packed.main(["--home", str(folder.root), "node"]) == 0
        else:
            assert site_main(["courier", "node", "--courier-home", str(folder.root)]) == 0

    start()
    ((program, command, environment),) = became
    assert program == command[0]
    assert Path(program).name == "flower-supernode"
    assert command[command.index("--isolation") + 1] == "process"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"
    # After the first task there is a predecessor that the SuperLink may hold for online.
    remembered(folder)
    became.clear()
    start()
    assert became[0] == folder.root
    assert len(became) == 2


@pytest.mark.parametrize("is_packed", [True, False])
def test_run_warns_of_a_certificate_that_ends_and_then_takes_tasks(
    folder: CourierFolder,
    node: SuperNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_packed: bool,
) -> None:
    (folder.root / "ca.crt").write_bytes(b"none")
    monkeypatch.setattr(packed, "trust_warnings", lambda *_: ["ca.crt ends soon."])
    monkeypatch.setattr(packed.logging, "basicConfig", lambda **_: None)
    logger = logging.getLogger("httpx")
    level = logger.level
    let_sleep(monkeypatch, 1)
    node.tasks.append(("token-1", message_of(order(), {})))
    try:
        with pytest.raises(Enough):
            packed.main(["--home", str(folder.root), "run"]) if is_packed else verbs_run(folder)
        # An order's address is nothing for a log.
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(level)
    assert "ca.crt ends soon." in caplog.messages
    assert node.ends() == [("token-1", "completed")]


def verbs_run(folder: CourierFolder) -> None:
    from site_agent.flower_courier import verbs

    verbs._run(SimpleNamespace(courier_home=folder.root))


def test_the_sites_own_command_carries_until_it_is_stopped(
    folder: CourierFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes: list[Path] = []
    monkeypatch.setattr(packed, "run", lambda arguments: homes.append(arguments.home))
    assert site_main(["courier", "run", "--courier-home", str(folder.root)]) == 0
    # Its folder is the courier's, not the agent's.
    assert homes == [folder.root]


# the line


def test_a_server_that_hangs_up_is_told_as_what_it_is(folder: CourierFolder) -> None:
    (folder.root / "ca.crt").write_text(authority(), encoding="ascii")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = folder.settings_path.read_text("utf-8")
        superlink = folder.settings().superlink
        folder.settings_path.write_text(text.replace(superlink, f"127.0.0.1:{port}"))

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found = line.look(folder)
        thread.join()
    assert [one.is_good for one in found] == [True, False]
    assert found[1].text.startswith("The connection broke off (")


def test_who_stands_in_the_way_is_not_made_up_where_nobody_answers(
    folder: CourierFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(line, "_connected", gone)
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    words = line._why_not_trusted(folder.settings(), error)
    assert words == "The certificate is not trusted: self-signed certificate."


def authority() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Consortium")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode("ascii")
