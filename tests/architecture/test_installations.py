"""What an installation can do without: a statistician and a coordinator, torch and pydicom."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fedcac.exchange import Spool
from fedcac.exchange.parcels import package_files
from fedcac.models import demonstration_package, demonstration_package_folder, open_package
from fedcac.signing import PublicKey, SigningKey, trusted

ROOT = Path(__file__).parents[2]
BLOCKED = ("torch", "monai", "pydicom", "highdicom", "safetensors")

PROGRAM = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("not installed here: " + name)
sys.meta_path.insert(0, Blocker())
from fedcac.cli import main
sys.exit(main({arguments!r}))
"""


def test_analyze_needs_neither_torch_nor_pydicom(
    tmp_path: Path,
    eng_matrices: dict[str, list[list[int]]],
    write_matrix_table: Callable[[Path, list[list[int]]], Path],
) -> None:
    table = write_matrix_table(tmp_path / "t.csv", eng_matrices["site4"])
    out = tmp_path / "out"
    arguments = ["analyze", "eng2021-nongated", "--site", f"a={table}", "--out", str(out)]
    program = PROGRAM.format(blocked=BLOCKED, arguments=arguments)
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert (out / "report.html").exists()


def test_coordinator_commands_load_without_them_and_without_what_draws_a_report() -> None:
    blocked = (*BLOCKED, "matplotlib", "pandas")
    program = PROGRAM.format(blocked=blocked, arguments=["--version"]).replace(
        "from fedcac.cli import main", "from coordinator.__main__ import main"
    )
    program = program.replace("sys.exit(main(['--version']))", "sys.exit(main([]) - 2)")
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_a_coordinator_without_pytorch_sends_a_package_and_says_what_it_did_not_try(
    tmp_path: Path,
) -> None:
    home = tmp_path / "lead"
    key = SigningKey.generate().public
    (tmp_path / "site.pub").write_text(key.to_text(), encoding="ascii")
    package = demonstration_package_folder()
    for arguments in (
        ["init"],
        ["enrol", "duke", "--key", f"{tmp_path}/site.pub", "--spool", f"{tmp_path}/spool"],
        ["round", "launch", "demo-nongated", "--model", str(package)],
    ):
        program = PROGRAM.format(blocked=BLOCKED, arguments=["--home", str(home), *arguments])
        program = program.replace("fedcac.cli", "coordinator.__main__")
        finished = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
    assert "was not tried here" in finished.stdout
    sent = package_files(Spool.at(tmp_path / "spool").inbox, _round_of(finished.stdout), "package")
    assert open_package(sent, trusted([_lead(home)])).digest == demonstration_package().digest


def _round_of(text: str) -> str:
    return next(word for word in text.split() if word.startswith("demo-nongated-"))


def _lead(home: Path) -> PublicKey:
    return PublicKey.from_text((home / "keys" / "lead.pub").read_text(encoding="ascii"))
