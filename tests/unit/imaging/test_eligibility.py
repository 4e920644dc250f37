"""What consoles write into attributes that decide: contrast that was none, copies that are not."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from fedcac.errors import DicomError
from fedcac.imaging.eligibility import check_content, has_contrast
from fedcac.imaging.frames import Frame
from fedcac.protocol import ImageCriteria


@pytest.mark.parametrize(
    "agent",
    [
        *("", " ", "NONE", "None", "no", "N/A", "0", "-", "No contrast", "WITHOUT", "W/O CONTRAST"),
        *("non-contrast", "Ohne KM", "ohne Kontrastmittel", "sans injection", "sin contraste"),
        *("senza mdc", "nativ", "unenhanced", "Not given"),
    ],
)
def test_an_agent_that_was_none(agent: str) -> None:
    dataset = Dataset()
    dataset.ContrastBolusAgent = agent
    assert not has_contrast(dataset)


@pytest.mark.parametrize(
    "agent",
    [
        *("Omnipaque 350", "IV", "Nonionic", "CE", "APPLIED", "Ultravist", "yes", "KM", "contrast"),
        *("no oral contrast, IV Isovue", "NOVIST", "100 ml", "?", "UNKNOWN"),
    ],
)
def test_an_agent_that_may_have_been_given(agent: str) -> None:
    dataset = Dataset()
    dataset.ContrastBolusAgent = agent
    assert has_contrast(dataset)


def outcome(*image_type: str) -> str:
    dataset = Dataset()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    frame = Frame(
        orientation=(1, 0, 0, 0, 1, 0),
        position_lps_mm=(0, 0, 0),
        pixel_spacing_mm=(1, 1),
        thickness_mm=3,
        kvp=120,
        increment_mm=3,
        image_type=image_type,
        kernel="B",
        rescale=(1, -1024),
        rescale_type="HU",
    )
    try:
        check_content([dataset], [frame], ImageCriteria())
    except DicomError as error:
        return error.code
    return "accepted"


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"), "accepted"),
        (("ORIGINAL", "PRIMARY", "AXIAL", "LOSSY COMPRESSED"), "accepted"),
        ((), "accepted"),
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), "dicom.localizer"),
        (("ORIGINAL", "SECONDARY", "MPR"), "dicom.derived_image"),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CSA MPR_THICK"), "dicom.derived_image"),
        (("ORIGINAL", "PRIMARY", "3DMIP"), "dicom.derived_image"),
        (("DERIVED", "PRIMARY", "AXIAL"), "dicom.derived_image"),
    ],
)
def test_image_types(image_type: tuple[str, ...], expected: str) -> None:
    assert outcome(*image_type) == expected
