"""Where the shipped protocols lie, in a wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcac.errors import ProtocolError
from fedcac.protocol import catalogue
from fedcac.protocol.catalogue import load_protocol_or_shipped, load_shipped, shipped_protocols

SHIPPED = shipped_protocols()


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the package would be installed in."""
    module = tmp_path / "fedcac" / "protocol" / "catalogue.py"
    monkeypatch.setattr(catalogue, "__file__", str(module))
    return tmp_path


def ship(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"{name}.yaml"
    path.write_bytes(SHIPPED[name].read_bytes())
    return path


def test_a_wheel_carries_its_own_and_no_neighbours(installation: Path) -> None:
    own = ship(installation / "fedcac" / "protocols", "demo-nongated")
    ship(installation / "protocols", "miller2023-ctac")
    assert shipped_protocols() == {"demo-nongated": own}
    assert load_shipped("demo-nongated").id == "demo-nongated"
    with pytest.raises(ProtocolError, match="or one of: demo-nongated"):
        load_shipped("miller2023-ctac")


def test_a_checkout_has_them_at_its_top_level(installation: Path) -> None:
    path = ship(installation / "protocols", "miller2023-ctac")
    assert shipped_protocols() == {"miller2023-ctac": path}


def test_an_installation_that_lost_them_says_so(installation: Path) -> None:
    assert shipped_protocols() == {}
    with pytest.raises(ProtocolError) as caught:
        load_shipped("demo-nongated")
    assert caught.value.code == "protocol.not_found"
    assert caught.value.cure == (
        "Give a file. This installation has no shipped protocols: install fedcac again."
    )


def test_a_file_is_read_whatever_its_name_ends_with(tmp_path: Path) -> None:
    path = tmp_path / "plan.txt"
    path.write_bytes(SHIPPED["demo-nongated"].read_bytes())
    assert load_protocol_or_shipped(str(path)) == load_shipped("demo-nongated")
    with pytest.raises(ProtocolError) as caught:
        load_protocol_or_shipped(str(tmp_path / "absent.yml"))
    assert caught.value.code == "protocol.not_found"
    assert "Check the path" in caught.value.cure
