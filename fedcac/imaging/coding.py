"""From any failure on a bad DICOM object to one documented exclusion reason."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fedcac.errors import DicomError
from fedcac.vocabulary import ExclusionReason

__all__ = ["CURES", "coded", "exclusion", "reason_of", "silent", "told_reason"]

# Both libraries quote attribute values, which can be identifiers, in their log messages. A logger
# without a handler would write its warnings to standard error.
for _library in ("pydicom", "highdicom"):
    logging.getLogger(_library).propagate = False
    logging.getLogger(_library).addHandler(logging.NullHandler())

CURES: dict[ExclusionReason, str] = {
    ExclusionReason.NO_SUCH_PATH: "Correct the path, or mount the folder that holds the series.",
    ExclusionReason.NO_DICOM: "Give the folder that holds the instances of one series.",
    ExclusionReason.UNREADABLE_DICOM: "Fetch the series again from the archive.",
    ExclusionReason.TRUNCATED_DICOM: "Fetch the series again: a file ends too early.",
    ExclusionReason.CORRUPT_PIXELS: "Fetch the series again with its pixel data.",
    ExclusionReason.MIXED_SERIES: "Put every series into a folder of its own.",
    ExclusionReason.SERIES_NOT_FOUND: "Correct the series UID in the manifest.",
    ExclusionReason.DUPLICATE_INSTANCE: "Export the series again: its identifiers are not unique.",
    ExclusionReason.TOO_LARGE: "Look at the file: it is damaged, hostile, or no CT exam.",
    ExclusionReason.WRONG_MODALITY: "Choose a series of the modality that the protocol reads.",
    ExclusionReason.WRONG_ACQUISITION: "Choose the series that the protocol asks for.",
    ExclusionReason.WRONG_BODY_PART: "Choose the chest radiograph.",
    ExclusionReason.WRONG_VIEW: "Choose the frontal view.",
    ExclusionReason.NOT_FOR_PRESENTATION: "Export the radiograph for presentation.",
    ExclusionReason.LOCALIZER: "Choose the axial series instead of the scout.",
    ExclusionReason.DERIVED_IMAGE: "Choose the original axial reconstruction.",
    ExclusionReason.CONTRAST_ENHANCED: "Choose the series without contrast agent.",
    ExclusionReason.SHARP_KERNEL: "Choose the soft-kernel reconstruction of the acquisition.",
    ExclusionReason.UNSUPPORTED_TRANSFER_SYNTAX: "Export the series uncompressed or lossless.",
    ExclusionReason.MISSING_SLICE: "Fetch the series again: slices are missing.",
    ExclusionReason.SEVERAL_PHASES: "Export one phase or acquisition as a series of its own.",
    ExclusionReason.DUPLICATE_POSITION: "Export one phase or acquisition as a series of its own.",
}


def exclusion(reason: ExclusionReason, message: str) -> DicomError:
    """Return the error of an exclusion; its message names no patient, identifier or path."""
    cure = CURES.get(reason, "Choose another series of the exam, or accept the exclusion.")
    return DicomError(message, code=reason.value, cure=cure)


def reason_of(error: DicomError) -> ExclusionReason:
    """Return the exclusion reason that an error of this package carries."""
    return ExclusionReason(error.code.removeprefix(f"{DicomError.family}."))


def told_reason(reasons: Iterable[ExclusionReason]) -> ExclusionReason:
    """Return the one reason that is told of several candidates, of which none is eligible.

    The last in the order of `ExclusionReason`, which runs from what is no exam to what is nearly
    one: of a scout, a dose report and a chest CT with a gap the gap is told.
    """
    return max(reasons, key=list(ExclusionReason).index)


@contextmanager
def silent() -> Iterator[None]:
    """Silence the warnings of the body: those of a library can quote the header of its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def coded(reason: ExclusionReason, message: str) -> Iterator[None]:
    """Turn any exception of the body other than DicomError into an exclusion.

    Warnings of the body are silenced: they quote values of the header.
    """
    with silent():
        try:
            yield
        except DicomError:
            raise
        # A hostile or damaged file can raise anything in a parser or codec; what escaped here
        # would stop a whole cohort. The cause stays chained for the operator's debugger.
        except Exception as error:
            raise exclusion(reason, f"{message} ({type(error).__name__}).") from error
