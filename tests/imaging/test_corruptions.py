"""Each way to corrupt a series ends with its code, and nothing else happens."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from imaging.corrupted_cohort import run_cohort
from imaging.corruptions import CORRUPTIONS, SOUND, Corruption
from imaging.generated import body_hu, make_series, write_series

from fedcac.errors import DicomError
from fedcac.imaging import load_volume, reason_of
from fedcac.protocol import ImageCriteria


def test_there_are_thirty_corruptions_with_a_code() -> None:
    assert sum(SOUND not in one.codes for one in CORRUPTIONS.values()) >= 30


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_corruption_is_coded(
    corruption: Corruption,
    seed: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(seed)
    hu = body_hu(rng)
    folder = write_series(tmp_path / "SECRET-FOLDER", make_series(rng, "SECRET-ID", hu))
    with caplog.at_level(logging.DEBUG):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            corruption.damage(folder, rng)
        caplog.clear()
        try:
            volume = load_volume(folder, ImageCriteria())
            code, said = SOUND, ""
            assert np.array_equal(volume.hu, np.maximum(hu, -1024)[::-1])
        except DicomError as error:
            code, said = reason_of(error).value, str(error)
    assert code in corruption.codes
    shown = capfd.readouterr()
    for secret in ("SECRET", "SOMEBODY-ELSE"):
        assert secret not in said + caplog.text + shown.out + shown.err


def test_a_cohort_loses_no_sound_exam_and_codes_each_corruption(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sixty exams, every corruption once, through manifest, pairing and the scoring queue."""
    names = [*CORRUPTIONS, *([""] * (60 - len(CORRUPTIONS)))]
    order = np.random.default_rng(7).permutation(len(names))
    with caplog.at_level(logging.DEBUG):
        run = run_cohort(tmp_path, [names[n] for n in order], seed=3)
    assert run.wrong == ()
    assert sum(name == "" and code == SOUND for name, code in run.outcomes) == names.count("") > 10
    shown = capfd.readouterr()
    for secret in ("SECRET", "SOMEBODY-ELSE", str(tmp_path)):
        assert secret not in caplog.text + shown.out + shown.err
