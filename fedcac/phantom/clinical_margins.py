"""Published counts and effects that the generated site tables keep.

Miller 2023 (J Nucl Med 64:652-658): Table 1, Table 2, Supplemental Tables 3 and 4. Eng 2021 (npj
Digit Med 4:88): Table 3. Tables marked as joint are not published: their margins are, and they are
the integer table nearest to the one that iterative proportional fitting gives for these margins.
"""

from __future__ import annotations

from typing import Final

Quantiles = tuple[float, float, float, float, float]

__all__ = [
    "AGE",
    "BINARY_EVENTS",
    "BINARY_TOTALS",
    "BMI",
    "ENG_CUT_OFFS",
    "ENG_MATRICES",
    "EVENTS",
    "LOG_HAZARD_RATIOS",
    "MILLER_CUT_OFFS",
    "MODEL_LOG_HR",
    "NON_EVENTS",
    "REST_TPD",
    "STRESS_LVEF",
    "TPD_LABELS",
    "TPD_LOG_HR",
    "VISUAL_EXPERT_MODEL",
    "Quantiles",
]

MILLER_CUT_OFFS: Final = (1.0, 100.0, 400.0)
ENG_CUT_OFFS: Final = (1.0, 10.0, 100.0, 400.0)

# Joint: visual estimate (absent, present, extensive) by expert (rows) by model (columns). Its
# three two-way margins are Figure 3 as reconstructed and both halves of Supplemental Table 3.
VISUAL_EXPERT_MODEL: Final = (
    ((607, 117, 13, 3), (16, 28, 4, 5), (0, 0, 0, 2), (0, 0, 0, 4)),
    ((158, 56, 5, 0), (109, 335, 33, 1), (12, 35, 207, 25), (2, 3, 15, 97)),
    ((1, 2, 0, 0), (2, 13, 2, 0), (1, 5, 58, 17), (0, 2, 17, 259)),
)

# Joint: model category (rows) by stress total perfusion deficit, with and without MACE; margins
# of Supplemental Table 4. One linear-by-linear association, exp(0.2 i j), in both tables: with it
# the adjusted hazard ratios of the model's categories come near Table 2's 1.90, 3.32 and 3.58.
TPD_LABELS: Final = ("<1", "1-<5", "5-<10", ">=10")
EVENTS: Final = ((10, 22, 9, 11), (10, 28, 14, 20), (8, 27, 17, 29), (8, 32, 25, 50))
NON_EVENTS: Final = (
    (294, 395, 121, 46),
    (148, 243, 90, 43),
    (61, 124, 56, 32),
    (52, 127, 70, 49),
)

# Patients with the characteristic by model category (Table 1).
BINARY_TOTALS: Final = {
    "male": (368, 293, 200, 286),
    "hypertension": (423, 355, 240, 268),
    "diabetes": (136, 146, 111, 140),
    "dyslipidemia": (334, 246, 187, 236),
    "family_history": (453, 305, 155, 205),
    "smoking": (67, 35, 21, 27),
}
# Joint: those of them with MACE; the sums are Supplemental Table 4's. (It counts 844 patients
# without MACE and with dyslipidemia, two more than Table 1 leaves.)
BINARY_EVENTS: Final = {
    "male": (25, 40, 51, 85),
    "hypertension": (24, 42, 54, 74),
    "diabetes": (9, 20, 29, 43),
    "dyslipidemia": (20, 30, 44, 67),
    "family_history": (23, 33, 32, 52),
    "smoking": (6, 6, 7, 11),
}

# Minimum, quartiles and maximum by model category. Quartiles: Table 1; the ends are assumptions.
AGE: Final[tuple[Quantiles, ...]] = (
    (32, 55.1, 61.9, 69.3, 88),
    (34, 57.3, 66.4, 74.2, 91),
    (42, 65.3, 70.8, 77.3, 93),
    (45, 66.3, 72.3, 77.9, 94),
)
BMI: Final[tuple[Quantiles, ...]] = (
    (17, 25.1, 29.3, 32.6, 52),
    (17, 25.8, 30.0, 34.4, 55),
    (17, 25.4, 29.3, 32.9, 52),
    (17, 25.2, 29.4, 32.4, 52),
)
# The same by stress deficit: assumptions, near Supplemental Table 4's quartiles overall.
REST_TPD: Final[tuple[Quantiles, ...]] = (
    (0, 0, 0, 0, 0.8),
    (0, 0, 0, 0.4, 3.5),
    (0, 0, 0.4, 1.8, 7.5),
    (0, 0.8, 3.2, 8.5, 38),
)
STRESS_LVEF: Final[tuple[Quantiles, ...]] = (
    (38, 63, 70, 77, 92),
    (32, 60, 67, 74, 90),
    (26, 56, 64, 71, 88),
    (14, 43, 56, 66, 84),
)

# Log hazard ratios, Table 2 adjusted; the rest deficit's ratio of 1.00 is left out.
MODEL_LOG_HR: Final = (0.0, 0.642, 1.200, 1.275)
TPD_LOG_HR: Final = (0.0, 0.199, 0.531, 1.554)
LOG_HAZARD_RATIOS: Final = {
    "age": 0.0113,
    "bmi": -0.0101,
    "stress_lvef": -0.0101,
    "male": 0.104,
    "hypertension": -0.020,
    "diabetes": 0.247,
    "family_history": -0.105,
    "smoking": 0.166,
}

# Rows: gated reference; columns: model. Site 1 is the only matrix that fits what is published,
# the others are one of those that do.
ENG_MATRICES: Final = {
    "site1": (
        (4, 0, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (0, 0, 3, 0, 0),
        (0, 0, 1, 2, 1),
        (0, 0, 0, 0, 10),
    ),
    "site2": (
        (20, 1, 1, 0, 0),
        (2, 0, 2, 0, 0),
        (2, 0, 12, 2, 1),
        (0, 0, 3, 10, 3),
        (0, 0, 0, 1, 15),
    ),
    "site3": (
        (22, 3, 2, 1, 0),
        (1, 1, 2, 0, 0),
        (2, 1, 8, 2, 0),
        (0, 0, 3, 10, 1),
        (0, 0, 0, 1, 11),
    ),
    "site4": (
        (47, 1, 3, 1, 0),
        (7, 2, 2, 0, 0),
        (5, 0, 13, 4, 0),
        (3, 0, 9, 17, 3),
        (0, 0, 1, 2, 15),
    ),
}
