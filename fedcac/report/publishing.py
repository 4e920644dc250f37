"""The packages of the extra `publishing`, which the core installation does without."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Final

from fedcac.errors import UsageError

__all__ = ["INSTALL_COMMAND", "publishing_module"]

INSTALL_COMMAND: Final = "pip install 'fedcac[publishing]'"

_PACKAGES = {"pyarrow": "pyarrow", "docx": "python-docx"}


def publishing_module(name: str) -> ModuleType:
    """Return a module of pyarrow or python-docx.

    Raises
    ------
    UsageError
        If its package is not installed (`no_publishing`).
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = _PACKAGES[name.partition(".")[0]]
        raise UsageError(
            f"The package {package} is not installed here.",
            code="no_publishing",
            cure=f"Run: {INSTALL_COMMAND}",
        ) from error
