"""The wheel, installed into a clean environment that holds what it says it needs and no more."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*words: str | Path, cwd: Path) -> str:
    finished = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(*PIP, "wheel", *options, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


def link_packages(names: Iterable[str], folder: Path) -> None:
    """Put links to the files of installed packages into another environment."""
    for name in names:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            # Needed on another system alone.
            continue
        for file in files:
            here = Path(str(file.locate()))
            if ".." in file.parts or not here.exists():
                continue
            there = folder / file
            there.parent.mkdir(parents=True, exist_ok=True)
            if not there.exists():
                there.symlink_to(here)


@pytest.fixture
def installed(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Return what installs the wheel with an extra, and gives the folder of its programs."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    dependencies = importlib.import_module("dependencies")

    def install(extra: str) -> Path:
        environment = tmp_path / "environment"
        run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
        (packages,) = environment.glob("lib/python*/site-packages")
        link_packages(dependencies.dependencies_of(extra), packages)
        options = ("--quiet", "--no-deps", "--no-index")
        run(*PIP, "--python", environment, "install", *options, wheel, cwd=tmp_path)
        return environment / "bin"

    return install


def test_the_wheel_carries_protocols_policies_and_the_demonstration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in (
        "fedcac/constraints.txt",
        "fedcac/protocols/demo-nongated.yaml",
        "fedcac/disclosure/policies/research.yaml",
        "fedcac/models/packages/eng2021-demo/weights.safetensors",
        "fedcac/phantom/data/ATTRIBUTION.md",
        "fedcac/py.typed",
        "fedcac/report/templates/report.html.j2",
        "site_agent/rounds/agent.py",
        "coordinator/rounds/engine.py",
    ):
        assert name in names
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_a_statistician_s_installation_analyses_a_table_and_reads_the_output(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    programs = installed("")
    rows = [f"P{n},{score},{score}" for n, score in enumerate((0, 5, 50, 250, 800) * 12)]
    table = tmp_path / "site.csv"
    table.write_text("\n".join(["patient_id,index_score,reference_score", *rows]) + "\n")
    words = ("analyze", "eng2021-nongated", "--site", f"a={table}", "--out", tmp_path / "out")
    run(programs / "fedcac", *words, cwd=tmp_path)
    program = "import sys, fedcac; print(fedcac.read_output(sys.argv[1]).estimates.shape[0] > 20)"
    assert run(programs / "python", "-c", program, tmp_path / "out", cwd=tmp_path) == "True\n"


def test_a_coordinator_s_installation_offers_a_round(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    programs = installed("coordinator")
    assert shutil.which("flower-supernode", path=str(programs)) is None
    lead = (programs / "fedcac-coordinator", "--home", tmp_path / "lead")
    run(*lead, "init", cwd=tmp_path)
    run(*lead, "database", "upgrade", cwd=tmp_path)
    told = json.loads(run(*lead, "round", "status", "--format", "json", cwd=tmp_path))
    assert told["data"]["rounds"] == []


def test_a_site_s_installation_scores_an_exam(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    programs = installed("site")
    exams = tmp_path / "exams"
    words = ("--sites", "1", "--patients", "1", "--hybrid-share", "0", "--out", exams)
    run(programs / "fedcac", "phantom", "cohort", *words, cwd=tmp_path)
    series = sorted({file.parent for file in exams.rglob("*.dcm")})
    told = run(programs / "fedcac", "score", series[0], "--format", "json", cwd=tmp_path)
    assert json.loads(told)["data"]["agatston"] >= 0
    home = ("--home", tmp_path / "site")
    assert "usage" in run(programs / "fedcac-site", *home, "doctor", "--help", cwd=tmp_path)
