"""The protocols that ship with this release."""

from __future__ import annotations

from pathlib import Path

from fedcac.errors import ProtocolError
from fedcac.protocol.loading import load_protocol
from fedcac.protocol.schema import Protocol

__all__ = ["load_protocol_or_shipped", "load_shipped", "shipped_protocols"]


def shipped_protocols() -> dict[str, Path]:
    """Return the path of every shipped protocol by its id.

    A wheel carries them in `fedcac/protocols`, a checkout at its top level.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "protocols", package.parent / "protocols"):
        found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if found:
            return found
    return {}


def load_shipped(protocol_id: str) -> Protocol:
    """Return a shipped protocol; ProtocolError `not_found` with the list of ids."""
    found = shipped_protocols()
    if protocol_id not in found:
        raise ProtocolError(
            f"There is no protocol '{protocol_id}', neither as a file nor shipped.",
            code="not_found",
            cure=f"Give a file, or one of: {', '.join(found)}."
            if found
            else "Give a file. This installation has no shipped protocols: install fedcac again.",
        )
    return load_protocol(found[protocol_id])


def load_protocol_or_shipped(name: str) -> Protocol:
    """Return the protocol of a file, or a shipped one by its id."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return load_protocol(path)
    return load_shipped(name)
