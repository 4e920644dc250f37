"""Named corruptions of a written series, each with the codes that it must end with.

What hospitals, networks, disks and converters do to a series. A corruption gets the folder of one
sound series (as `generated.write_series` writes it) and a random generator that picks the slice.
`SOUND` stands for a change that must not matter: the same volume comes out.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from imaging.generated import uid
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
)

SOUND = "sound"
_DAMAGED = ("truncated_dicom", "unreadable_dicom", "corrupt_pixels")

Damage = Callable[[Path, np.random.Generator], None]


@dataclass(frozen=True)
class Corruption:
    """A corruption, and the codes of which its exam must have one."""

    name: str
    codes: frozenset[str]
    damage: Damage


CORRUPTIONS: dict[str, Corruption] = {}


def _corrupts(*codes: str) -> Callable[[Damage], Damage]:
    def register(damage: Damage) -> Damage:
        name = damage.__name__
        CORRUPTIONS[name] = Corruption(name, frozenset(codes), damage)
        return damage

    return register


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


def _one(folder: Path, rng: np.random.Generator) -> Path:
    """A slice that is neither the first nor the last."""
    files = _files(folder)
    return files[int(rng.integers(1, len(files) - 1))]


def _edit(path: Path, **values: Any) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def _edit_all(folder: Path, **values: Any) -> None:
    for path in _files(folder):
        _edit(path, **values)


def _element_start(content: bytes, keyword: str) -> int:
    tag = Tag(keyword)
    at = content.find(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little"))
    assert at > 0
    return at


# Files


@_corrupts("truncated_dicom")
def truncated_pixels(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - int(rng.integers(2, 1000))])


@_corrupts(*_DAMAGED)
def truncated_header(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, _element_start(content, "PixelData")))])


@_corrupts(*_DAMAGED)
def zero_length(folder: Path, rng: np.random.Generator) -> None:
    _one(folder, rng).write_bytes(b"")


@_corrupts(*_DAMAGED)
def overwritten_with_zeros(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    path.write_bytes(bytes(path.stat().st_size))


@_corrupts("unreadable_dicom")
def text_called_dicom(folder: Path, rng: np.random.Generator) -> None:
    _one(folder, rng).write_text("Series exported by the archive.\n" * 30)


@_corrupts("unreadable_dicom")
def symlink_loop(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    path.unlink()
    path.symlink_to(path.name)


@_corrupts("unreadable_dicom")
def unreadable_permission(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    path.chmod(0)
    if os.access(path, os.R_OK):
        # The superuser may read everything; a pipe is what nobody can read as a file.
        path.unlink()
        os.mkfifo(path)


@_corrupts("no_dicom")
def only_a_dicomdir(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder):
        path.unlink()
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + rng.bytes(200))


@_corrupts("no_such_path")
def folder_gone(folder: Path, rng: np.random.Generator) -> None:
    shutil.rmtree(folder)


@_corrupts("too_large")
def deflate_bomb(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = deflater.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS))
    head += deflater.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block stands alone and can be repeated: 16 MiB each from 16 KiB.
    block = deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(content[:start] + head + 40 * block)


# Series


@_corrupts("duplicate_instance")
def duplicate_sop(folder: Path, rng: np.random.Generator) -> None:
    files = _files(folder)
    _edit(files[3], SOPInstanceUID=pydicom.dcmread(files[9]).SOPInstanceUID)


@_corrupts("mixed_series")
def second_series_in_the_folder(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), SeriesInstanceUID=uid(rng))


@_corrupts("mixed_series")
def slice_of_another_patient(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), PatientID="SOMEBODY-ELSE")


@_corrupts("too_few_slices")
def half_of_the_series(folder: Path, rng: np.random.Generator) -> None:
    files = _files(folder)
    for path in files[len(files) // 2 :]:
        path.unlink()


@_corrupts(SOUND)
def flipped_order(folder: Path, rng: np.random.Generator) -> None:
    files = _files(folder)
    for number, path in enumerate(files):
        _edit(path, InstanceNumber=len(files) - number)
    for number, path in enumerate(files):
        path.rename(folder / f"x{len(files) - number:03d}")


@_corrupts(SOUND)
def copied_slices(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder)[::3]:
        shutil.copyfile(path, folder / f"copy-{path.name}")


@_corrupts("several_phases")
def two_phases(folder: Path, rng: np.random.Generator) -> None:
    for number, path in enumerate(_files(folder)):
        dataset = pydicom.dcmread(path)
        dataset.TriggerTime = 350
        dataset.save_as(path, enforce_file_format=True)
        dataset.TriggerTime = 700
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(rng)
        dataset.PixelData = np.roll(dataset.pixel_array, 1, axis=0).tobytes()
        dataset.save_as(folder / f"b{number:02d}.dcm", enforce_file_format=True)


# Geometry


@_corrupts("missing_geometry")
def missing_position(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), ImagePositionPatient=None)


@_corrupts("missing_geometry")
def missing_orientation(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), ImageOrientationPatient=None)


@_corrupts("missing_geometry")
def nan_spacing(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder):
        content = path.read_bytes()
        at = _element_start(content, "PixelSpacing")
        length = int.from_bytes(content[at + 6 : at + 8], "little")
        value = b"nan\\nan".ljust(length)
        path.write_bytes(content[: at + 8] + value + content[at + 8 + length :])


@_corrupts("missing_geometry")
def negative_spacing(folder: Path, rng: np.random.Generator) -> None:
    _edit_all(folder, PixelSpacing=[-0.7, 0.7])


@_corrupts("gantry_tilt")
def gantry_tilt(folder: Path, rng: np.random.Generator) -> None:
    angle = np.radians(rng.uniform(3, 25))
    cosine, sine = (round(float(value), 6) for value in (np.cos(angle), np.sin(angle)))
    _edit_all(folder, ImageOrientationPatient=[1, 0, 0, 0, cosine, -sine])


@_corrupts("missing_slice")
def slice_gap(folder: Path, rng: np.random.Generator) -> None:
    files = _files(folder)
    files.pop(int(rng.integers(2, len(files) - 2)))
    # As many slices as before, so that it is the gap that is found.
    first = pydicom.dcmread(files[0])
    x, y, z = (float(value) for value in first.ImagePositionPatient)
    gone = next(path for path in _files(folder) if path not in files)
    _edit(gone, ImagePositionPatient=[x, y, z - 3.0])


@_corrupts("duplicate_position")
def two_slices_at_one_position(folder: Path, rng: np.random.Generator) -> None:
    files = _files(folder)
    _edit(files[5], ImagePositionPatient=pydicom.dcmread(files[6]).ImagePositionPatient)


@_corrupts("irregular_spacing")
def irregular_spacing(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    x, y, z = (float(value) for value in pydicom.dcmread(path).ImagePositionPatient)
    _edit(path, ImagePositionPatient=[x, y, round(z + 0.4, 3)])


# Header and pixels


@_corrupts("unreadable_dicom")
def wrong_vr(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder):
        content = bytearray(path.read_bytes())
        at = _element_start(content, "Rows")
        content[at + 4 : at + 6] = b"LO"
        path.write_bytes(content)


@_corrupts("corrupt_pixels")
def missing_pixel_data(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), PixelData=None)


@_corrupts("corrupt_pixels")
def wrong_rows(folder: Path, rng: np.random.Generator) -> None:
    rows = pydicom.dcmread(_files(folder)[0]).Rows
    _edit_all(folder, Rows=rows // 2)


@_corrupts("truncated_dicom")
def odd_length_pixels(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    content = path.read_bytes()
    at = _element_start(content, "PixelData")
    length = int.from_bytes(content[at + 8 : at + 12], "little") - 1
    path.write_bytes(content[: at + 8] + length.to_bytes(4, "little") + content[at + 12 : -1])


@_corrupts("not_hounsfield")
def zero_slope(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), RescaleSlope=0)


@_corrupts("not_hounsfield")
def missing_rescale(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), RescaleSlope=None, RescaleIntercept=None)


@_corrupts("not_hounsfield")
def wrong_photometric(folder: Path, rng: np.random.Generator) -> None:
    _edit(_one(folder, rng), PhotometricInterpretation="PALETTE COLOR")


@_corrupts("not_hounsfield")
def rgb(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    dataset = pydicom.dcmread(path)
    grey = dataset.pixel_array.astype(np.uint8)
    _edit(
        path,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelRepresentation=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelData=np.repeat(grey[..., None], 3, axis=2).tobytes(),
    )


@_corrupts("not_hounsfield")
def signed_overflow(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder):
        dataset = pydicom.dcmread(path)
        hu = dataset.pixel_array.astype(np.int16) + np.int16(dataset.RescaleIntercept)
        _edit(
            path,
            PixelRepresentation=0,
            BitsStored=16,
            HighBit=15,
            RescaleIntercept=0,
            PixelData=hu.tobytes(),
        )


@_corrupts("corrupt_pixels")
def bits_stored_lies(folder: Path, rng: np.random.Generator) -> None:
    _edit_all(folder, BitsStored=10, HighBit=9)


@_corrupts("missing_geometry")
def frames_without_functional_groups(folder: Path, rng: np.random.Generator) -> None:
    files = _files(folder)
    planes = [pydicom.dcmread(path).PixelData for path in files]
    for path in files[1:]:
        path.unlink()
    _edit(files[0], NumberOfFrames=len(planes), PixelData=b"".join(planes))


@_corrupts("wrong_modality")
def not_ct(folder: Path, rng: np.random.Generator) -> None:
    _edit_all(folder, Modality="MR", SOPClassUID=MRImageStorage)


@_corrupts("too_large")
def huge_claimed_size(folder: Path, rng: np.random.Generator) -> None:
    _edit_all(folder, Rows=65535, Columns=65535)


# Transfer syntaxes


def _encapsulated(path: Path, syntax: str, frame: bytes) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


@_corrupts("unsupported_transfer_syntax")
def private_transfer_syntax(folder: Path, rng: np.random.Generator) -> None:
    path = _one(folder, rng)
    content = path.read_bytes()
    public = ExplicitVRLittleEndian.encode() + b"\0"
    private = b"1.2.840.113619.5.2.9"[: len(public)]
    assert content.count(public) == 1
    path.write_bytes(content.replace(public, private.ljust(len(public), b"\0")))


@_corrupts("corrupt_pixels")
def jpeg_garbage(folder: Path, rng: np.random.Generator) -> None:
    _encapsulated(_one(folder, rng), JPEGLosslessSV1, b"\xff\xd8" + rng.bytes(400))


@_corrupts("corrupt_pixels")
def codestream_of_another_size(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.Rows *= 2
        dataset.save_as(path, enforce_file_format=True)


@_corrupts("unsupported_transfer_syntax")
def lossy_jpeg(folder: Path, rng: np.random.Generator) -> None:
    for path in _files(folder):
        _encapsulated(path, JPEGBaseline8Bit, b"\xff\xd8" + rng.bytes(300) + b"\xff\xd9")
