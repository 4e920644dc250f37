"""The dashboard as a process: where it listens, what it takes from its surroundings, its end."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboard.consortium import Consortium
from flower.deployment import free_port

from coordinator.__main__ import main
from coordinator.folder import CoordinatorFolder

URL = "https://dashboard.example.org"


def ask(port: int, path: str, host: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host, **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_it_serves_the_folder_behind_a_proxy_and_ends_when_asked(
    make: Callable[..., Consortium],
) -> None:
    home, port = make().folder.root, free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "coordinator", "--home", str(home)),
            *("dashboard", "--port", str(port)),
        ],
        env={**os.environ, "FEDCAC_DASHBOARD_URL": URL},
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        limit = time.monotonic() + 240
        while True:
            assert process.poll() is None
            assert time.monotonic() < limit
            try:
                assert ask(port, "/health", "localhost").status == 200
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        page = ask(port, "/sign-in", "dashboard.example.org", **{"X-Forwarded-Proto": "https"})
        assert page.status == 200
        assert page.headers["server"] is None
        assert "Secure" in page.headers["set-cookie"]
        assert ask(port, "/sign-in", "attacker.example").status == 400
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection("127.0.0.2", port, timeout=5).request("GET", "/health")
        taken = main(["--home", str(home), "dashboard", "--port", str(port)])
        assert taken == 12
    finally:
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert f"The dashboard is at {URL}" in said.decode()
    assert "users add NAME --role lead" in said.decode()
    assert "Traceback" not in said.decode()


def test_the_database_s_url_may_come_from_the_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CoordinatorFolder(tmp_path)
    assert folder.database_url == f"sqlite:///{tmp_path.resolve()}/coordinator.sqlite"
    monkeypatch.setenv("FEDCAC_DATABASE_URL", "postgresql+pg8000://fedcac:word@database/fedcac")
    assert folder.database_url == "postgresql+pg8000://fedcac:word@database/fedcac"
    monkeypatch.setenv("FEDCAC_DATABASE_URL", "")
    assert folder.database_url.startswith("sqlite:///")
