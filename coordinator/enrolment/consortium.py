"""What the consortium is called and where sites reach it: `consortium.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.flower_courier.authority import server_hosts
from coordinator.flower_courier.certificates import replace_file
from coordinator.flower_courier.folder import CourierFolder
from fedcac.errors import UsageError
from fedcac.joining.kits import ConsortiumName, HostPort

__all__ = ["Consortium", "made_consortium", "read_consortium", "write_consortium"]

_FILE = "consortium.json"


class Consortium(BaseModel):
    """What kits say of the consortium.

    Attributes
    ----------
    name
        For people; part of every enrolment request.
    address
        HOST:PORT that sites reach; None where parcels are carried by hand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ConsortiumName = "consortium"
    address: HostPort | None = None


def made_consortium(name: str, address: str | None) -> Consortium:
    """Return a consortium; UsageError `bad_settings` if a value cannot be meant."""
    try:
        return Consortium(name=name, address=address)
    except ValidationError as error:
        raise UsageError(
            "A consortium has a name of one line, and an address HOST:PORT.",
            code="bad_settings",
            cure="Mend --name, --host or --address.",
        ) from error


def write_consortium(home: Path, consortium: Consortium) -> None:
    """Write `consortium.json`."""
    text = consortium.model_dump_json(indent=2) + "\n"
    replace_file(home / _FILE, text.encode("utf-8"))


def read_consortium(home: Path) -> Consortium:
    """Read `consortium.json`; in a folder made before there was one, follow the certificate."""
    try:
        return Consortium.model_validate_json((home / _FILE).read_bytes())
    except FileNotFoundError:
        courier = CourierFolder(home / "courier")
        if not courier.key_path.exists():
            return Consortium()
        host = server_hosts(courier.root)[0]
        return Consortium(address=f"{host}:{courier.ports().public_port}")
    except ValidationError as error:
        raise UsageError(
            f"{home / _FILE} has problems.",
            code="bad_settings",
            cure="It holds `name` and `address` (HOST:PORT or null) and nothing else.",
        ) from error
