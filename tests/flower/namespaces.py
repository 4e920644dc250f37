"""A coordinator's host and sites' hosts as network namespaces of this machine, joined by a bridge.

Each site's firewall is a hospital's: out to the coordinator's public port and nowhere else, and
nothing in. Needs root and a kernel that permits namespaces; `network` skips the test otherwise.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["COORDINATOR", "PUBLIC_PORT", "Network", "network"]

COORDINATOR = "coordinator"
PUBLIC_PORT = 8443
_CLONE_NEWNET = 0x40000000
_LISTENING, _BOUND = "0A", "07"
_AT_ONCE = 512


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words[-6:])}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """Hosts with one address each; `COORDINATOR` is one of them, the others are sites."""

    coordinator = COORDINATOR
    public_port = PUBLIC_PORT

    def __init__(self, sites: Iterable[str]) -> None:
        self._mark = f"fedcac-{secrets.token_hex(3)}"
        hosts = [COORDINATOR, *sites]
        self.addresses = {name: f"10.91.0.{number}" for number, name in enumerate(hosts, 1)}
        self._plugs = {name: f"host{number}" for number, name in enumerate(hosts, 1)}

    def namespace(self, host: str) -> str:
        return f"{self._mark}-{host}"

    @property
    def _switch(self) -> str:
        return f"{self._mark}.switch"

    def build(self) -> None:
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "bridge0", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "bridge0", "up")
        for host, plug in self._plugs.items():
            name = self.namespace(host)
            _run("ip", "netns", "add", name)
            _run(
                *("ip", "link", "add", plug, "netns", self._switch),
                *("type", "veth", "peer", "name", "eth0", "netns", name),
            )
            _run("ip", "-n", self._switch, "link", "set", plug, "master", "bridge0", "up")
            _run("ip", "-n", name, "address", "add", f"{self.addresses[host]}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", name, "link", "set", device, "up")
        for site in self.sites:
            self.close_firewall(site)

    def remove(self) -> None:
        """Delete every namespace that is there; what runs in one loses its network."""
        for name in (*map(self.namespace, self._plugs), self._switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    @property
    def sites(self) -> list[str]:
        return [name for name in self._plugs if name != COORDINATOR]

    # firewalls and lines

    def close_firewall(self, site: str) -> None:
        self._rule(site, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        answers = ("-m", "conntrack", "--ctstate", "ESTABLISHED")
        self._rule(site, "-A", "INPUT", *answers, "-j", "ACCEPT")
        self._rule(site, "-A", "OUTPUT", "-o", "lo", "-j", "ACCEPT")
        self._rule(
            *(site, "-A", "OUTPUT", "-d", self.addresses[COORDINATOR]),
            *("-p", "tcp", "--dport", str(PUBLIC_PORT), "-j", "ACCEPT"),
        )
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            self._rule(site, "-P", chain, "DROP")

    def open_firewall(self, site: str) -> None:
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            self._rule(site, "-P", chain, "ACCEPT")
        self._rule(site, "-F")

    def _rule(self, host: str, *words: str) -> None:
        _run("ip", "netns", "exec", self.namespace(host), "iptables", "-w", *words)

    def cut(self, host: str) -> None:
        """Pull the plug at the switch: packets are lost, and no connection is told."""
        _run("ip", "-n", self._switch, "link", "set", self._plugs[host], "down")

    def mend(self, host: str) -> None:
        _run("ip", "-n", self._switch, "link", "set", self._plugs[host], "up")

    def slow_down(self, host: str, rate: str) -> None:
        """Let a host send and receive `rate` (such as 2mbit) and no more."""
        bucket = ("root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
        _run("tc", "-n", self._switch, "qdisc", "add", "dev", self._plugs[host], *bucket)
        _run("tc", "-n", self.namespace(host), "qdisc", "add", "dev", "eth0", *bucket)

    # on a host

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """Return a command that runs on a host; it becomes the process that it starts."""
        return ["ip", "netns", "exec", self.namespace(host), *words]

    def call(self, host: str, what: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread of this process that has the host's network."""
        found: list[Any] = []
        raised: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/run/netns/{self.namespace(host)}", "rb") as place:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(place.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(what(*arguments))
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        return found[0]

    def answering_ports(self, source: str, target: str) -> set[int]:
        """Knock at every TCP port of a host from another one; return those that answer."""
        return self.call(source, _knock, self.addresses[target], range(1, 65536))

    def reaches(self, source: str, target: str, port: int, timeout_s: float = 1.0) -> bool:
        """Say whether a connection from a host to another one's port is made."""

        def reach() -> bool:
            try:
                socket.create_connection((self.addresses[target], port), timeout_s).close()
            except OSError:
                return False
            return True

        return bool(self.call(source, reach))

    def exposed(self, host: str) -> set[tuple[str, int]]:
        """Return each socket of a host that waits on another address than loopback."""
        return self.call(host, _exposed)


def _knock(address: str, ports: Iterable[int]) -> set[int]:
    answering: set[int] = set()
    waiting = iter(ports)
    with selectors.DefaultSelector() as selector:
        for port in waiting:
            _begin(selector, address, port)
            while len(selector.get_map()) >= _AT_ONCE:
                _settle(selector, answering)
        while selector.get_map():
            _settle(selector, answering)
    return answering


def _begin(selector: selectors.BaseSelector, address: str, port: int) -> None:
    line = socket.socket()
    line.setblocking(False)
    line.connect_ex((address, port))
    selector.register(line, selectors.EVENT_WRITE, port)


def _settle(selector: selectors.BaseSelector, answering: set[int]) -> None:
    ready = selector.select(timeout=30)
    if not ready:
        raise TimeoutError("a port neither answers nor refuses")
    for key, _ in ready:
        line = key.fileobj
        assert isinstance(line, socket.socket)
        failure = line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        selector.unregister(line)
        line.close()
        if failure == 0:
            answering.add(key.data)
        elif failure != errno.ECONNREFUSED:
            raise OSError(failure, os.strerror(failure))


def _exposed() -> set[tuple[str, int]]:
    found = set()
    for table, state in (("tcp", _LISTENING), ("tcp6", _LISTENING), ("udp", _BOUND)):
        for row in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, current, *_ = row.split()
            address, port = local.split(":")
            # 127.0.0.0/8 ends in 7F, written as the machine stores it.
            if current == state and not (len(address) == 8 and address.endswith("7F")):
                found.add((table, int(port, 16)))
    return found


@contextmanager
def network(*sites: str) -> Iterator[Network]:
    """Yield hosts; skip where this machine permits no namespaces, in continuous integration too."""
    absent = [tool for tool in ("ip", "iptables", "tc") if shutil.which(tool) is None]
    if os.geteuid() != 0 or absent:
        pytest.skip(f"network namespaces need root and {', '.join(absent) or 'nothing else'}")
    made = Network(sites)
    try:
        try:
            made.build()
        except OSError as error:
            pytest.skip(f"this machine permits no network namespaces ({error}); CI or not")
        yield made
    finally:
        made.remove()
