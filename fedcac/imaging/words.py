"""What series descriptions say in the languages that scanners are operated in.

Patterns are matched against text without case and diacritics. They are habits of naming, not a
standard: alone they decide nothing, they are evidence beside the attributes of the acquisition.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

__all__ = ["Topic", "topics_of"]


class Topic(StrEnum):
    """What a description is about."""

    CALCIUM_SCORING = "calcium_scoring"
    GATED = "gated"
    NOT_GATED = "not_gated"
    HEART = "heart"
    CHEST = "chest"
    ATTENUATION_CORRECTION = "attenuation_correction"
    CONTRAST = "contrast"
    NO_CONTRAST = "no_contrast"
    REFORMATION = "reformation"
    SCOUT = "scout"
    DOSE_REPORT = "dose_report"
    LATERAL = "lateral"


# Order of languages: English, German, French, Spanish, Italian, Portuguese, Dutch, Nordic,
# Slavic, Turkish, Russian, Chinese, Japanese, Korean.
_PATTERNS: dict[Topic, tuple[str, ...]] = {
    Topic.CALCIUM_SCORING: (
        r"\bca(lcium)?[ _-]*(sc\b|score|scoring|skor)",
        r"\bcac(s|sc|sco)?\b|\bcasc|smart ?score|agatston",
        r"kal[kcz]i?(um)?[ _-]*(score|scoring|skore|bestimmung|messung)",
        r"scor\w* (coronaire )?calci\w*|calcul calcique",
        r"(puntaje|puntuacion|indice|escore|score) (de )?calcio|calcio coronari",
        r"kalkki|kalciove|uwapnien|zwapnien|kalsiyum",
        r"кальци\w*[ -]*(индекс|сч[её]т|скор|score)|коронарн\w* кальци",
        r"钙化|鈣化|石灰化|カルシウムスコア|칼슘|석회화",
    ),
    Topic.GATED: (
        r"\bgat(ed|ing)\b|\becg\b|\bekg\b|\belectrocardio|cardio[ -]?synchro",
        r"getriggert|triggerung|\btriggered\b|synchronis|sincroniz|sincronis",
        r"\b\d{2} ?% ?(r-?r|phase|bpm|diast|syst)?|bestdiast|bestsyst|\bdiastol|\bsystol",
        r"心电|心電|심전도|экг",
    ),
    Topic.NOT_GATED: (
        r"\b(non|un|not|no|nicht|niet|ej)[ -]?(gat|ecg|ekg|trigger|getrigger|synchro|sincron)",
        r"\b(without|ohne|sans|sin|senza|sem|zonder|utan|bez) (ecg|ekg|gating|trigger|synchro)",
    ),
    Topic.HEART: (
        r"\bcardi|\bheart|\bherz|\bkoronar|\bcoronar|\bcoeur|\bcorazon|\bcuore|\bcoracao",
        r"\bhart\b|\bhjart|\bhjert|\bsyda|\bserc|\bsrdc|\bkalp\b|\bkoroner|сердц|коронар",
        r"冠|心脏|心臓|心臟|심장|관상",
    ),
    Topic.CHEST: (
        r"\bchest|\bthora|\btora[xc]|\blung|\bpulm|\bpoumon|\bpolmon|\bkeuhko|\bborst",
        r"\bklatk|\bhrudn|\bgogus|\bakciger|груд|легк|лёгк|胸|肺|흉부|폐",
    ),
    Topic.ATTENUATION_CORRECTION: (
        r"\bct[ _-]?ac\b|\bctac|\bac[ _-]?ct\b|\bacct\b|\bct (for|wb) ac\b",
        r"\battn\b|\batten(uat|\b)|\btransmission|\bmu[ _-]?map|\bumap\b|\bct[ _-]?map\b",
        r"schwachungskorr|atenuac|attenuazion|ослаблен|衰减|衰減|減弱補正|감쇠",
    ),
    Topic.CONTRAST: (
        r"\bc ?\+|\bce\b|\bc?cta\b|angio|\bpost[ -]?(contrast|km|iv)",
        r"(?<!un)(?<!non[ -])(?<!non)\benhanced",
        r"\b(with|mit|avec|con|com|med|met) (iv |i\.v\. )?(contrast|km\b|kontrast)",
        r"\b(avec|con|com) (iv )?(mdc|pdc|injection)",
        r"\barteri(al|ell|el)|\bvenous phase|\bvenos|\bportal|\bdelayed phase",
        r"增强|增強|造影|조영",
        r"с контраст",  # noqa: RUF001 (Russian)
    ),
    Topic.NO_CONTRAST: (
        r"\bc ?-(?=\W|$)|\bnon?[ -]?(contrast|con\b|ce\b|kontrast)|\bunenhanced",
        r"\b(without|wo|w/o|ohne|sans|sin) (iv )?(contrast|km\b|kontrast)",
        r"\b(senza|sem|zonder|utan|bez) (contrast|kontrast|mdc)|\bsans (injection|pdc|iv)",
        r"\bnativ|\bnc\b|\bplain\b|平扫|平掃|単純|비조영|조영 ?전|без контраст",
    ),
    Topic.REFORMATION: (
        r"\bm(in)?ip\b|\bmpr\b|\bvrt?\b|volume render|\b3d\b|reform",
        r"\bcoronal|\bsagit|\bsag\b|\bcor\b",
    ),
    Topic.SCOUT: (r"\bscout|\btopogra|\blocali[sz]er|\bsurview|\bscano(gram|gramma)?\b|定位",),
    Topic.DOSE_REPORT: (
        r"\bdos(e|is) ?(report|info|bericht|rapport|protokoll)|patient protocol|radiation dose",
    ),
    Topic.LATERAL: (r"\blat(eral)?\b|\bseitlich|\bprofil\b|\bperfil\b|侧位|側面|боков",),
}
_COMPILED = {topic: re.compile("|".join(patterns)) for topic, patterns in _PATTERNS.items()}


def topics_of(*texts: str) -> frozenset[Topic]:
    """Return what descriptions are about; contradictions are resolved towards the negation.

    'Non-gated' is not gated and 'without contrast' is no contrast, although both name the thing.
    """
    plain = _plain(" ; ".join(texts))
    found = {topic for topic, pattern in _COMPILED.items() if pattern.search(plain)}
    if Topic.NOT_GATED in found:
        found.discard(Topic.GATED)
    if Topic.NO_CONTRAST in found:
        found.discard(Topic.CONTRAST)
    return frozenset(found)


def _plain(text: str) -> str:
    # Only Latin diacritics are dropped: in other scripts a mark can be part of the letter.
    folded = unicodedata.normalize("NFC", text).casefold().replace("_", " ")
    letters = []
    for letter in folded:
        parts = unicodedata.normalize("NFD", letter)
        letters.append(parts[0] if parts[0].isascii() else letter)
    return "".join(letters).replace("œ", "oe").replace("ł", "l")
