"""What the two adapters use of Flower, held against the installed version.

Only `flwr.app` is a public interface. When a new version is wanted: change the pin in
pyproject.toml, constraints.txt and both adapters, run this file, and read Flower's change log for
every name that no longer fits. Then run the rest of tests/flower, the three attacks above all.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

from coordinator.enrolment.kit_texts import FLOWER_VERSION
from fedcac.errors import UsageError

with warnings.catch_warnings():
    # Flower's own imports warn; they are not ours to mend.
    warnings.simplefilter("ignore")
    from coordinator.flower_courier import adapter as coordinator_adapter
    from site_agent.flower_courier import adapter as site_adapter

ROOT = Path(__file__).parents[2]
PIN = "1.41.0"
ADVICE = (
    f"This courier is written for flwr {PIN}. For another version check, in this order: the "
    "signatures below; which paths of the SuperLink ask for authentication "
    "(test_over_flower.py, attacks); that a SuperNode in process isolation never unpacks a "
    "bundle; the SuperLink's and SuperNode's options; what a killed process costs."
)


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_installed_version_is_the_pinned_one() -> None:
    assert version("flwr") == PIN, ADVICE
    assert coordinator_adapter.PINNED_VERSION == site_adapter.PINNED_VERSION == PIN, ADVICE
    assert FLOWER_VERSION == PIN, ADVICE
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["flower"] == [f"flwr=={PIN}"], ADVICE


@pytest.mark.parametrize("module", [coordinator_adapter, site_adapter])
def test_another_version_is_refused(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: "1.42.0")
    with pytest.raises(UsageError) as caught:
        module.check_version()  # type: ignore[attr-defined]
    assert caught.value.code == "usage.flower_version"


def test_the_signatures_are_those_that_the_adapters_call() -> None:
    grid = coordinator_adapter.HttpGrid
    assert parameters(grid)[:3] == ["runtime_api_address", "insecure", "root_certificates"], ADVICE
    assert "token" in parameters(grid), ADVICE
    assert parameters(grid.push_messages) == ["self", "messages"], ADVICE
    assert parameters(grid.pull_messages) == ["self", "message_ids"], ADVICE
    assert "_retry_invoker" in inspect.getsource(grid._connect), ADVICE
    assert parameters(site_adapter.pull_task_input) == ["client"], ADVICE
    assert parameters(site_adapter.push_message) == ["client", "message", "context"], ADVICE
    assert parameters(site_adapter.push_task_output) == [
        "client",
        "context",
        "sub_status",
        "details",
    ], ADVICE
    assert parameters(site_adapter.NodeAuthHttpInterceptor) == ["private_key", "public_key"], ADVICE
    assert "DeactivateNode" in dir(site_adapter.FleetHttpClient), ADVICE
    address = coordinator_adapter.RuntimeHttpClient.from_server_address
    assert parameters(address) == [
        "server_address",
        "insecure",
        "root_certificates",
        "interceptors",
        "retry_invoker",
    ], ADVICE


def test_taking_a_task_neither_installs_nor_loads_a_bundle() -> None:
    """The functions that the courier borrows are not those that touch the bundle's content."""
    for function in (
        site_adapter.pull_task_input,
        site_adapter.push_message,
        site_adapter.push_task_output,
    ):
        source = inspect.getsource(function)
        for word in ("install_from_fab", "get_load_client_app_fn", "sys.path", "zipfile"):
            assert word not in source, ADVICE


@pytest.mark.parametrize("program", ["flower-superlink", "flower-supernode"])
def test_the_programs_know_the_options(program: str) -> None:
    from coordinator.flower_courier.folder import CourierFolder, CourierPorts
    from coordinator.flower_courier.superlink import superlink_command

    shown = subprocess.run(
        [str(Path(sys.executable).with_name(program)), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_TELEMETRY_ENABLED": "0", "COLUMNS": "200"},
    ).stdout

    class Folder(CourierFolder):
        def ports(self) -> CourierPorts:
            return CourierPorts()

    if program == "flower-superlink":
        command = superlink_command(Folder(Path("courier")))
    else:
        source = ROOT / "site_agent" / "flower_courier" / "supernode.py"
        command = [word.strip('", ') for word in source.read_text().splitlines() if '"--' in word]
    options = [word for word in command if word.startswith("--")]
    assert len(options) >= 7
    for option in options:
        assert option in shown, f"{program} has no {option}. {ADVICE}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_bundle_of_every_run_holds_no_code() -> None:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(coordinator_adapter.empty_bundle())) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".py", ".so", ".pth"))]
    assert coordinator_adapter.empty_bundle() == coordinator_adapter.empty_bundle()
