"""A public key that is not where the command line says: an error with its cure, no traceback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from coordinator.__main__ import main as coordinator_main
from fedcac.cli import main as fedcac_main
from fedcac.models import demonstration_package_folder
from fedcac.signing import SigningKey
from site_agent.__main__ import main as site_main
from site_agent.flower_courier.__main__ import main as courier_main


@pytest.mark.parametrize(
    "arguments",
    [
        ("enrol", "north", "--spool", "spool", "--key"),
        ("courier", "enrol", "north", "--node-key", "none.pub", "--key"),
    ],
)
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_the_coordinator_says_that_there_is_no_key(
    arguments: Sequence[str],
    content: bytes | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = tmp_path / "site.pub"
    if content is not None:
        key.write_bytes(content)
    assert coordinator_main(["--home", str(tmp_path / "lead"), *arguments, str(key)]) == 2
    assert "usage.no_key_file" in capsys.readouterr().err


def test_a_package_is_not_checked_without_the_key_that_was_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "lead.pub"
    arguments = ["model", "check", str(demonstration_package_folder()), "--key", str(key)]
    assert fedcac_main(arguments) == 2
    assert "usage.no_key_file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "duke", "--policy", "research", "--lead-key"),
        ("peer", "add", "emory"),
    ],
)
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_site_says_that_there_is_no_key(
    arguments: Sequence[str],
    content: bytes | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, lead = str(tmp_path / "site"), tmp_path / "lead.pub"
    if arguments[0] == "peer":
        lead.write_text(SigningKey.generate().public.to_text(), encoding="ascii")
        assert site_main(["--home", home, "init", "duke", "--lead-key", str(lead)]) == 0
    key = tmp_path / "other.pub"
    if content is not None:
        key.write_bytes(content)
    assert site_main(["--home", home, *arguments, str(key)]) == 2
    assert "usage.no_key_file" in capsys.readouterr().err


def test_a_courier_says_that_there_is_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--home", str(tmp_path / "courier"), "init", "duke", "--spool", str(tmp_path)]
    arguments += ["--superlink", "lead.example:443", "--ca", str(tmp_path / "ca.crt")]
    assert courier_main([*arguments, "--coordinator-key", str(tmp_path / "none.pub")]) == 2
    assert "courier.key.pub" in capsys.readouterr().err
