"""Reads multipart/related answers part by part (RFC 2046 5.1, PS3.18 8.6.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.message import Message

from site_agent.pacs.faults import PacsError, PacsFault

__all__ = ["boundary_of", "read_parts"]

_CHUNK_BYTES = 1 << 18
_LONGEST_HEADER_BYTES = 1 << 14
_LARGEST_PART_BYTES = 2 << 30
"""An enhanced CT of a whole chest takes about a quarter of it."""


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a multipart answer names.

    Raises
    ------
    PacsError
        `pacs_not_dicomweb` if the answer is not multipart/related.
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise PacsError(PacsFault.NOT_DICOMWEB)
    try:
        return boundary.encode("ascii")
    except UnicodeEncodeError as error:
        raise PacsError(PacsFault.NOT_DICOMWEB) from error


def read_parts(
    read: Callable[[int], bytes], boundary: bytes, largest: int = _LARGEST_PART_BYTES
) -> Iterator[bytes]:
    """Yield the body of every whole part.

    `read` returns at most as many bytes as asked, and none at the end. One part at a time is in
    memory.

    Raises
    ------
    PacsError
        `pacs_truncated` if the closing delimiter does not come, `pacs_too_large`,
        `pacs_not_dicomweb`.
    """
    delimiter = b"\r\n--" + boundary
    # The first delimiter may stand at the very beginning.
    buffer = _Buffer(read, bytearray(b"\r\n"))
    buffer.take_until(delimiter, largest)
    while True:
        if buffer.starts_with(b"--"):
            return
        buffer.take_until(b"\r\n", _LONGEST_HEADER_BYTES)
        # A part without header lines has only the empty line.
        if buffer.starts_with(b"\r\n"):
            buffer.take_until(b"\r\n", _LONGEST_HEADER_BYTES)
        else:
            buffer.take_until(b"\r\n\r\n", _LONGEST_HEADER_BYTES)
        yield buffer.take_until(delimiter, largest)


class _Buffer:
    """Bytes read ahead of a stream."""

    def __init__(self, read: Callable[[int], bytes], content: bytearray) -> None:
        self._read = read
        self._content = content

    def starts_with(self, prefix: bytes) -> bool:
        while len(self._content) < len(prefix):
            self._fill()
        return self._content.startswith(prefix)

    def take_until(self, mark: bytes, largest: int) -> bytes:
        """Return what stands before the mark, and drop both."""
        searched = 0
        while (at := self._content.find(mark, searched)) < 0:
            searched = max(0, len(self._content) - len(mark) + 1)
            if searched > largest:
                raise PacsError(PacsFault.TOO_LARGE)
            self._fill()
        taken = bytes(memoryview(self._content)[:at])
        del self._content[: at + len(mark)]
        return taken

    def _fill(self) -> None:
        chunk = self._read(_CHUNK_BYTES)
        if not chunk:
            raise PacsError(PacsFault.TRUNCATED)
        self._content += chunk
