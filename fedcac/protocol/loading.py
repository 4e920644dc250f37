"""Protocols from YAML, with every problem named by line, key and cure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fedcac.canonical import canonical_bytes
from fedcac.errors import ProtocolError
from fedcac.protocol.schema import Protocol

__all__ = ["Problem", "load_protocol", "parse_protocol"]

_MAXIMUM_BYTES = 1_000_000
_MOST_PROBLEMS = 50
_Location = tuple[str | int, ...]

# The one way to write a number. YAML 1.1 also reads 010 as 8, 1:30 as 90 and 1_0 as 10, which a
# reviewer of a signed plan would not. Longer integers are no quantity of a protocol.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,15})")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")

_CODES = {
    "extra_forbidden": "unknown_key",
    "missing": "missing_key",
    "inconsistent": "inconsistent",
    "value_error": "inconsistent",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (line, key path), what, and what to do."""

    line: int
    path: str
    code: str
    message: str
    cure: str = ""

    def __str__(self) -> str:
        text = f"line {self.line}: {self.path}: {self.message}"
        return f"{text} ({self.cure})" if self.cure else text


def load_protocol(path: Path) -> Protocol:
    """Read a protocol file.

    Raises
    ------
    ProtocolError
        With every problem of the file, each with its line; the code is the first problem's.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProtocolError(
            f"{path} cannot be read.", code="not_found", cure="Check the path."
        ) from error
    if len(content) > _MAXIMUM_BYTES:
        raise ProtocolError(f"{path} is larger than a protocol can be.", code="too_large")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProtocolError(
            f"{path} is not UTF-8 text.", code="not_yaml", cure="Save it as UTF-8."
        ) from error
    return parse_protocol(text, str(path))


def parse_protocol(text: str, source: str = "protocol") -> Protocol:
    """Read a protocol from YAML text; see `load_protocol`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        reason = getattr(error, "problem", None) or "unreadable"
        raise ProtocolError(
            f"{source} is not YAML: {where}{reason}",
            code="not_yaml",
            cure="Mind indentation, colons and quotes near that line.",
        ) from error
    except (ValueError, OverflowError) as error:
        # PyYAML's own, at an escape beyond Unicode.
        raise ProtocolError(
            f"{source} is not YAML: a character that does not exist",
            code="not_yaml",
            cure="Write the character itself instead of its number.",
        ) from error
    except RecursionError as error:
        raise ProtocolError(
            f"{source} is nested far deeper than a protocol.",
            code="not_yaml",
            cure="Start from a shipped protocol: `fedcac protocol show`.",
        ) from error
    if not isinstance(node, yaml.MappingNode):
        raise ProtocolError(
            f"{source} is empty or not a mapping of keys.",
            code="not_yaml",
            cure="Start from a shipped protocol: `fedcac protocol show`.",
        )
    lines: dict[_Location, int] = {}
    # First: an alias may stand for what holds it, and then the walk over keys has no end.
    problems = list(_structural_problems(text)) or list(_duplicate_keys(node))
    document = _plain(node, (), lines, problems) if not problems else None
    n_problems = len(problems)
    if not problems:
        try:
            return Protocol.model_validate_json(canonical_bytes(document))
        except ValidationError as error:
            # Looking for what a key may have meant takes time, and nobody mends a thousand.
            details, n_problems = error.errors()[:_MOST_PROBLEMS], error.error_count()
            problems = [_problem_of(detail, lines) for detail in details]
    problems = problems[:_MOST_PROBLEMS]
    listed = "\n".join(f"  {problem}" for problem in sorted(problems, key=lambda p: p.line))
    if n_problems > len(problems):
        listed += f"\n  and {n_problems - len(problems)} more"
    raise ProtocolError(
        f"{source} has {n_problems} problem{'s' if n_problems > 1 else ''}:\n{listed}",
        code=min(problems, key=lambda problem: problem.line).code,
        cure="Mend the lines above; `fedcac protocol schema` prints every key and its type.",
    )


def _structural_problems(text: str) -> Iterator[Problem]:
    # A signed plan has one reading: what an alias or a tag expands to cannot be seen in a review.
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
            yield Problem(
                token.start_mark.line + 1,
                "anchor, alias or tag",
                "not_plain",
                "anchors, aliases and tags are not allowed",
                "write the value out",
            )


def _duplicate_keys(node: yaml.Node) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicate_keys(item)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                yield Problem(line, "key", "not_plain", "a key is not a word", "write a word")
                continue
            if key.value in seen:
                yield Problem(
                    line,
                    str(key.value),
                    "duplicate_key",
                    f"the key stands on line {seen[key.value]} already",
                    "keep one of them",
                )
            seen[key.value] = line
            yield from _duplicate_keys(value)


def _plain(
    node: yaml.Node, location: _Location, lines: dict[_Location, int], problems: list[Problem]
) -> Any:
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        document = {}
        for key, value in node.value:
            inner = (*location, str(key.value))
            document[str(key.value)] = _plain(value, inner, lines, problems)
            lines[inner] = key.start_mark.line + 1
            _require_text(str(key.value), lines[inner], inner, problems)
        return document
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(item, (*location, index), lines, problems)
            for index, item in enumerate(node.value)
        ]
    return _scalar(node, location, problems)


def _scalar(
    node: yaml.Node, location: _Location, problems: list[Problem]
) -> str | int | float | bool | None:
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "float" and _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    line = node.start_mark.line + 1
    if kind in ("int", "float"):
        message = "not a finite number in plain decimal form"
        cure = "write digits and a decimal point, or quote it if it is text"
        problems.append(Problem(line, _path_of(location), "bad_value", message, cure))
        return None
    _require_text(text, line, location, problems)
    # YAML 1.1 reads 2020-01-01 as a date; a protocol has no such type.
    return text


def _require_text(text: str, line: int, location: _Location, problems: list[Problem]) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # The escaped path keeps the message itself printable.
        path = _path_of(location).encode("ascii", "backslashreplace").decode("ascii")
        message = "half of a surrogate pair is no character"
        problems.append(Problem(line, path, "bad_value", message, "write the character itself"))


def _path_of(location: _Location) -> str:
    return ".".join(str(part) for part in location) or "the protocol"


def _problem_of(detail: Any, lines: dict[_Location, int]) -> Problem:
    stated: _Location = tuple(detail.get("ctx", {}).get("at", ()))
    location = stated or _without_kind(tuple(detail["loc"]))
    known = location
    while known and known not in lines:
        known = known[:-1]
    path = _path_of(location)
    code = _CODES.get(detail["type"], "bad_value")
    if detail["type"].endswith("_type"):
        code = "wrong_type"
    message = re.sub(r"^Value error, ", "", detail["msg"])
    cure = ""
    if code == "unknown_key":
        message = "unknown key"
        cure = _suggest(str(location[-1])) if location else ""
    elif code == "missing_key":
        message, cure = "this key is missing", "add it"
    return Problem(lines.get(known, 1), path, code, message, cure)


def _without_kind(location: _Location) -> _Location:
    # pydantic names the chosen kind of an analysis inside the location: (analyses, 0, cox, ties).
    return (*location[:2], *location[3:]) if location[:1] == ("analyses",) else location


def _all_keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _all_keys(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _all_keys(value)


@cache
def _known_keys() -> frozenset[str]:
    return frozenset(_all_keys(Protocol.model_json_schema()))


def _suggest(key: str) -> str:
    near = difflib.get_close_matches(key, _known_keys(), n=1)
    return f"did you mean '{near[0]}'?" if near else "remove it"
