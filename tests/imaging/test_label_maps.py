"""NIfTI label maps: the same mask as a SEG gives the same score, and what is refused."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from imaging.test_reference_scores import PROFILE, Exam, pairing, protocol, segmentation, table
from numpy.typing import NDArray

from fedcac.errors import CohortError, FedcacError, UsageError
from fedcac.imaging import parse_labels, read_label_map
from fedcac.scoring import score_volume
from fedcac.signing import SigningKey
from fedcac.vocabulary import VESSEL_UNKNOWN, Vessel
from site_agent.exams.dicom_source import DicomFiles, check_cohort
from site_agent.exams.reference_scores import reference_score_from_annotation, score_references
from site_agent.settings import SiteFolder, SiteSettings, create_site_folder
from site_agent.state.store import SiteStore

NAMED = parse_labels("1=lm, 2=lad 3=lcx,4=rca")
CALCIUM = parse_labels("calcium")
Labels = NDArray[Any]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    return Exam(tmp_path_factory.mktemp("exam"), 8)


def ras_affine(exam: Exam) -> NDArray[np.float64]:
    """Voxel (column, row, slice) of the volume to RAS millimetres, written out by hand."""
    increment, row_mm, column_mm = exam.volume.spacing_mm
    x, y, z = exam.volume.origin_lps_mm
    return np.array(
        [
            [-column_mm, 0, 0, -x],
            [0, -row_mm, 0, -y],
            [0, 0, -increment, z],
            [0, 0, 0, 1],
        ]
    )


def write(
    path: Path,
    exam: Exam,
    labels: Labels | None = None,
    *,
    affine: NDArray[np.float64] | None = None,
    kind: Any = nib.Nifti1Image,
    change: Callable[[Any], None] | None = None,
) -> Path:
    """Write a map of the volume's shape as (column, row, slice), the usual order of NIfTI."""
    labels = exam.mask if labels is None else labels
    affine = ras_affine(exam) if affine is None else affine
    image = kind(labels.transpose(2, 1, 0), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    if change is not None:
        change(image)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz", "MASK.NII.GZ"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_same_mask_as_seg_and_as_nifti_gives_the_identical_score(
    tmp_path: Path, exam: Exam, name: str, kind: Any
) -> None:
    path = write(tmp_path / "mask.nii", exam, kind=kind)
    if name.lower().endswith(".gz"):
        path.with_name(name).write_bytes(gzip.compress(path.read_bytes()))
    from_nifti = reference_score_from_annotation(
        exam.path, tmp_path / name, PROFILE, meanings=NAMED
    )
    seg = segmentation(tmp_path / "private", exam, exam.mask)
    assert from_nifti == reference_score_from_annotation(exam.path, seg, PROFILE)
    assert from_nifti.total == exam.score().total > 0
    assert dict(from_nifti.vessels) == dict(exam.score().vessels)


def test_every_order_and_direction_of_the_axes_is_the_same_map(tmp_path: Path, exam: Exam) -> None:
    base, affine = exam.mask.transpose(2, 1, 0), ras_affine(exam)
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        stored = nib.orientations.apply_orientation(
            base, np.array([(order.index(n), signs[n]) for n in range(3)], dtype=float)
        )
        turn = nib.orientations.inv_ornt_aff(
            np.array([(order.index(n), signs[n]) for n in range(3)], dtype=float), base.shape
        )
        image = nib.Nifti1Image(np.ascontiguousarray(stored), affine @ turn)
        nib.save(image, tmp_path / "turned.nii")
        found = read_label_map(tmp_path / "turned.nii", exam.volume, NAMED)
        assert np.array_equal(found, exam.mask), (order, signs)


def test_meanings_decide_and_calcium_without_a_vessel_scores_in_total(
    tmp_path: Path, exam: Exam
) -> None:
    expected = exam.score()
    binary = write(tmp_path / "binary.nii", exam, (exam.mask > 0).astype(np.int16))
    score = reference_score_from_annotation(exam.path, binary, PROFILE, meanings=CALCIUM)
    assert score.total == pytest.approx(expected.total, rel=1e-12)
    assert not score.vessels
    # One untold voxel leaves every vessel open.
    shifted = np.where(exam.mask == 2, np.float32(700), exam.mask.astype(np.float32))
    path = write(tmp_path / "shifted.nii", exam, shifted)
    partly = parse_labels("1=lm 700=calcium 3=lcx 4=rca")
    assert not reference_score_from_annotation(exam.path, path, PROFILE, meanings=partly).vessels
    swapped = parse_labels("1=lm 700=rca 3=lcx 4=lad")
    vessels = reference_score_from_annotation(exam.path, path, PROFILE, meanings=swapped).vessels
    assert vessels[Vessel.RCA] == pytest.approx(expected.vessels[Vessel.LAD])
    assert vessels[Vessel.LAD] == pytest.approx(expected.vessels[Vessel.RCA])
    other = parse_labels("1=lm 700=other 3=lcx 4=rca")
    without = reference_score_from_annotation(exam.path, path, PROFILE, meanings=other)
    assert without.vessels[Vessel.LAD] == 0
    assert without.total == pytest.approx(expected.total - expected.vessels[Vessel.LAD])


def test_a_segmentation_of_coronary_calcium_without_vessels_is_scored_in_total(
    tmp_path: Path, exam: Exam
) -> None:
    untold = np.where(exam.mask > 0, np.uint8(VESSEL_UNKNOWN), np.uint8(0))
    score = reference_score_from_annotation(
        exam.path, segmentation(tmp_path / "private", exam, untold), PROFILE
    )
    assert score.total == pytest.approx(exam.score().total, rel=1e-12)
    assert score.vessels == {}


def test_slope_and_intercept_are_part_of_the_value(tmp_path: Path, exam: Exam) -> None:
    """Stored 2 to 8 with scl_slope 0.5 (bytes 112 to 116 of NIfTI-1) are labels 1 to 4."""
    doubled = (exam.mask.transpose(2, 1, 0) * 2).astype(np.int16)
    content = bytearray(nib.Nifti1Image(doubled, ras_affine(exam)).to_bytes())
    content[112:116] = np.float32(0.5).tobytes()
    (tmp_path / "half.nii").write_bytes(bytes(content))
    found = read_label_map(tmp_path / "half.nii", exam.volume, NAMED)
    assert np.array_equal(found, exam.mask)


# --- what is refused ------------------------------------------------------------------------------


def turned(exam: Exam, degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ ras_affine(exam)


def sheared(exam: Exam) -> NDArray[np.float64]:
    affine = ras_affine(exam)
    affine[1, 2] = 0.4
    return affine


def moved(exam: Exam, millimetres: float) -> NDArray[np.float64]:
    affine = ras_affine(exam)
    affine[2, 3] += millimetres
    return affine


def only_sform(affine: NDArray[np.float64]) -> Callable[[Any], None]:
    def change(image: Any) -> None:
        image.set_sform(affine, code=1)
        image.header["qform_code"] = 0

    return change


def contradiction(exam: Exam) -> Callable[[Any], None]:
    return lambda image: image.set_sform(moved(exam, 3.0), code=1)


def unset(path: Path) -> Path:
    """Clear qform_code and sform_code: two short integers from byte 252."""
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)
    return bytes_at(path, bytes(content))


def atlas(image: Any) -> None:
    image.header["qform_code"] = image.header["sform_code"] = 4


def micrometres(image: Any) -> None:
    image.header.set_xyzt_units("micron")


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def bytes_at(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FAULTS: dict[str, tuple[Callable[[Path, Exam], Path], str]] = {
    "no file": (lambda p, _: p, "no_such_annotation"),
    "text": (lambda p, _: bytes_at(p, b"SECRET" * 100), "bad_annotation"),
    "empty file": (lambda p, _: bytes_at(p, b""), "bad_annotation"),
    "broken gzip": (
        lambda p, _: bytes_at(p.with_name("a.nii.gz"), b"\x1f\x8b\x08\0SECRET" * 9),
        "bad_annotation",
    ),
    "cut off": (lambda p, e: cut(write(p, e)), "bad_annotation"),
    "rotated": (lambda p, e: write(p, e, affine=turned(e, 5)), "bad_annotation"),
    "sheared": (
        lambda p, e: write(p, e, change=only_sform(sheared(e))),
        "bad_annotation",
    ),
    "qform against sform": (lambda p, e: write(p, e, change=contradiction(e)), "bad_annotation"),
    "no orientation": (lambda p, e: unset(write(p, e)), "bad_annotation"),
    "an atlas": (lambda p, e: write(p, e, change=atlas), "bad_annotation"),
    "micrometres": (lambda p, e: write(p, e, change=micrometres), "bad_annotation"),
    "probabilities": (lambda p, e: write(p, e, e.mask * np.float32(0.4)), "bad_annotation"),
    "not a number": (
        lambda p, e: write(p, e, np.where(e.mask > 0, np.nan, 0).astype(np.float32)),
        "bad_annotation",
    ),
    "negative": (lambda p, e: write(p, e, -e.mask.astype(np.int16)), "bad_annotation"),
    "four dimensions": (
        lambda p, e: bytes_at(
            p, nib.Nifti1Image(np.stack([e.mask] * 2, axis=-1), ras_affine(e)).to_bytes()
        ),
        "bad_annotation",
    ),
    "complex": (lambda p, e: write(p, e, e.mask.astype(np.complex64)), "bad_annotation"),
    "one slice less": (lambda p, e: write(p, e, e.mask[:-1]), "other_series"),
    "half a slice off": (lambda p, e: write(p, e, affine=moved(e, 1.5)), "other_series"),
    "a little turned": (lambda p, e: write(p, e, affine=turned(e, 1)), "other_series"),
    "other spacing": (
        lambda p, e: write(p, e, affine=ras_affine(e) @ np.diag([1.01, 1, 1, 1])),
        "other_series",
    ),
    "nothing marked": (lambda p, e: write(p, e, np.zeros_like(e.mask)), "empty_annotation"),
    "unknown label": (
        lambda p, e: write(p, e, np.where(e.mask > 0, 9, 0).astype(np.uint8)),
        "unknown_label",
    ),
    "huge label": (
        lambda p, e: write(p, e, np.where(e.mask > 0, 1e30, 0).astype(np.float64)),
        "unknown_label",
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_every_failure_has_a_code_and_a_cure(tmp_path: Path, exam: Exam, fault: str) -> None:
    make, code = FAULTS[fault]
    with pytest.raises(FedcacError) as caught:
        reference_score_from_annotation(
            exam.path, make(tmp_path / "a.nii", exam), PROFILE, meanings=NAMED
        )
    assert caught.value.code == f"cohort.{code}"
    assert caught.value.cure
    assert "SECRET" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_left_and_right_taken_for_each_other_are_another_grid(tmp_path: Path, exam: Exam) -> None:
    """The generated grid is symmetric about the origin, a real one is not."""
    x, y, z = exam.volume.origin_lps_mm
    volume = replace(exam.volume, origin_lps_mm=(x + 7.5, y - 120.0, z))
    affine = ras_affine(exam)
    affine[:2, 3] -= (7.5, -120.0)
    path = write(tmp_path / "a.nii", exam, affine=affine)
    assert np.array_equal(read_label_map(path, volume, NAMED), exam.mask)
    write(path, exam, affine=np.diag([-1.0, -1, 1, 1]) @ affine)
    with pytest.raises(CohortError, match="other_series"):
        read_label_map(path, volume, NAMED)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_have_a_code_and_never_give_another_map(
    tmp_path: Path, exam: Exam, seed: int
) -> None:
    """Bytes of the header at random: refused, or in what does not matter to where labels lie."""
    rng = np.random.default_rng(seed)
    content = write(tmp_path / "a.nii", exam).read_bytes()
    cures = []
    for number in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, 352, size=1 + number % 3):
            damaged[position] = rng.integers(256)
        (tmp_path / "b.nii").write_bytes(bytes(damaged))
        try:
            found = read_label_map(tmp_path / "b.nii", exam.volume, NAMED)
        except CohortError as error:
            cures.append(error.cure)
        else:
            # Slope, type and offset change which values are read, as long as they are labels.
            is_same_value = bytes(damaged[70:74]) == content[70:74]
            is_same_value &= bytes(damaged[108:120]) == content[108:120]
            assert not is_same_value or np.array_equal(found, exam.mask)
    assert 20 < len(cures) < 150
    assert all(cures)


def test_extensions_larger_than_any_are_not_read(tmp_path: Path, exam: Exam) -> None:
    content = bytearray(write(tmp_path / "a.nii", exam).read_bytes())
    content[108:112] = np.float32(1e9).tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(CohortError, match="extensions"):
        read_label_map(tmp_path / "a.nii.gz", exam.volume, NAMED)


def test_labels_without_a_stated_meaning_are_refused(tmp_path: Path, exam: Exam) -> None:
    with pytest.raises(CohortError, match="unstated_labels"):
        reference_score_from_annotation(exam.path, write(tmp_path / "a.nii", exam), PROFILE)


@pytest.mark.parametrize(
    "text", ["", "lad", "1=", "1=aorta", "0=lad", "1=lad 1=rca", "-1=lad", "70000=lad", "1:lad"]
)
def test_meanings_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="bad_labels"):
        parse_labels(text)


def test_a_round_keeps_the_score_until_the_meanings_change(tmp_path: Path, exam: Exam) -> None:
    write(tmp_path / "a.nii.gz", exam)
    made, pairs = table(tmp_path, "A,,a.nii.gz"), pairing(exam, "A")
    store = SiteStore(tmp_path / "state.sqlite")
    plan, expected = protocol(), exam.score()
    first = score_references(made, tmp_path, pairs, plan, store, NAMED).table.rows["A"]
    assert first["reference_lad"] == expected.vessels[Vessel.LAD]
    untold = score_references(made, tmp_path, pairs, plan, store, CALCIUM).table.rows["A"]
    assert untold["reference_score"] == pytest.approx(expected.total)
    assert np.isnan(untold["reference_lad"])
    failed = score_references(made, tmp_path, pairs, plan, store, None).failures
    assert Counter(failure.error.code for failure in failed) == {"cohort.unstated_labels": 1}
    store.close()


def test_a_sites_settings_state_what_its_labels_stand_for(tmp_path: Path, exam: Exam) -> None:
    root = tmp_path / "site"
    key = SigningKey.generate().public.to_text()
    create_site_folder(root, SiteSettings(name="here", lead_key=key))
    assert DicomFiles.of_site(SiteFolder(root), SiteFolder(root).settings()).label_meanings is None
    folder = SiteFolder(root)
    text = folder.settings_path.read_text(encoding="utf-8")
    stated = text.replace("annotation_labels: ''", "annotation_labels: 1=lm 2=lad 3=lcx 4=rca")
    assert stated != text
    folder.settings_path.write_text(stated, encoding="utf-8")
    files = DicomFiles.of_site(folder, folder.settings())
    assert files.label_meanings == NAMED
    write(root / "a.nii.gz", exam)
    table(root, "P8,,a.nii.gz")
    (root / "manifest.csv").write_text(f"path,role\n{exam.path},index", encoding="utf-8")
    criteria = protocol().image_criteria.model_copy(update={"acquisition": "any"})
    plan = protocol().model_copy(update={"pairing": None, "image_criteria": criteria})
    assert check_cohort(plan, files)[1]["clinical_table"]["failed_annotations"] == 0
    text, counts = check_cohort(plan, replace(files, annotation_labels=""))
    assert "unstated_labels" in text
    assert counts["clinical_table"]["failed_annotations"] == 1


def test_lesions_do_not_depend_on_whether_their_vessel_is_told(exam: Exam) -> None:
    told = exam.score()
    untold = score_volume(
        exam.volume.hu,
        np.where(exam.mask > 0, VESSEL_UNKNOWN, 0).astype(np.uint8),
        exam.volume.spacing_mm,
        PROFILE,
    )
    assert untold.total == pytest.approx(told.total, rel=1e-12)
    assert untold.vessels == {}
    assert {lesion.vessel for lesion in untold.lesions} == {None}
    assert sum(lesion.score for lesion in untold.lesions) == pytest.approx(untold.total)
    assert untold.volume_mm3 == told.volume_mm3
    with pytest.raises(ValueError, match="0 to 5"):
        score_volume(exam.volume.hu, exam.mask + np.uint8(5), exam.volume.spacing_mm, PROFILE)
