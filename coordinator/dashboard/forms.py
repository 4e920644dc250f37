"""Fields of a form as typed values; whatever is missing or odd is an empty or a default value."""

from __future__ import annotations

from starlette.requests import Request

from coordinator.dashboard.access import form_of
from fedcac.errors import UsageError

__all__ = ["file_of", "number_of", "text_of", "texts_of"]


def text_of(request: Request, name: str, longest: int) -> str:
    """Return a field's text with line feeds alone at line ends, cut at `longest` characters."""
    value = form_of(request).get(name, "")
    if not isinstance(value, str):
        return ""
    return value.replace("\r\n", "\n")[:longest]


def texts_of(request: Request, name: str) -> tuple[str, ...]:
    """Return every value of a field, in the order of the form, each once."""
    values = form_of(request).getlist(name)
    return tuple(dict.fromkeys(value for value in values if isinstance(value, str)))


def number_of(request: Request, name: str, *, least: int, most: int) -> int | None:
    """Return a field's number, or None if it is empty.

    Raises
    ------
    UsageError
        `bad_number` if it is none, or out of the range.
    """
    text = text_of(request, name, 20).strip()
    if not text:
        return None
    is_number = text.isascii() and text.isdecimal()
    if not is_number or not least <= int(text) <= most:
        raise UsageError(
            f"'{text}' is no whole number from {least} to {most}.",
            code="bad_number",
            cure=f"Mend the field '{name.replace('_', ' ')}'.",
        )
    return int(text)


def file_of(request: Request, name: str) -> tuple[str, bytes]:
    """Return an uploaded file's name and bytes; ('', b'') if none was chosen."""
    value = form_of(request).get(name)
    if value is None or isinstance(value, str) or not value.filename:
        return "", b""
    value.file.seek(0)
    return value.filename, value.file.read()
