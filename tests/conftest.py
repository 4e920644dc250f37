"""Fixtures that several kinds of tests share: published matrices, and a small consortium."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Machines that run tests are shared: how long one example takes says nothing about the code.
settings.register_profile("fedcac", deadline=None)
settings.load_profile("fedcac")

# Registered aggregate types of every shape, for the tests of the gate and the attacks on it.
pytest_plugins = ("gate_fixtures",)

Matrix = list[list[int]]

# One score inside each risk category of 0 | 1-10 | 11-100 | 101-400 | >400.
_SCORES = (0.0, 5.0, 50.0, 250.0, 800.0)


@pytest.fixture
def eng_matrices() -> dict[str, Matrix]:
    """Confusion matrices (rows = reference) of Eng 2021's four external sites.

    Reconstructed from its Table 3: site 1's is the only one that fits, the others are one of
    those that agree with everything published.
    """
    return {
        "site1": [
            [4, 0, 0, 0, 0],
            [1, 0, 0, 0, 0],
            [0, 0, 3, 0, 0],
            [0, 0, 1, 2, 1],
            [0, 0, 0, 0, 10],
        ],
        "site2": [
            [20, 1, 1, 0, 0],
            [2, 0, 2, 0, 0],
            [2, 0, 12, 2, 1],
            [0, 0, 3, 10, 3],
            [0, 0, 0, 1, 15],
        ],
        "site3": [
            [22, 3, 2, 1, 0],
            [1, 1, 2, 0, 0],
            [2, 1, 8, 2, 0],
            [0, 0, 3, 10, 1],
            [0, 0, 0, 1, 11],
        ],
        "site4": [
            [47, 1, 3, 1, 0],
            [7, 2, 2, 0, 0],
            [5, 0, 13, 4, 0],
            [3, 0, 9, 17, 3],
            [0, 0, 1, 2, 15],
        ],
    }


@pytest.fixture
def write_matrix_table() -> Callable[[Path, Matrix], Path]:
    """Return a function that writes a site table whose confusion matrix is the given one."""

    def write(path: Path, matrix: Matrix) -> Path:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient_id", "index_score", "reference_score"])
            number = 0
            for reference, row in enumerate(matrix):
                for index, count in enumerate(row):
                    for _ in range(count):
                        writer.writerow([f"P{number}", _SCORES[index], _SCORES[reference]])
                        number += 1
        return path

    return write


@dataclass(frozen=True)
class Consortium:
    """Folders of a coordinator and a site, driven through their command lines."""

    root: Path

    @property
    def site(self) -> Path:
        return self.root / "site"

    @property
    def lead(self) -> Path:
        return self.root / "lead"

    def command(self, program: str, home: Path, *arguments: str) -> list[str]:
        module = {"site": "site_agent", "lead": "coordinator"}[program]
        return [sys.executable, "-m", module, "--home", str(home), *arguments]

    def run(self, program: str, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Run a command line in this process and return the data of its JSON envelope."""
        from coordinator.__main__ import main as lead_main
        from site_agent.__main__ import main as site_main

        main, home = {
            "site": (site_main, self.site),
            "lead": (lead_main, self.lead),
        }[program]
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(["--home", str(home), *arguments, "--format", "json"])
        with (self.root / "log.txt").open("a", encoding="utf-8") as log:
            log.write(output.getvalue() + errors.getvalue())
        assert code == expect, output.getvalue() + errors.getvalue()
        data: dict[str, Any] = json.loads(output.getvalue())["data"]
        return data


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    """One site with generated exams, enrolled at a coordinator; nothing launched yet."""
    from fedcac.phantom import write_cohort

    made = Consortium(tmp_path)
    write_cohort(tmp_path / "exams", n_sites=1, n_patients=6, seed=11, hybrid_share=0.0)
    exams = tmp_path / "exams" / "site-1"
    made.run("lead", "init")
    made.run(
        "site",
        "init",
        "duke",
        "--lead-key",
        str(made.lead / "keys" / "lead.pub"),
        "--manifest",
        str(exams / "manifest.csv"),
        "--clinical-table",
        str(exams / "clinical.csv"),
        "--policy",
        "open",
    )
    made.run(
        "lead",
        "enrol",
        "duke",
        "--key",
        str(made.site / "keys" / "site.pub"),
        "--spool",
        str(made.site / "spool"),
    )
    return made


@pytest.fixture
def launched(consortium: Consortium) -> tuple[Consortium, str]:
    """The same with one round of the demonstration offered."""
    from fedcac.models import demonstration_package_folder

    package = str(demonstration_package_folder())
    data = consortium.run("lead", "round", "launch", "demo-nongated", "--model", package)
    return consortium, str(data["round_id"])
