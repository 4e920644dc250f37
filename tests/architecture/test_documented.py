"""Every code and every setting is documented."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from fedcac.disclosure.policy import LikelihoodLimits, Policy
from fedcac.errors import all_error_types
from fedcac.vocabulary import ExclusionReason, RefusalCode
from site_agent.settings import SiteSettings

DOCS = Path(__file__).parents[2] / "docs"
CODES = (DOCS / "reference" / "codes.md").read_text(encoding="utf-8")
SETTINGS = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
DISCLOSURE = (DOCS / "explanation" / "disclosure.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("error_type", all_error_types())
def test_exit_codes(error_type: type) -> None:
    family, code = error_type.family, error_type.exit_code  # type: ignore[attr-defined]
    rows = [line for line in CODES.splitlines() if line.startswith(f"| {code} |")]
    assert len(rows) == 1
    assert f"`{family}`" in rows[0]


@pytest.mark.parametrize("member", [*ExclusionReason, *RefusalCode])
def test_exclusion_and_refusal_codes(member: ExclusionReason | RefusalCode) -> None:
    assert f"| `{member.value}` |" in CODES


@pytest.mark.parametrize("key", list(SiteSettings.model_fields))
def test_site_settings(key: str) -> None:
    assert f"| `{key}` |" in SETTINGS


@pytest.mark.parametrize("key", [*Policy.model_fields, *LikelihoodLimits.model_fields])
def test_policy_keys(key: str) -> None:
    assert f"`{key}`" in DISCLOSURE + SETTINGS or f"`cox.{key}`" in DISCLOSURE


def test_every_shipped_protocol_is_in_the_readme() -> None:
    from fedcac.protocol.catalogue import shipped_protocols

    readme = (DOCS.parent / "protocols" / "README.md").read_text(encoding="utf-8")
    assert shipped_protocols()
    for name in shipped_protocols():
        assert f"`{name}`" in readme


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help otherwise")
def test_generated_pages_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"run `make docs`: {path.name}"
