"""`fedcac model` and `fedcac score` name what a package brings: its family, input, second stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_packages import TINY_ENG, TINY_INPUT, tiny_manifest, tiny_second_stage

from fedcac.cli import main
from fedcac.models import build_network
from fedcac.models.assembly import assemble_package
from fedcac.phantom import chest_ct_folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    torch.manual_seed(3)
    assemble_package(
        folder,
        document=tiny_manifest(
            name="tiny-second",
            input={**TINY_INPUT, "field_of_view_mm": 120.0},
            calcium_threshold=0.01,
        ),
        weights=build_network("eng2021", TINY_ENG),
        golden_inputs={"hu": torch.zeros(1, 32, 32)},
        second_stage=tiny_second_stage(),
    )
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--format", "json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return content


def test_show_and_check_name_the_second_stage(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "model", "show", str(package))["input_kind"] == "slices"
    assert main(["model", "show", str(package)]) == 0
    assert "with a second stage" in capsys.readouterr().out
    assert main(["model", "check", str(package)]) == 0
    assert "second stage and golden case agree" in capsys.readouterr().out


def test_a_signed_package_keeps_its_second_stage(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedcac.signing import SigningKey

    key = SigningKey.generate()
    key.save(tmp_path / "key")
    out = tmp_path / "signed"
    run(capsys, "model", "sign", str(package), "--key", str(tmp_path / "key"), "--out", str(out))
    (tmp_path / "public").write_text(key.public.to_text(), encoding="ascii")
    checked = run(capsys, "model", "check", str(out), "--key", str(tmp_path / "public"))
    assert checked["is_signature_checked"] is True
    assert (out / "second_stage.json").read_bytes() == tiny_second_stage()


def test_the_models_own_score_stands_beside_the_platforms(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = run(capsys, "score", str(chest_ct_folder()), "--model", str(package))
    assert scored["agatston"] > 0
    assert scored["native_score"] >= 0
    assert scored["native_category"] in range(5)
    without = run(capsys, "score", str(chest_ct_folder()))
    assert without["native_score"] is None
    assert main(["score", str(chest_ct_folder()), "--model", str(package)]) == 0
    text = capsys.readouterr().out
    assert f"The model's own second stage: score {scored['native_score']:.1f}, category " in text
