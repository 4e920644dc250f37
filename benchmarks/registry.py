"""Every benchmark: what it compares, which figures it records, and where they are quoted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BENCHMARKS", "DEPLOYMENT", "FLOWER_PAGE", "SCALING", "Benchmark", "Figure", "named"]

DEPLOYMENT = "docs/studies/deployment.md"
FLOWER_PAGE = "docs/how-to/run-over-flower.md"
SCALING = "docs/explanation/scaling.md"

Quote = tuple[str, str, str]

_IN_WORDS = {
    "auc": "AUC",
    "bland_altman": "Bland-Altman",
    "cox": "Cox alone",
    "kaplan_meier": "Kaplan-Meier by category",
}


@dataclass(frozen=True)
class Figure:
    """One figure of `results/results.json`.

    Attributes
    ----------
    kind
        Where it stands there: ratios, seconds, differences, bytes_out_per_site or counts.
    words
        What it is. A ratio is the other's seconds over ours: above 1, ours is faster.
    quoted
        Pages that quote its median, each with the number as it is written there and the words
        around it, `{}` in the number's place.
    is_round
        Whether a ratio's other side has all rows in one place and ours is a signed round.
    """

    kind: str
    key: str
    words: str
    quoted: tuple[Quote, ...] = ()
    is_round: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, by the name that `python -m benchmarks` takes.

    `page` is its file in `results/`, empty where `results.json` holds all there is; `quoted` are
    pages that refer to that file.
    """

    name: str
    compares: str
    packages: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    page: str = ""
    quoted: tuple[str, ...] = ()


def _over_tls(
    protocol: str, sites: int, an_exchange: tuple[Quote, ...], more: tuple[Quote, ...] = ()
) -> list[Figure]:
    which, end = f"{protocol.split('-')[0]}, {sites} sites", f"{protocol}_{sites}_sites"
    return [
        Figure(
            "seconds", f"exchange_over_tls_{end}", f"an exchange over TLS, {which}", an_exchange
        ),
        Figure(
            "seconds",
            f"round_over_tls_more_than_in_memory_{end}",
            f"a round over TLS more than in memory, {which}",
            more,
        ),
    ]


BENCHMARKS = (
    Benchmark(
        "agatston_loop",
        "Agatston score of a chest CT against a loop over slices and lesions",
        ("fedcac", "numpy", "scipy"),
        (
            Figure("ratios", "agatston_speed_up_over_a_per_lesion_loop", "score: per-lesion loop"),
            Figure("seconds", "agatston_score_under_a_heart_sized_mask", "our score of one exam"),
        ),
        "agatston_loop.md",
    ),
    Benchmark(
        "volume_building",
        "DICOM series to a volume against highdicom, SimpleITK and MONAI's PydicomReader; voxels "
        "are the same, and MONAI's geometry",
        ("fedcac", "highdicom", "pydicom", "SimpleITK", "monai", "numpy"),
        (
            Figure("ratios", "volume_building_speed_relative_to_highdicom", "volume: highdicom"),
            Figure("ratios", "volume_building_speed_relative_to_simpleitk", "volume: SimpleITK"),
            Figure("ratios", "volume_building_speed_relative_to_monai", "volume: MONAI"),
        ),
        "volume_building.md",
    ),
    Benchmark(
        "inference_engine",
        "three exams from DICOM to score on the CPU against the same network slice by slice",
        ("fedcac", "torch", "monai", "numpy", "pydicom"),
        (
            Figure(
                "ratios",
                "inference_engine_speed_relative_to_slice_by_slice",
                "exams to scores: slice by slice",
            ),
        ),
        "inference_engine.md",
    ),
    Benchmark(
        "cox_step",
        "a Newton step of the Cox model, a million patients, against survival::coxph",
        ("fedcac", "numpy", "scipy"),
        (
            Figure(
                "ratios", "cox_newton_step_speed_relative_to_coxph", "Cox step: R survival::coxph"
            ),
        ),
    ),
    Benchmark(
        "kaplan_meier",
        "a survival curve over four sites against Flower's Kaplan-Meier example, in which every "
        "patient's time and event travel to lifelines",
        ("fedcac", "flwr", "lifelines", "numpy"),
        (
            Figure(
                "ratios",
                "kaplan_meier_round_speed_relative_to_sending_rows_over_flower",
                "Kaplan-Meier: rows over Flower, lifelines",
                is_round=True,
            ),
            Figure(
                "differences",
                "kaplan_meier_survival_from_lifelines_on_pooled_rows",
                "largest difference of survival from lifelines, daily bins",
            ),
            Figure(
                "differences",
                "kaplan_meier_survival_from_lifelines_on_pooled_rows_research",
                "the same under the policy research, on the days that remain",
            ),
            Figure("bytes_out_per_site", "kaplan_meier_daily", "bytes out of a site, daily bins"),
            Figure(
                "bytes_out_per_site",
                "kaplan_meier_under_the_policy_research",
                "bytes out of a site, policy research",
            ),
            Figure(
                "bytes_out_per_site",
                "kaplan_meier_rows_over_flower",
                "bytes out of a site, rows over Flower",
            ),
            Figure(
                "counts",
                "kaplan_meier_patients_whose_own_day_left_over_flower",
                "patients whose own day left, rows over Flower",
            ),
        ),
        "kaplan_meier.md",
    ),
    Benchmark(
        "cox_pooled_rows",
        "the Cox model over four sites against lifelines and statsmodels on pooled rows, and "
        "against vantage6's algorithm",
        ("fedcac", "lifelines", "statsmodels", "numpy", "pandas"),
        (
            Figure(
                "ratios",
                "cox_round_speed_relative_to_lifelines_on_pooled_rows",
                "Cox: lifelines, pooled rows",
                is_round=True,
            ),
            Figure(
                "ratios",
                "cox_round_speed_relative_to_statsmodels_on_pooled_rows",
                "Cox: statsmodels, pooled rows",
                is_round=True,
            ),
            Figure("ratios", "cox_round_speed_relative_to_vantage6", "Cox: vantage6's algorithm"),
            Figure(
                "differences",
                "cox_log_hazard_ratio_from_lifelines_on_pooled_rows",
                "largest difference of a log hazard ratio from lifelines",
            ),
            Figure(
                "differences",
                "cox_standard_error_from_lifelines_on_pooled_rows",
                "of its standard error",
            ),
            Figure(
                "differences",
                "vantage6_cox_log_hazard_ratio_from_its_pooled_model",
                "vantage6's largest difference from its own pooled model",
            ),
            Figure(
                "differences",
                "vantage6_cox_standard_error_from_its_pooled_model",
                "of its standard error",
            ),
            Figure("bytes_out_per_site", "cox", "bytes out of a site"),
            Figure("bytes_out_per_site", "cox_by_vantage6", "bytes out of a site, vantage6"),
            Figure("counts", "cox_exchanges", "exchanges"),
            Figure("counts", "cox_exchanges_by_vantage6", "exchanges, vantage6"),
            Figure(
                "counts",
                "cox_event_days_of_one_patient_that_left_by_vantage6",
                "event days of a single patient that left, vantage6",
            ),
        ),
        "cox_pooled_rows.md",
    ),
    Benchmark(
        "estimator_parity",
        "each kind of analysis against lifelines, statsmodels, scikit-learn or scipy on pooled "
        "rows",
        ("fedcac", "lifelines", "statsmodels", "scikit-learn", "scipy", "pandas", "numpy"),
        tuple(
            Figure(
                "ratios",
                f"{kind}_speed_relative_to_pooled_rows",
                f"{_IN_WORDS.get(kind, kind.replace('_', ' '))}: pooled rows",
                is_round=True,
            )
            for kind in (
                "agreement",
                "accuracy",
                "bland_altman",
                "correlation",
                "distribution",
                "zero_inflated",
                "comparison",
                "descriptives",
                "auc",
                "calibration",
                "fusion",
                "cox",
                "kaplan_meier",
                "reclassification",
                "survival_calibration",
            )
        ),
        "estimator_parity.md",
    ),
    Benchmark(
        "miller_round",
        "Miller's whole protocol in memory, four sites of 2,271 patients",
        ("fedcac", "numpy", "scipy"),
        (Figure("seconds", "miller_protocol_four_sites_of_2271_in_memory", "the round"),),
    ),
    Benchmark(
        "deployment_rounds",
        "rounds over TLS, every process on this machine, against in memory and spool folders",
        ("fedcac", "flwr"),
        tuple(
            _over_tls("eng2021-nongated", 4, ((DEPLOYMENT, "6.3", "| 1.0 | 17.0 | {} |"),))
            + _over_tls(
                "miller2023-ctac",
                4,
                (
                    (DEPLOYMENT, "6.0", "| 20.3 | 85.5 | {} |"),
                    (SCALING, "6", "about {} seconds an exchange"),
                    (FLOWER_PAGE, "6", "about {} seconds an exchange"),
                ),
                ((DEPLOYMENT, "69", "takes {} s more than in memory"),),
            )
            + _over_tls("miller2023-ctac", 16, ((DEPLOYMENT, "16.8", "| 41 | 235 | {} |"),))
        ),
        "deployment_rounds.md",
    ),
    Benchmark(
        "large_package",
        "250 MB to four sites over TLS, broken off once, against plain copies",
        ("fedcac", "flwr"),
        (
            Figure(
                "seconds",
                "250_mb_to_4_sites_over_tls",
                "over TLS",
                ((DEPLOYMENT, "117", "over TLS in {} s"),),
            ),
            Figure(
                "seconds",
                "250_mb_to_4_sites_copy",
                "copies",
                ((DEPLOYMENT, "1.2", "disk took {} s"),),
            ),
        ),
        "large_package.md",
    ),
    Benchmark(
        "simulated_sites",
        "Eng's round with 25, 50 and 100 sites over spool folders",
        ("fedcac", "numpy", "sqlalchemy"),
        (
            Figure(
                "seconds",
                "eng_round_of_100_sites",
                "100 sites",
                ((DEPLOYMENT, "2.8", "| 100 | {} |"),),
            ),
        ),
        "simulated_sites.md",
    ),
    Benchmark(
        "joining",
        "from the lead's kit to a passed dry run, command by command",
        ("fedcac", "flwr", "torch"),
        (
            Figure(
                "seconds",
                "from_a_kit_to_a_passed_dry_run",
                "five commands",
                ((DEPLOYMENT, "29", "five commands, {} s"),),
            ),
        ),
        "joining.md",
    ),
    Benchmark(
        "hundred_sites",
        "Miller's round and its report with 100 sites in memory",
        ("fedcac", "numpy", "matplotlib"),
        page="hundred_sites.md",
        quoted=(SCALING,),
    ),
    Benchmark(
        "corrupted_cohort",
        "1,000 generated exams, 5 % of them corrupted: what is lost, coded and logged",
        ("fedcac", "pydicom", "highdicom", "numpy"),
        page="corrupted_cohort.md",
    ),
)


def named(name: str) -> Benchmark:
    """Return a benchmark.

    Raises
    ------
    KeyError
        If there is none of that name.
    """
    return {benchmark.name: benchmark for benchmark in BENCHMARKS}[name]
