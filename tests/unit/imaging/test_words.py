from __future__ import annotations

import pytest

from fedcac.imaging.words import Topic, topics_of

NAMING = [
    ("SmartScore - Gated 0.5 sec", {Topic.CALCIUM_SCORING, Topic.GATED}),
    ("CaSc 3.0 B35f 70%", {Topic.CALCIUM_SCORING, Topic.GATED}),
    ("CaScSeq  3.0  B35f", {Topic.CALCIUM_SCORING}),
    ("Calcium_Score 3mm", {Topic.CALCIUM_SCORING}),
    ("CACS", {Topic.CALCIUM_SCORING}),
    ("Kalkscore EKG-getriggert", {Topic.CALCIUM_SCORING, Topic.GATED}),
    ("Kalziumscoring Herz", {Topic.CALCIUM_SCORING, Topic.HEART}),
    ("Score calcique", {Topic.CALCIUM_SCORING}),
    ("Puntuación de calcio coronario", {Topic.CALCIUM_SCORING, Topic.HEART}),
    ("Escore de cálcio", {Topic.CALCIUM_SCORING}),
    ("Kalsiyum skorlama", {Topic.CALCIUM_SCORING}),
    ("冠脉钙化积分", {Topic.CALCIUM_SCORING, Topic.HEART}),
    ("石灰化スコア 心電図同期", {Topic.CALCIUM_SCORING, Topic.GATED}),
    ("Кальциевый индекс", {Topic.CALCIUM_SCORING}),
    ("Chest non-gated", {Topic.CHEST, Topic.NOT_GATED}),
    ("Thorax ohne EKG", {Topic.CHEST, Topic.NOT_GATED}),
    ("2 Chest C-/Thorax", {Topic.CHEST, Topic.NO_CONTRAST}),
    ("Thorax mit KM", {Topic.CHEST, Topic.CONTRAST}),
    ("THORAX SANS INJECTION", {Topic.CHEST, Topic.NO_CONTRAST}),
    ("CHEST W/O CONTRAST", {Topic.CHEST, Topic.NO_CONTRAST}),
    ("Chest unenhanced", {Topic.CHEST, Topic.NO_CONTRAST}),
    ("Chest enhanced", {Topic.CHEST, Topic.CONTRAST}),
    ("CCTA 0.6 bestdiast 75 %", {Topic.CONTRAST, Topic.GATED}),
    ("CTAC 3.27 thick", {Topic.ATTENUATION_CORRECTION}),
    ("Schwächungskorrektur", {Topic.ATTENUATION_CORRECTION}),
    ("AC_CT 5.0 HD_FoV", {Topic.ATTENUATION_CORRECTION}),
    ("ATTN CORR", {Topic.ATTENUATION_CORRECTION}),
    ("CT Atten Map", {Topic.ATTENUATION_CORRECTION}),
    ("CT Transmission", {Topic.ATTENUATION_CORRECTION}),
    ("Patient attends", set()),
    ("AC joint", set()),
    ("MIP thorax", {Topic.REFORMATION, Topic.CHEST}),
    ("Topogram 0.6 T20f", {Topic.SCOUT}),
    ("Dose Report", {Topic.DOSE_REPORT}),
    ("5mm", set()),
    ("", set()),
    # What looks like another word but is not: vascular, cardinal-number and scale text.
    ("Vaccine study", set()),
    ("Educational", set()),
]


@pytest.mark.parametrize(("text", "topics"), NAMING, ids=[text for text, _ in NAMING])
def test_descriptions(text: str, topics: set[Topic]) -> None:
    assert topics_of(text) == topics


def test_underscores_case_and_composition_do_not_matter() -> None:
    assert topics_of("SCHWA\u0308CHUNGSKORREKTUR") == topics_of("schwächungskorrektur")
    assert topics_of("CA_SCORE") == topics_of("ca score") == {Topic.CALCIUM_SCORING}
