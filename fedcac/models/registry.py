"""Architectures by family name. Weights without an architecture here are never loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fedcac.errors import PackageError
from fedcac.models.eng2021 import EngNetwork

__all__ = ["build_network", "families"]

_FAMILIES: dict[str, Callable[..., nn.Module]] = {"eng2021": EngNetwork}


def families() -> tuple[str, ...]:
    """Return the names of every known family."""
    return tuple(sorted(_FAMILIES))


def build_network(family: str, architecture: dict[str, Any]) -> nn.Module:
    """Return a network with fresh weights.

    Raises
    ------
    PackageError
        `unknown_family`, or `bad_architecture` if the parameters do not fit the family.
    """
    if family not in _FAMILIES:
        raise PackageError(
            f"There is no architecture '{family}'.",
            code="unknown_family",
            cure=f"This release knows {', '.join(families())}; update, or ask for another package.",
        )
    try:
        return _FAMILIES[family](**architecture)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise PackageError(
            f"The parameters do not make a network of family '{family}'.",
            code="bad_architecture",
        ) from error
