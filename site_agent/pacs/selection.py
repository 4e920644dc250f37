"""Which series of a study are pulled, from what the PACS says about them at series level.

Only what is certain rejects here: an attribute that the PACS does not return never does. The
instances themselves are judged after the pull, as those of any other source are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedcac.imaging import Role, is_sharp_kernel
from site_agent.pacs.query import SeriesRecord, StudyRecord, matches_any
from site_agent.pacs.settings import RADIOGRAPHS, RoleRule, SeriesRules

__all__ = ["Finding", "Verdict", "choose_series"]


class Finding(StrEnum):
    """Why a series is pulled for a role, or is not."""

    CHOSEN = "chosen"
    OTHER_STUDY = "other_study_description"
    OTHER_MODALITY = "other_modality"
    OTHER_DESCRIPTION = "other_description"
    LOCALIZER = "localizer"
    DERIVED = "derived_image"
    CONTRAST = "contrast_enhanced"
    TOO_FEW = "too_few_instances"
    OTHER_ROLE = "taken_for_the_other_role"
    SHARPER_KERNEL = "a_softer_kernel_was_chosen"
    LESS_FITTING = "another_series_fits_better"


@dataclass(frozen=True)
class Verdict:
    """The finding about one series for one role."""

    role: Role
    series: SeriesRecord
    finding: Finding


def choose_series(
    study: StudyRecord,
    series: Sequence[SeriesRecord],
    rules: SeriesRules,
    role: Role | None = None,
) -> tuple[Verdict, ...]:
    """Return a verdict on every series for every role; at most one a role is chosen.

    Of several suitable series: a soft kernel before a sharp one, then the preferred thickness,
    then more instances, then the UID. The index role chooses first.
    """
    of_roles: Mapping[Role, RoleRule | None] = {
        Role.INDEX: rules.index,
        Role.REFERENCE: rules.reference,
    }
    verdicts: list[Verdict] = []
    taken: set[str] = set()
    for one, rule in of_roles.items():
        if rule is None or role not in (None, one):
            continue
        findings = _judge(study, series, rules, rule, taken)
        verdicts += [Verdict(one, record, found) for record, found in findings]
        taken |= {record.series_uid for record, found in findings if found is Finding.CHOSEN}
    return tuple(verdicts)


def _judge(
    study: StudyRecord,
    series: Sequence[SeriesRecord],
    rules: SeriesRules,
    rule: RoleRule,
    taken: set[str],
) -> list[tuple[SeriesRecord, Finding]]:
    rejected = {
        record.series_uid: Finding.OTHER_ROLE
        if record.series_uid in taken
        else _rejection(study, record, rules, rule)
        for record in series
    }
    suitable = [record for record in series if rejected[record.series_uid] is None]
    chosen = min(suitable, key=lambda record: _preference(record, rule), default=None)

    def finding(record: SeriesRecord) -> Finding:
        if record is chosen:
            return Finding.CHOSEN
        reason = rejected[record.series_uid]
        if reason is not None or chosen is None:
            return reason or Finding.LESS_FITTING
        is_sharper = is_sharp_kernel(record.kernel) and not is_sharp_kernel(chosen.kernel)
        return Finding.SHARPER_KERNEL if is_sharper else Finding.LESS_FITTING

    return [(record, finding(record)) for record in series]


def _rejection(
    study: StudyRecord, record: SeriesRecord, rules: SeriesRules, rule: RoleRule
) -> Finding | None:
    is_described = matches_any(record.description, rule.description)
    fewest = rules.fewest_instances(rule)
    is_few = record.n_instances is not None and record.n_instances < fewest
    checks = (
        (not matches_any(study.description, rule.study_description), Finding.OTHER_STUDY),
        (record.modality not in rules.modalities_of(rule), Finding.OTHER_MODALITY),
        (
            not is_described or matches_any(record.description, rule.exclude),
            Finding.OTHER_DESCRIPTION,
        ),
        ("LOCALIZER" in record.image_type, Finding.LOCALIZER),
        (_is_derived(record), Finding.DERIVED),
        (record.has_contrast and not rules.allow_contrast, Finding.CONTRAST),
        (is_few, Finding.TOO_FEW),
    )
    return next((finding for is_met, finding in checks if is_met), None)


def _is_derived(record: SeriesRecord) -> bool:
    if record.modality in RADIOGRAPHS:
        # Processing makes every presented radiograph DERIVED; SECONDARY is of other images.
        return record.image_type[1:2] == ("SECONDARY",)
    return record.image_type[:1] == ("DERIVED",)


def _preference(record: SeriesRecord, rule: RoleRule) -> tuple[bool, float, int, str]:
    distance = 0.0
    if rule.preferred_thickness_mm is not None:
        thickness = record.slice_thickness_mm
        distance = math.inf if thickness is None else abs(thickness - rule.preferred_thickness_mm)
    n_instances = record.n_instances or 0
    return is_sharp_kernel(record.kernel), distance, -n_instances, record.series_uid
