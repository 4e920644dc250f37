"""Run vantage6's Cox algorithm with its own mock client; started by `cox_pooled_rows`.

    PYTHON benchmarks/vantage6_cox.py ANSWER TIME EVENT COVARIATE... -- TABLE...

PYTHON is that of an environment of its own, with vantage6-algorithm-tools and the algorithm
`coxph` of MaastrichtU-CDS/v6-coxph; nothing of this project is imported. Each table is one
organisation's CSV. Each line on standard input asks for one fit, each of which writes ANSWER anew.
Binning and noise are off, so that what is compared is the algorithm's exact form.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import coxph
import pandas as pd
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient


def _fit(
    tables: list[pd.DataFrame], time_column: str, event_column: str, covariates: list[str]
) -> dict[str, object]:
    client = MockAlgorithmClient(
        datasets=[[{"database": table, "db_type": "csv"}] for table in tables], module="coxph"
    )
    start = time.perf_counter()
    # The algorithm tells every step of its way.
    with contextlib.redirect_stdout(io.StringIO()):
        found = coxph.central(
            time_col=time_column,
            outcome_col=event_column,
            expl_vars=covariates,
            organization_ids=[organisation["id"] for organisation in client.organization.list()],
            sensitivity=1.0,
            epsilon=1.0,
            baseline_hf=False,
            binning=False,
            differential_privacy=False,
            mock_client=client,
        )
    seconds = time.perf_counter() - start
    rows = json.loads(found["coxph_result"] if "coxph_result" in found else found["coxph_results"])
    answers = [json.loads(result["result"]) for result in client.results]
    counts = [
        count
        for answer in answers
        if isinstance(answer.get("times"), dict)
        for count in answer["times"]["freq"].values()
    ]
    return {
        "seconds": seconds,
        "exchanges": len(client.tasks),
        "bytes_out": sum(len(result["result"]) for result in client.results),
        "event_times": len(counts),
        "event_times_of_one_patient": sum(count == 1 for count in counts),
        "coefficients": [rows["Coef"][str(n)] for n in range(len(covariates))],
        "errors": [rows["SE"][str(n)] for n in range(len(covariates))],
        "z": [rows["Z"][str(n)] for n in range(len(covariates))],
        "versions": {
            name: version(name) for name in ("vantage6-algorithm-tools", "coxph", "pandas", "numpy")
        },
    }


def main() -> None:
    """Fit once for each line of standard input."""
    answer, time_column, event_column, *words = sys.argv[1:]
    split = words.index("--")
    tables = [pd.read_csv(path) for path in words[split + 1 :]]
    for _ in sys.stdin:
        fitted = _fit(tables, time_column, event_column, words[:split])
        Path(answer).write_text(json.dumps(fitted), encoding="utf-8")
        print("done", flush=True)


if __name__ == "__main__":
    main()
