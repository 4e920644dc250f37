"""`fedcac model` and `fedcac score` name what a package brings: its family, input, second stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgboost

from fedcac.cli import main
from fedcac.models import build_network
from fedcac.models.assembly import assemble_package
from fedcac.models.second_stage_features import FEATURE_NAMES
from fedcac.phantom import chest_ct_folder

ARCHITECTURE: dict[str, Any] = {
    "planes": [4, 4, 4, 4],
    "blocks": [1, 1, 1, 1],
    "groups": 1,
    "base_width": 64,
    "decoder": [4, 4, 4, 4],
}


def trees() -> bytes:
    rng = np.random.default_rng(3)
    features = rng.gamma(1.0, 100.0, (40, len(FEATURE_NAMES)))
    booster = xgboost.train(
        {"objective": "reg:absoluteerror", "max_depth": 2, "nthread": 1},
        xgboost.DMatrix(features, label=np.log1p(features[:, 0]), feature_names=[*FEATURE_NAMES]),
        num_boost_round=3,
    )
    booster.set_attr(slice_increment_mm="5")
    return bytes(booster.save_raw("json"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    torch.manual_seed(3)
    assemble_package(
        folder,
        document={
            "name": "tiny-second",
            "version": "1.0.0",
            "family": "eng2021",
            "architecture": ARCHITECTURE,
            "input": {
                "clip_hu": [-800.0, 1200.0],
                "centre_hu": 200.0,
                "scale_hu": 1000.0,
                "field_of_view_mm": 120.0,
            },
            "calcium_threshold": 0.01,
            "golden_tolerance": 0.001,
            "licence": "Apache-2.0",
            "card": {
                "intended_use": "Tests only. Not for clinical use.",
                "is_demonstration": True,
                "training_data": "None: random weights.",
                "limitations": "Random weights.",
            },
        },
        weights=build_network("eng2021", ARCHITECTURE),
        golden_inputs={"hu": torch.zeros(1, 32, 32)},
        second_stage=trees(),
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
    assert (out / "second_stage.json").read_bytes() == trees()


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
