"""Generated radiographs, and site tables of their classifiers with AUCs near Hong et al. 2025."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from fedcac.phantom.clinical import SiteTables

__all__ = ["clinical_rows", "draw_radiograph", "hong_tables"]

_SITES = {"site1": 1400, "site2": 900, "site3": 500}
_CUT_OFFS = {"0": 1.0, "100": 100.0, "400": 400.0}
_LABELS = ("0", "1-99", "100-399", ">=400")
# How much of the calcium the radiograph shows, and how much age, sex and body mass index tell
# beside it: chosen for AUCs of about 0.75 from the image and 0.79 with clinical factors.
_IMAGE, _NOISE = 0.45, 0.75
_YEARLY_HAZARD = 0.012
_DAYS = 365.25

Floats = NDArray[np.float64]


def hong_tables(seed: int) -> SiteTables:
    """Return tables with a probability per threshold, the predicted category and an outcome.

    Columns: patient_id, index_category, index_probability_0, _100 and _400, reference_score, age,
    sex, bmi, follow_up_days, event. The same seed gives the same tables.
    """
    rng = np.random.default_rng(seed)
    return {site: _rows(rng, site, n) for site, n in _SITES.items()}


def clinical_rows(rng: np.random.Generator, site: str, n: int) -> list[dict[str, str]]:
    """Return n patients with the columns of `hong_tables` but the model's answers."""
    rows = _rows(rng, site, n)
    return [{k: v for k, v in row.items() if not k.startswith("index_")} for row in rows]


def draw_radiograph(
    rng: np.random.Generator, score: float, shape: tuple[int, int] = (160, 144)
) -> NDArray[np.uint16]:
    """Return a schematic frontal chest radiograph (rows, columns) of 12 bits, bone bright.

    Lungs, mediastinum, heart, spine and noise; specks over the heart whose number rises with the
    calcium score. It is drawn, not projected, and resembles no patient: what a network makes of it
    says nothing about radiographs.
    """
    rows, columns = shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    y, x = y + rng.uniform(-0.05, 0.05), x + rng.uniform(-0.05, 0.05)
    image = np.full(shape, 0.62)
    for side in (-1, 1):
        image -= 0.42 * (((x - 0.45 * side) / 0.33) ** 2 + ((y + 0.05) / 0.72) ** 2 < 1)
    size = rng.uniform(0.9, 1.15)
    image += 0.3 * (((x - 0.16) / (0.36 * size)) ** 2 + ((y - 0.32) / (0.34 * size)) ** 2 < 1)
    image += 0.14 * (np.abs(x) < 0.12)
    n_specks = int(6 * np.log1p(score))
    specks = rng.normal((0.2, 0.16), 0.12, (n_specks, 2))
    for row, column in specks:
        image += 0.25 * np.exp(-(((y - row) / 0.02) ** 2 + ((x - column) / 0.02) ** 2))
    image += rng.normal(0, 0.02, shape)
    return np.asarray(np.clip(image, 0, 1.2) / 1.2 * 4095, dtype=np.uint16)


def _rows(rng: np.random.Generator, site: str, n: int) -> list[dict[str, str]]:
    age = np.clip(rng.normal(61, 10, n), 30, 90)
    is_male = rng.random(n) < 0.58
    bmi = np.clip(rng.normal(24.8, 3.4, n), 16, 45)
    clinical = 0.035 * (age - 61) + 0.4 * (is_male - 0.58) + 0.02 * (bmi - 24.8)
    burden = clinical + rng.normal(0, 0.9, n)
    # Half have no calcium; above that the logarithm of the score rises with the burden.
    log_score = 3.4 + 2.1 * burden + rng.normal(0, 0.3, n)
    score = np.where(burden > -0.05, np.exp(np.clip(log_score, 0.1, 8.4)), 0.0).round(1)
    seen = _IMAGE * burden + _NOISE * rng.normal(0, 1, n)
    probabilities = {name: _probability(seen, score >= cut) for name, cut in _CUT_OFFS.items()}
    predicted = np.sum([p >= 0.5 for p in probabilities.values()], axis=0)
    hazard = _YEARLY_HAZARD / _DAYS * np.exp(0.35 * np.log1p(score) / 2 + 0.3 * clinical)
    followed = rng.uniform(1.0, 6.0, n) * _DAYS
    time = rng.exponential(1 / hazard)
    days = np.ceil(np.minimum(time, followed))
    return [
        {
            "patient_id": f"{site}-{number + 1:05d}",
            "index_category": _LABELS[int(predicted[number])],
            **{f"index_probability_{k}": f"{p[number]:.4f}" for k, p in probabilities.items()},
            "reference_score": f"{score[number]:g}",
            "age": f"{age[number]:.1f}",
            "sex": "male" if is_male[number] else "female",
            "bmi": f"{bmi[number]:.1f}",
            "follow_up_days": f"{days[number]:g}",
            "event": str(int(time[number] <= followed[number])),
        }
        for number in range(n)
    ]


def _probability(seen: Floats, is_positive: NDArray[np.bool_]) -> Floats:
    """Return calibrated-looking probabilities that rank as the image does."""
    spread = float(seen.std())
    middle = float(np.quantile(seen, 1 - is_positive.mean()))
    return np.asarray(expit(2.2 * (seen - middle) / spread + norm.ppf(is_positive.mean()) / 4))
