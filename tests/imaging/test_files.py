"""Which files of a folder are instances: nothing that was one is passed over without a word."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from imaging.corruptions import CORRUPTIONS
from imaging.generated import make_series, write_series

from fedcac.errors import DicomError
from fedcac.imaging import load_volume, read_series, reason_of
from fedcac.imaging.files import find_instances, locate_series
from fedcac.protocol import ImageCriteria

CRITERIA = ImageCriteria()


def without_suffix(folder: Path) -> Path:
    for path in folder.glob("*.dcm"):
        path.rename(path.with_suffix(""))
    return folder


def series(folder: Path) -> Path:
    return write_series(folder / "series", make_series(np.random.default_rng(6)))


def code_of(folder: Path) -> str:
    with pytest.raises(DicomError) as caught:
        load_volume(folder, CRITERIA)
    return reason_of(caught.value).value


@pytest.mark.parametrize(
    "content", [b"", bytes(60), bytes(132), bytes(5000)], ids=["empty", "60", "132", "5000"]
)
@pytest.mark.parametrize("which", [0, -1])
def test_a_first_or_last_slice_that_is_damaged_is_not_passed_over(
    tmp_path: Path, content: bytes, which: int
) -> None:
    """A missing end slice leaves no gap: the rest would be a sound, shorter series."""
    for folder in (series(tmp_path / "a"), without_suffix(series(tmp_path / "b"))):
        sorted(folder.iterdir())[which].write_bytes(content)
        assert code_of(folder) in ("unreadable_dicom", "truncated_dicom")


def test_strays_are_counted_and_ignored(tmp_path: Path) -> None:
    folder = without_suffix(series(tmp_path))
    (folder / ".done").write_bytes(b"")
    (folder / "transfer.log").write_bytes(b"")
    (folder / "README").write_text("Exported by the archive.")
    (folder / "preview.png").write_bytes(bytes(200))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "hollow").mkdir()
    found = read_series(folder, CRITERIA)
    assert (len(found.frames), found.n_ignored) == (16, 5)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    folder = series(tmp_path)
    whole = load_volume(folder, CRITERIA).hu
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in sorted(folder.iterdir())[8:]:
        path.rename(outside / path.name)
    (folder / "rest").symlink_to(outside)
    (folder / "again").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (outside / "back").symlink_to(tmp_path)
    assert np.array_equal(load_volume(folder, CRITERIA).hu, whole)


@pytest.mark.parametrize("name", ["gone.dcm", "pipe.dcm"])
def test_a_dangling_link_or_pipe_called_dicom_is_coded(tmp_path: Path, name: str) -> None:
    folder = series(tmp_path)
    if name == "pipe.dcm":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(tmp_path / "nowhere")
    assert code_of(folder) == "unreadable_dicom"


def test_a_folder_that_cannot_be_listed_is_coded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the superuser reads everything, the system's refusal is played here."""
    folder = series(tmp_path)
    (folder / "closed").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DicomError) as caught:
        find_instances(folder)
    assert reason_of(caught.value).value == "unreadable_dicom"
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["truncated_header", "truncated_pixels", "overwritten_with_zeros", "zero_length"]
)
@pytest.mark.parametrize("seed", range(4))
def test_damage_is_coded_without_suffixes_too(tmp_path: Path, name: str, seed: int) -> None:
    folder = series(tmp_path)
    CORRUPTIONS[name].damage(folder, np.random.default_rng(seed))
    assert code_of(without_suffix(folder)) in CORRUPTIONS[name].codes


@pytest.mark.parametrize(
    ("name", "is_uid"),
    [
        ("1.2.840.113619.2.55", True),
        ("2.25.123456789", True),
        ("1.2.3", False),
        ("3.25.123456789", False),
        ("1.02.840.113619", False),
        ("1." + "2" * 70 + ".3", False),
        ("series1.2.840.11", False),
    ],
)
def test_what_counts_as_the_name_of_a_series(tmp_path: Path, name: str, is_uid: bool) -> None:
    path = tmp_path / name
    assert locate_series(path) == ((tmp_path, name) if is_uid else (path, None))
    path.mkdir()
    assert locate_series(path) == (path, None)
