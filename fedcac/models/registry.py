"""Architectures by family name. Weights without an architecture here are never loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fedcac.errors import PackageError
from fedcac.models import adapters
from fedcac.models.family import Family

__all__ = ["build_network", "families", "family_of"]

_FAMILIES: dict[str, Callable[..., Family]] = {
    "eng2021": adapters.eng2021,
    "hong2025": adapters.hong2025,
    "miller2023": adapters.miller2023,
    "onnx": adapters.onnx,
    "swinunetr": adapters.swinunetr,
}


def families() -> tuple[str, ...]:
    """Return the names of every known family."""
    return tuple(sorted(_FAMILIES))


def family_of(name: str, architecture: Mapping[str, Any]) -> Family:
    """Return a family with the parameters of a manifest's `architecture`.

    Raises
    ------
    PackageError
        `unknown_family`, or `bad_architecture` if the parameters do not fit the family.
    """
    if name not in _FAMILIES:
        raise PackageError(
            f"There is no architecture '{name}'.",
            code="unknown_family",
            cure=f"This release knows {', '.join(families())}; update, or ask for another package.",
        )
    try:
        return _FAMILIES[name](**architecture)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise _bad_architecture(name) from error


def build_network(name: str, architecture: Mapping[str, Any], payload: bytes = b"") -> nn.Module:
    """Return a network with fresh weights, or that of an ONNX file's bytes.

    Raises
    ------
    PackageError
        As `family_of`; for ONNX also what `fedcac.models.onnx_checks` refuses.
    """
    family = family_of(name, architecture)
    try:
        return family.build(payload)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise _bad_architecture(name) from error


def _bad_architecture(name: str) -> PackageError:
    return PackageError(
        f"The parameters do not make a network of family '{name}'.",
        code="bad_architecture",
        cure="Compare `architecture` with the family's parameters; the package may be of another "
        "release.",
    )
