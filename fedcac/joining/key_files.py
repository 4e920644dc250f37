"""Reads the public keys that people name on a command line."""

from __future__ import annotations

from pathlib import Path

from fedcac.errors import UsageError

__all__ = ["public_key_text"]


def public_key_text(path: Path) -> str:
    """Return the text of a public key's file.

    Raises
    ------
    UsageError
        `no_key_file` if it is not there or holds no text.
    """
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"There is no public key at '{path}'.",
            code="no_key_file",
            cure="Give the .pub file, as whoever holds the key sent it.",
        ) from error
