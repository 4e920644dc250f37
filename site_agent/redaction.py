"""Text that may be pasted into a mail or a log: without paths, identifiers or addresses in it.

What this project writes on purpose names no patient. This is the second net, for words that came
with a fault: it is coarse, and would rather take out too much.
"""

from __future__ import annotations

import re

__all__ = ["redacted"]

_LONGEST = 2000
_COMMAND = re.compile(r"`[^`]*`")
_PARTS = (
    # DICOM unique identifiers, and any long row of digits (a date of birth, a patient's number).
    (re.compile(r"\b\d+(?:\.\d+){4,}\b"), "<identifier>"),
    (re.compile(r"(?<![:.\w-])\d{6,}(?![\w-])"), "<number>"),
    (re.compile(r"\b\d{4}-\d{2}-\d{2}\b(?!T)"), "<date>"),
    # Paths, absolute or with folders, of Unix and Windows.
    (re.compile(r"(?<![\w/])(?:[A-Za-z]:)?(?:[/\\][^\s'\"`,;:)\]]+)+"), "<path>"),
    (re.compile(r"(?<![\w/])[\w.~-]+(?:/[\w.~^-]+){2,}"), "<path>"),
    (re.compile(r"'[^']*'"), "'...'"),
    (re.compile(r"\b\w+(?:\^\w*)+"), "<name>"),
)


def redacted(text: str) -> str:
    """Return text without paths, quoted values, identifiers, dates and names in DICOM's form.

    Commands between backquotes stay: they are this project's own words. Very long text is cut.
    """
    text = text[:_LONGEST]
    kept = _COMMAND.findall(text)
    parts = _COMMAND.split(text)
    clean = [_clean(part) for part in parts]
    commands = [*kept, ""]
    return "".join(part + command for part, command in zip(clean, commands, strict=True))


def _clean(text: str) -> str:
    for pattern, word in _PARTS:
        text = pattern.sub(word, text)
    return text
