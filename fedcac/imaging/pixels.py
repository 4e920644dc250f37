"""What a data set claims of its pixels, checked before and after they are decoded.

Decoders trust the header: they drop bits that it does not declare, ignore bytes that it does not
need and allocate what a codestream claims. Each of these would change Hounsfield units silently or
let a small file take the memory of the machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from fedcac.imaging.coding import exclusion
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "MOST_VOXELS",
    "TRANSFER_SYNTAXES",
    "check_pixel_data",
    "check_size",
    "padding_values",
    "stored_values",
]

MOST_VOXELS = 2**30
"""More voxels than any exam here has (1024 slices of 1024 x 1024): a claim of more is a bomb."""

# What the required codecs decode bit by bit as other toolkits do. Baseline and extended JPEG
# (.50, .51, .53, .55) hold 8 bits, or 12 bits that no permissively licensed codec decodes.
TRANSFER_SYNTAXES = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEGLSNearLossless,
        JPEG2000Lossless,
        JPEG2000,
        RLELossless,
    }
)

# pydicom asks GDCM first, which takes half as long again for the same pixels. None of the codecs
# gives up the interpreter lock (measured per syntax), so threads do not help.
_FASTER_DECODERS = {JPEGLSLossless: "pyjpegls", JPEGLSNearLossless: "pyjpegls"}

_JPEG2000_START = b"\xff\x4f\xff\x51"
_JPEG_START = b"\xff\xd8"
# Start of frame: JPEG (ISO 10918-1, table B.1) without DHT, JPG and DAC; JPEG-LS (ISO 14495-1).
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


def check_size(datasets: Iterable[Dataset]) -> None:
    """Check that the frames of all data sets together are not more than `MOST_VOXELS`.

    Raises
    ------
    DicomError
        `too_large`.
    """
    n_voxels = sum(
        int(dataset.get("Rows") or 0)
        * int(dataset.get("Columns") or 0)
        * int(dataset.get("NumberOfFrames") or 1)
        for dataset in datasets
    )
    if n_voxels > MOST_VOXELS:
        raise exclusion(ExclusionReason.TOO_LARGE, "The header claims more voxels than an exam.")


def check_pixel_data(dataset: Dataset) -> None:
    """Check that there are pixels, in a transfer syntax that is decoded, as many as are claimed.

    Raises
    ------
    DicomError
        `unsupported_transfer_syntax`, `corrupt_pixels` or `truncated_dicom`.
    """
    if dataset.file_meta.get("TransferSyntaxUID") not in TRANSFER_SYNTAXES:
        raise exclusion(
            ExclusionReason.UNSUPPORTED_TRANSFER_SYNTAX,
            "The pixels are stored in a transfer syntax that is not decoded here.",
        )
    if not dataset.get("PixelData"):
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "An instance holds no pixel data.")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_codestreams(dataset)
        return
    n_samples = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
    n_bytes = -(-n_samples * dataset.SamplesPerPixel * dataset.BitsAllocated // 8)
    found = len(dataset.PixelData)
    if found < n_bytes:
        raise exclusion(ExclusionReason.TRUNCATED_DICOM, "A file ends inside its pixel data.")
    # PS3.5 8.1.1: one byte pads an odd length. More means that rows, columns or bits are wrong.
    if found > n_bytes + n_bytes % 2:
        raise exclusion(
            ExclusionReason.CORRUPT_PIXELS, "There are more pixels than rows and columns hold."
        )


def _check_codestreams(dataset: Dataset) -> None:
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    is_rle = dataset.file_meta.TransferSyntaxUID == RLELossless
    for frame in generate_frames(dataset.PixelData, number_of_frames=n_frames):
        claimed = _claimed_shape(frame)
        fits = claimed in (None, (dataset.Rows, dataset.Columns))
        if is_rle:
            fits = _fits_rle(frame, dataset.Rows * dataset.Columns)
        if not fits:
            raise exclusion(
                ExclusionReason.CORRUPT_PIXELS,
                "A compressed frame has other rows and columns than its header.",
            )


def _claimed_shape(frame: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) of a JPEG family codestream; None where it states none."""
    if frame.startswith(_JPEG2000_START):
        # ISO 15444-1 A.5.1: Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz.
        right, lower, left, upper = struct.unpack_from(">4I", frame, 8)
        return lower - upper, right - left
    if not frame.startswith(_JPEG_START):
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _JPEG_FRAMES:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return rows, columns
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def _fits_rle(frame: bytes, n_pixels: int) -> bool:
    """Say whether the first RLE segment holds a byte for each pixel and no more (PS3.5 G.3)."""
    n_segments, start, following = struct.unpack_from("<3L", frame)
    segment = memoryview(frame)[start : following if n_segments > 1 else len(frame)]
    length, at, end = 0, 0, len(segment)
    while at < end:
        control = segment[at]
        if control < 128:
            at += control + 2
            # A byte that pads the segment looks like a literal run that is cut off.
            length += control + 1 if at <= end else 0
        elif control > 128 and at + 2 <= end:
            at, length = at + 2, length + 257 - control
        else:
            at += 1
    return length == n_pixels


def stored_values(dataset: Dataset) -> NDArray[Any]:
    """Return the decoded stored values of an instance, shape (rows, columns) or (frames, ...).

    Raises
    ------
    DicomError
        `corrupt_pixels` if a value other than PixelPaddingValue needs more bits than BitsStored
        declares: which are meant cannot be known, and dropping the others would wrap it around.
    """
    stored = _decode(dataset, correct_unused_bits=False)
    n_bits = int(dataset.BitsStored)
    is_signed = bool(dataset.PixelRepresentation)
    low, high = (-(1 << (n_bits - 1)), (1 << (n_bits - 1)) - 1) if is_signed else (0, 2**n_bits - 1)
    least, most = int(stored.min()), int(stored.max())
    if low <= least and most <= high:
        return stored
    # A codec stores a signed value without its sign extension; old overlays share the word.
    is_codec_zero_filled = (
        dataset.file_meta.TransferSyntaxUID.is_encapsulated
        and is_signed
        and low <= least
        and most < 2**n_bits
    )
    if not is_codec_zero_filled and _is_padding_alone(stored, low, high, dataset):
        return stored
    if is_codec_zero_filled or _has_embedded_overlay(dataset):
        return _decode(dataset, correct_unused_bits=True)
    raise exclusion(
        ExclusionReason.CORRUPT_PIXELS, "Stored values need more bits than BitsStored declares."
    )


def padding_values(dataset: Dataset) -> tuple[int, ...]:
    """Return PixelPaddingValue (0028,0120) as the pixels hold it; empty where absent.

    Its VR is that of the pixels, but a signed value is often written as unsigned and the other
    way round: both readings count.
    """
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return ()
    span = 1 << int(dataset.BitsAllocated)
    return tuple({int(value), int(value) % span, int(value) % span - span})


def _is_padding_alone(stored: NDArray[Any], low: int, high: int, dataset: Dataset) -> bool:
    declared = padding_values(dataset)
    beyond = stored[(stored < low) | (stored > high)]
    return bool(declared) and bool(np.isin(beyond, declared).all())


def _has_embedded_overlay(dataset: Dataset) -> bool:
    # Overlay Bit Position (60xx,0102), retired: the overlay lies in the unused bits of the pixels.
    groups = range(0x6000, 0x6020, 2)
    return any((group, 0x0102) in dataset and dataset[group, 0x0102].value for group in groups)


def _decode(dataset: Dataset, *, correct_unused_bits: bool) -> NDArray[Any]:
    stored: NDArray[Any]
    plugin = _FASTER_DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    if plugin is not None:
        try:
            stored = pixel_array(
                dataset, decoding_plugin=plugin, correct_unused_bits=correct_unused_bits
            )
        except (RuntimeError, ValueError):
            # What one codec cannot read or is not installed for, another may.
            stored = pixel_array(dataset, correct_unused_bits=correct_unused_bits)
    else:
        stored = pixel_array(dataset, correct_unused_bits=correct_unused_bits)
    return stored
