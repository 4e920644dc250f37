"""From stored values of a radiograph to what a reader sees: modality, VOI and photometric steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut
from scipy.special import expit

from fedcac.imaging.coding import exclusion
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["presented"]

Floats = NDArray[np.float64]


def presented(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return the intensity that is displayed, 0 to 1, float32, the shape of `stored`; dense bright.

    Modality LUT or rescale, then the first VOI LUT, else the first window, else the image's own
    range without its padding; MONOCHROME1 is inverted (PS3.4 N.2, PS3.3 C.7.6.3.1.2, C.11.2).

    Raises
    ------
    DicomError
        `corrupt_pixels` if a window or LUT is malformed or every pixel has one value.
    """
    modality = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    tables = dataset.get("VOILUTSequence")
    if tables:
        shown = _look_up(modality, tables[0])
    elif dataset.get("WindowWidth") not in (None, ""):
        shown = _window(modality, dataset)
    else:
        shown = _own_range(modality, stored, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    if not np.isfinite(shown).all() or np.ptp(shown) == 0:
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "The radiograph shows nothing.")
    return shown.astype(np.float32)


def _first(value: Any) -> float:
    return float(value) if isinstance(value, (str, float, int)) else float(value[0])


def _window(values: Floats, dataset: Dataset) -> Floats:
    """Apply the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3), output 0 to 1."""
    center, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if (width < 1 and function == "LINEAR") or width <= 0:
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "The window has no width.")
    if function == "SIGMOID":
        return np.asarray(expit(4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if function != "LINEAR":
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "The VOI LUT function is unknown.")
    if width == 1:
        return np.asarray(values > center - 0.5, dtype=np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _look_up(values: Floats, table: Dataset) -> Floats:
    """Apply a VOI LUT (PS3.3 C.11.2.1.1): first value mapped, number of entries, bits per entry."""
    n_entries, first, n_bits = (int(number) for number in table.LUTDescriptor)
    n_entries = n_entries or 2**16
    entries = np.asarray(_entries(table.LUTData, n_bits))
    if entries.size < n_entries:
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "The VOI LUT is shorter than it says.")
    index = np.clip(values.round() - _signed(first, values), 0, n_entries - 1).astype(np.int64)
    return np.asarray(entries[index] / float(2**n_bits - 1))


def _entries(data: Any, n_bits: int) -> NDArray[Any]:
    if isinstance(data, bytes):
        # OW: words, or bytes for 8-bit entries that are stored one in each.
        return np.frombuffer(data, dtype="<u2" if n_bits > 8 else "u1")
    return np.asarray(data)


def _signed(first: int, values: Floats) -> int:
    # The descriptor is read as unsigned where the pixels are signed and the VR was lost.
    return first - 2**16 if first >= 2**15 and values.min() < 0 else first


def _own_range(values: Floats, stored: NDArray[Any], dataset: Dataset) -> Floats:
    padding = dataset.get("PixelPaddingValue")
    seen = values if padding is None else values[stored != padding]
    if seen.size == 0 or np.ptp(seen) == 0:
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "The radiograph has one value throughout.")
    shown: Floats = np.clip((values - seen.min()) / np.ptp(seen), 0, 1)
    return shown
