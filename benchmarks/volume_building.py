"""`python -m benchmarks.volume_building`: a series to a volume, against other readers.

The others are highdicom, SimpleITK and MONAI's LoadImage with its PydicomReader. Reading from disk
is included. What is timed of ours is `load_volume` with every check of a series that it makes; the
others check next to nothing. All must give the same voxels, and MONAI the same geometry, or there
is no benchmark. Where SimpleITK is missing, its row says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from monai.data import PydicomReader
from monai.transforms import LoadImage
from numpy.typing import NDArray

from benchmarks.side_by_side import OURS, Case, Spread, record, time_in_turn, write_tables
from fedcac.imaging import PADDING_HU, build_volume, load_volume, read_series
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria

__all__ = ["HIGHDICOM_NAME", "MONAI_NAME", "SIMPLEITK_NAME", "volume_cases", "volume_ratios"]

HIGHDICOM_NAME = "volume_building_speed_relative_to_highdicom"
SIMPLEITK_NAME = "volume_building_speed_relative_to_simpleitk"
MONAI_NAME = "volume_building_speed_relative_to_monai"

_ROUNDS = 15
_HIGHDICOM, _SIMPLEITK = "highdicom", "SimpleITK"
_MONAI = "MONAI PydicomReader"
_SAME_MM = 1e-3

Array = NDArray[np.float32]


def _ours(folder: Path) -> Array:
    return load_volume(folder, ImageCriteria()).hu


def _highdicom(folder: Path) -> Array:
    datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    array: Array = hd.get_volume_from_series(datasets, dtype=np.float32).array
    return array


def _simpleitk(folder: Path) -> Array:
    sitk: Any = importlib.import_module("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    array: Array = sitk.GetArrayFromImage(sitk.Cast(reader.Execute(), sitk.sitkFloat32))
    return array


def _monai_image(folder: Path) -> Any:
    with warnings.catch_warnings():
        # MONAI says that there is no GPU decoder.
        warnings.simplefilter("ignore")
        return LoadImage(reader=PydicomReader(), image_only=True)(str(folder))


def _monai(folder: Path) -> Array:
    # MONAI has (columns, rows, slices).
    array: Array = np.asarray(_monai_image(folder)).transpose(2, 1, 0)
    return array


def _uncompressed(source: Path, target: Path) -> Path:
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.decompress(generate_instance_uid=False)
        dataset.save_as(target / path.name)
    return target


def _check_same(folder: Path, readers: dict[str, Callable[[Path], Array]]) -> None:
    ours = _ours(folder)
    for name, read in readers.items():
        clipped = np.maximum(read(folder), np.float32(PADDING_HU))
        # SimpleITK stacks from inferior to superior.
        if not np.array_equal(ours, clipped[::-1] if name == _SIMPLEITK else clipped):
            raise RuntimeError(f"{name} gives other voxels")


def _check_geometry(folder: Path) -> None:
    volume = load_volume(folder, ImageCriteria())
    # MONAI's affine maps to RAS.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(_monai_image(folder).affine)
    increment_mm, row_mm, column_mm = volume.spacing_mm
    expected = np.diag([column_mm, row_mm, -increment_mm, 1.0])
    expected[:3, 3] = volume.origin_lps_mm
    if not np.allclose(affine, expected, rtol=0, atol=_SAME_MM):
        raise RuntimeError(f"MONAI gives another geometry: {affine.tolist()}")


def volume_cases() -> tuple[Case, ...]:
    """Time the shipped series as it is (JPEG-LS) and uncompressed, then highdicom's call alone.

    Raises
    ------
    RuntimeError
        If two readers give different voxels, or MONAI another geometry.
    """
    readers: dict[str, Callable[[Path], Array]] = {
        OURS: _ours,
        _HIGHDICOM: _highdicom,
        _MONAI: _monai,
    }
    absent: tuple[str, ...] = (_SIMPLEITK,)
    if importlib.util.find_spec(_SIMPLEITK) is not None:
        readers[_SIMPLEITK], absent = _simpleitk, ()
    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            "read and build, JPEG-LS": chest_ct_folder(),
            "read and build, uncompressed": _uncompressed(chest_ct_folder(), Path(scratch)),
        }
        for name, folder in folders.items():
            _check_same(folder, readers)
            _check_geometry(folder)
            contenders = {
                reader: lambda read=read, folder=folder: lambda: read(folder)
                for reader, read in readers.items()
            }
            cases.append(time_in_turn(name, contenders, n_rounds=_ROUNDS, absent=absent))
        for name, folder in folders.items():
            # SimpleITK and MONAI cannot build without reading.
            cases.append(_build_alone(name.replace("read and build", "build alone"), folder))
    return tuple(cases)


def _build_alone(name: str, folder: Path) -> Case:
    def ours() -> Callable[[], object]:
        series = read_series(folder, ImageCriteria())
        return lambda: build_volume(series)

    def highdicom() -> Callable[[], object]:
        # Fresh data sets: pydicom keeps what it once decoded.
        datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        return lambda: hd.get_volume_from_series(datasets, dtype=np.float32)

    return time_in_turn(name, {OURS: ours, _HIGHDICOM: highdicom}, n_rounds=_ROUNDS)


def volume_ratios() -> dict[str, Spread]:
    """Write the tables; return the ratios of the shipped series, by name, of what is installed."""
    cases = volume_cases()
    write_tables(
        "volume_building",
        "Volume of a 64-slice chest CT, 512 x 512",
        cases,
        ("fedcac", "highdicom", "pydicom", "pyjpegls", "SimpleITK", "monai", "numpy"),
        f"{_ROUNDS} rounds, contenders in turn within each, files in the cache of the system. "
        "`fedcac` is `load_volume` with all its checks (or `build_volume`, where reading is left "
        "out); `highdicom` is `dcmread` of every file and `get_volume_from_series`; `SimpleITK` is "
        "`ImageSeriesReader` over the files that GDCM sorts, cast to float32; `MONAI "
        "PydicomReader` is `LoadImage` of the folder (its ITKReader needs itk and is not timed). "
        "All give the same voxels in Hounsfield units, and "
        f"MONAI's affine is our geometry to {_SAME_MM:g} mm. JPEG-LS is decoded by "
        "CharLS in all of them; none of the installed decoders gives up the interpreter lock, so "
        "no threads are used.",
    )
    shipped = cases[0]
    names = {_HIGHDICOM: HIGHDICOM_NAME, _SIMPLEITK: SIMPLEITK_NAME, _MONAI: MONAI_NAME}
    return {
        names[contender]: shipped.ratios_to(contender)
        for contender in shipped.seconds
        if contender != OURS
    }


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark and return what `benchmarks` records."""
    return {"ratios": volume_ratios()}


def main() -> None:
    """Run this benchmark alone and put its ratios among the recorded results."""
    record("ratios", volume_ratios())


if __name__ == "__main__":
    main()
