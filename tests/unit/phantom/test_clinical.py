"""Generated site tables: published margins to the patient, and effects near the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fedcac.errors import UsageError
from fedcac.phantom.clinical import SiteTables, eng_tables, miller_tables, write_tables
from fedcac.protocol.catalogue import load_shipped
from fedcac.site_table import read_site_table
from fedcac.vocabulary import Vessel

SEEDS = (0, 11)
N_COHORT = 2271
# Published: rows expert, columns model; then rows visual estimate, columns expert and model.
EXPERT_MODEL = [[766, 175, 18, 3], [127, 376, 39, 6], [13, 40, 265, 44], [2, 5, 32, 360]]
VISUAL_EXPERT = [[740, 53, 2, 4], [219, 478, 279, 117], [3, 17, 81, 278]]
VISUAL_MODEL = [[623, 145, 17, 14], [281, 429, 260, 123], [4, 22, 77, 276]]
MALE_BY_MODEL = [368, 293, 200, 286]
# Table 2: hazard ratio, lower and upper limit, for the three categories above zero.
UNADJUSTED = [(2.20, 1.54, 3.14), (4.58, 3.23, 6.48), (5.92, 4.27, 8.22)]
ADJUSTED = [(1.90, 1.32, 2.73), (3.32, 2.29, 4.81), (3.58, 2.47, 5.19)]
BINARY = ["hypertension", "diabetes", "dyslipidemia", "family_history", "smoking"]


def categories(scores: pd.Series, cut_offs: list[float]) -> np.ndarray:
    values = scores.astype(float).to_numpy()
    return np.where(values < 1, 0, np.searchsorted(cut_offs, values, side="left"))


def cross_table(rows: np.ndarray, columns: np.ndarray) -> list[list[int]]:
    table: list[list[int]] = pd.crosstab(rows, columns).to_numpy().tolist()
    return table


def pooled(tables: SiteTables) -> pd.DataFrame:
    return pd.concat(
        [pd.DataFrame(rows).assign(site=site) for site, rows in tables.items()], ignore_index=True
    )


def miller_frame(seed: int) -> pd.DataFrame:
    frame = pooled(miller_tables(seed))
    for name in ("index", "reference", "visual"):
        frame[name] = categories(frame[f"{name}_score"], [1, 100, 400])
    words = {"patient_id", "site", "sex", "stress_tpd", "visual_cac"}
    for name in frame.columns.difference(list(words)):
        frame[name] = pd.to_numeric(frame[name])
    return frame


@pytest.mark.parametrize("seed", SEEDS)
def test_miller_margins_are_the_published_ones(seed: int) -> None:
    frame = miller_frame(seed)
    assert len(frame) == N_COHORT
    assert frame["patient_id"].is_unique
    assert cross_table(frame["reference"], frame["index"]) == EXPERT_MODEL
    words = frame["visual_cac"].map({"absent": 0, "present": 1, "extensive": 2})
    assert cross_table(words, frame["reference"]) == VISUAL_EXPERT
    assert cross_table(words, frame["index"]) == VISUAL_MODEL
    assert (frame["visual"].map({0: 0, 1: 1, 2: 1, 3: 2}) == words).all()
    assert frame.groupby("index")["event"].sum().tolist() == [52, 72, 81, 115]
    by_deficit = pd.crosstab(frame["event"], frame["stress_tpd"])[["<1", "1-<5", "5-<10", ">=10"]]
    assert by_deficit.to_numpy().tolist() == [[555, 889, 337, 170], [36, 109, 65, 110]]
    is_male = frame["sex"] == "male"
    assert is_male.groupby(frame["index"]).sum().tolist() == MALE_BY_MODEL
    totals = [int(is_male.sum()), *frame[BINARY].sum().tolist()]
    assert totals == [1147, 1286, 533, 1003, 1118, 150]
    with_event = frame[frame["event"] == 1]
    counts = [int((with_event["sex"] == "male").sum()), *with_event[BINARY].sum().tolist()]
    assert counts == [201, 194, 101, 161, 140, 30]


@pytest.mark.parametrize("seed", SEEDS)
def test_miller_columns_are_in_range_and_near_the_published_quartiles(seed: int) -> None:
    frame = miller_frame(seed)
    for covariate in load_shipped("miller2023-ctac").covariates:
        values = frame[covariate.name].dropna()
        if covariate.type == "continuous":
            assert values.between(covariate.minimum, covariate.maximum).all(), covariate.name
        else:
            levels = covariate.levels if covariate.type == "categorical" else (0, 1)
            assert set(values) == set(levels), covariate.name
    missing = frame.isna().mean()
    assert 0.01 < missing["bmi"] < 0.03
    assert missing.drop(["bmi", "stress_lvef"]).max() == 0
    years = frame["follow_up_days"].quantile([0.25, 0.5, 0.75]) / 365.25
    assert years.to_numpy() == pytest.approx([1.7, 2.8, 4.1], abs=0.3)
    ages = frame.groupby("index")["age"].median()
    assert ages.to_numpy() == pytest.approx([61.9, 66.4, 70.8, 72.3], abs=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_miller_endpoints_are_consistent(seed: int) -> None:
    frame = miller_frame(seed)
    mace, death_mi, death = frame["event"], frame["death_mi"], frame["death"]
    assert ((death <= death_mi) & (death_mi <= mace)).all()
    days = frame[["follow_up_days", "death_mi_days", "death_days"]]
    assert (days.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert (days >= 1).all(axis=None)
    assert (days % 1 == 0).all(axis=None)
    free = frame[mace == 0]
    assert (free["death_days"] == free["follow_up_days"]).all()
    # Follow-up of death and infarction ends at death at the latest.
    only_death = (death == 1) & (death_mi == 1) & (frame["death_mi_days"] == frame["death_days"])
    assert 0 < only_death.sum() <= death.sum() < death_mi.sum() < mace.sum()
    revascularised = frame[frame["early_revascularisation"] == 1]
    assert len(revascularised) == round(0.03 * N_COHORT)
    assert (revascularised["event"] == 1).all()
    assert revascularised["follow_up_days"].max() <= 90
    # Nobody dies at the event that was a revascularisation.
    dead = revascularised[revascularised["death"] == 1]
    assert (dead["death_days"] > dead["follow_up_days"]).all()


def fit(frame: pd.DataFrame, columns: dict[str, pd.Series]) -> CoxPHFitter:
    data = pd.DataFrame(
        {
            "days": frame["follow_up_days"],
            "event": frame["event"],
            "site": frame["site"],
            **{f"category{c}": (frame["index"] == c).astype(int) for c in (1, 2, 3)},
            **columns,
        }
    ).dropna()
    return CoxPHFitter().fit(data, "days", "event", strata=["site"])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_adjusted", [False, True])
def test_cox_finds_the_published_hazard_ratios(seed: int, is_adjusted: bool) -> None:
    frame = miller_frame(seed)
    columns: dict[str, pd.Series] = {}
    if is_adjusted:
        columns = {name: frame[name] for name in (*BINARY, "bmi", "rest_tpd", "stress_lvef")}
        columns["decades"] = frame["age"] / 10
        columns["male"] = (frame["sex"] == "male").astype(int)
        for number, level in enumerate(("1-<5", "5-<10", ">=10")):
            columns[f"deficit{number}"] = (frame["stress_tpd"] == level).astype(int)
    fitted = fit(frame, columns)
    for category, (ratio, low, high) in enumerate(ADJUSTED if is_adjusted else UNADJUSTED, start=1):
        name = f"category{category}"
        published_se = np.log(high / low) / (2 * 1.959964)
        difference = abs(fitted.params_[name] - np.log(ratio))
        assert difference < 3 * min(published_se, fitted.standard_errors_[name]), name
        if not is_adjusted:  # The counts nearly fix the unadjusted ones.
            assert difference < 0.2, name


def test_miller_sites_differ_in_size_and_case_mix() -> None:
    frame = miller_frame(3)
    assert frame["site"].value_counts(sort=False).tolist() == [908, 682, 454, 227]
    severe = (frame["index"] == 3).groupby(frame["site"]).mean()
    assert severe["site4"] > severe["site1"] + 0.05


def test_copies_give_every_site_a_whole_cohort() -> None:
    tables = miller_tables(5, n_sites=2, copies=4)
    assert [len(rows) for rows in tables.values()] == [2 * N_COHORT, 2 * N_COHORT]
    frame = pooled(tables)
    assert frame["patient_id"].is_unique
    for _, site in frame.groupby("site"):
        matrix = cross_table(
            categories(site["reference_score"], [1, 100, 400]),
            categories(site["index_score"], [1, 100, 400]),
        )
        assert matrix == (2 * np.array(EXPERT_MODEL)).tolist()
    assert len(frame.drop(columns=["patient_id", "site"]).drop_duplicates()) == len(frame)
    for n_sites, copies in ((0, 1), (4, 0), (4, 2)):
        with pytest.raises(UsageError):
            miller_tables(5, n_sites=n_sites, copies=copies)


@pytest.mark.parametrize("seed", SEEDS)
def test_eng_matrices_and_vessels(seed: int, eng_matrices: dict[str, list[list[int]]]) -> None:
    tables = eng_tables(seed)
    assert [len(rows) for rows in tables.values()] == [22, 75, 71, 135]
    cut_offs = [1, 10, 100, 400]
    for site, rows in tables.items():
        frame = pd.DataFrame(rows).set_index("patient_id").astype(float)
        index, reference, reader = (
            categories(frame[name], cut_offs)
            for name in ("index_score", "reference_score", "nongated_reader_score")
        )
        counts = Counter(zip(reference.tolist(), index.tolist(), strict=True))
        matrix = [[counts[row, column] for column in range(5)] for row in range(5)]
        assert matrix == eng_matrices[site]
        assert (index == reader).mean() >= (index == reference).mean()
        for test in ("index", "reference"):
            vessels = frame[[f"{test}_{vessel.value}" for vessel in Vessel]]
            assert (vessels >= 0).all(axis=None)
            total = frame[f"{test}_score"]
            assert vessels.sum(axis=1).to_numpy() == pytest.approx(total.to_numpy(), abs=1e-9)
    assert (frame["nongated_reader_score"] != frame["reference_score"]).any()


@pytest.mark.parametrize("make", [miller_tables, eng_tables])
def test_scores_stay_off_the_cut_offs_and_have_one_decimal(
    make: Callable[[int], SiteTables],
) -> None:
    frame = pooled(make(2))
    for name in frame.columns[frame.columns.str.endswith("_score")]:
        scores = frame[name].astype(float).to_numpy()
        assert np.allclose(scores * 10, np.round(scores * 10), rtol=0, atol=1e-6)
        cut_offs = (1, 100, 400) if make is miller_tables else (1, 10, 100, 400)
        assert min(np.abs(scores[:, None] - np.array(cut_offs)).min(axis=0)) >= 0.5 - 1e-9


@pytest.mark.parametrize("make", [miller_tables, eng_tables])
def test_the_seed_decides(make: Callable[[int], SiteTables]) -> None:
    assert make(4) == make(4)
    assert make(4) != make(5)


@pytest.mark.parametrize(
    ("make", "protocol"), [(miller_tables, "miller2023-ctac"), (eng_tables, "eng2021-nongated")]
)
def test_written_tables_can_be_read(
    make: Callable[[int], SiteTables], protocol: str, tmp_path: Path
) -> None:
    tables = make(1)
    paths = write_tables(tables, tmp_path / "tables")
    assert [path.stem for path in paths] == list(tables)
    for path, (site, rows) in zip(paths, tables.items(), strict=True):
        read = read_site_table(path, load_shipped(protocol))
        assert (read.exams.n, read.n_excluded) == (len(rows), 0), site
        found = read.exams.column("index_score")
        assert found.tolist() == [float(row["index_score"]) for row in rows]
