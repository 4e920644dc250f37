"""The exception tree: the exit code an operator sees and the code that may be logged.

Every error says what happened, why, and what to do (`cure`). Text stays on the machine where the
error arose: only `code` may travel, because a message can quote a value from a patient's record.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DAMAGED_YAML",
    "CohortError",
    "DicomError",
    "FedcacError",
    "GateError",
    "IntegrityError",
    "PackageError",
    "PolicyError",
    "ProtocolError",
    "ResourceError",
    "RoundError",
    "SignatureError",
    "TableError",
    "UsageError",
    "all_error_types",
]


DAMAGED_YAML = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What PyYAML lets out beside its own errors: odd numbers, dates, escapes, depth, no UTF-8."""


class FedcacError(Exception):
    """Base of every error this project raises on purpose.

    `code` is a stable, documented, dotted word such as `protocol.unknown_key`; `cure` says what
    the operator can do; `exit_code` is what a command line ends with.
    """

    exit_code: ClassVar[int] = 1
    family: ClassVar[str] = "internal"

    def __init__(self, message: str, *, code: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = f"{self.family}.{code}"
        self.cure = cure

    def __str__(self) -> str:
        text = f"{self.message} [{self.code}]"
        return f"{text}\n  What to do: {self.cure}" if self.cure else text


class UsageError(FedcacError):
    """The command line was called with arguments that cannot be meant."""

    exit_code = 2
    family = "usage"


class ProtocolError(FedcacError):
    """A protocol is malformed, inconsistent, expired or rolled back."""

    exit_code = 3
    family = "protocol"


class SignatureError(FedcacError):
    """An envelope is unsigned, altered, or signed by a key that is not trusted here."""

    exit_code = 4
    family = "signature"


class PackageError(FedcacError):
    """A model package does not agree with its manifest, its architecture or its golden case."""

    exit_code = 5
    family = "package"


class CohortError(FedcacError):
    """A site's cohort cannot be built, for example because no exam pair is eligible."""

    exit_code = 6
    family = "cohort"


class DicomError(CohortError):
    """A DICOM object cannot become a volume; `code` names the exclusion reason."""

    family = "dicom"


class TableError(FedcacError):
    """A site table or manifest lacks a column or holds a value that cannot be used."""

    exit_code = 7
    family = "table"


class PolicyError(FedcacError):
    """A disclosure policy is missing, unreadable or holds an unknown key: nothing may leave."""

    exit_code = 8
    family = "policy"


class GateError(FedcacError):
    """Something tried to leave by another way than a registered aggregate."""

    exit_code = 9
    family = "gate"


class RoundError(FedcacError):
    """A round is not in the state that the request needs."""

    exit_code = 10
    family = "round"


class IntegrityError(FedcacError):
    """Stored state contradicts itself: a broken hash chain, or a changed frozen cohort."""

    exit_code = 11
    family = "integrity"


class ResourceError(FedcacError):
    """The machine lacks what the work needs: room on a disk, rights, or a free database."""

    exit_code = 12
    family = "resource"


def all_error_types() -> tuple[type[FedcacError], ...]:
    """Return every error type of the tree: each must be documented, those of other modules too."""
    found: list[type[FedcacError]] = []
    queue: list[type[FedcacError]] = [FedcacError]
    while queue:
        error_type = queue.pop(0)
        found.append(error_type)
        queue.extend(error_type.__subclasses__())
    return tuple(found)
