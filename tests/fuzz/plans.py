"""Parsers of what people write by hand to say what is done: protocols, policies, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from fuzz.engine import Parser, file_at, register
from fuzz.messages import COURIER, LEAD
from fuzz.mutations import (
    damage_bytes,
    damage_json,
    damage_lines,
    damage_numbers,
    damage_text,
    damage_yaml,
)

from coordinator.enrolment.consortium import Consortium, read_consortium
from coordinator.flower_courier.folder import CourierFolder as LeadCourierFolder
from coordinator.flower_courier.folder import CourierPorts
from fedcac.canonical import canonical_bytes
from fedcac.disclosure import load_policy
from fedcac.imaging import parse_labels
from fedcac.protocol.loading import load_protocol
from site_agent.exams.dictionary import data_dictionary, dictionary_csv, template_csv
from site_agent.flower_courier.settings import CourierFolder
from site_agent.settings import SiteFolder

_PROTOCOLS = Path(__file__).resolve().parents[2] / "protocols"


# protocols and policies


def _load_protocol(payload: bytes, folder: Path) -> None:
    protocol = load_protocol(file_at(folder, "protocol.yaml", payload))
    again = canonical_bytes(protocol.model_dump(mode="json"))
    assert type(protocol).model_validate_json(again) == protocol
    entries = data_dictionary(protocol)
    assert template_csv(entries)
    assert dictionary_csv(entries)


register(
    Parser(
        name="protocol",
        writer="the lead, by hand; also uploaded to the dashboard",
        entry="fedcac.protocol.load_protocol",
        promise="its canonical form reads as the same protocol, and it has a data dictionary",
        seeds=lambda: [
            (_PROTOCOLS / f"{name}.yaml").read_bytes()
            for name in ("demo-nongated", "hong2025-cxr", "eng2021-references")
        ],
        parse=_load_protocol,
        mutators=(damage_yaml, damage_yaml, damage_text, damage_lines, damage_bytes),
        n_cases=60,
        names_path=True,
    )
)


def _load_policy(payload: bytes, folder: Path) -> None:
    policy = load_policy(file_at(folder, "policy.yaml", payload))
    assert type(policy).model_validate(policy.model_dump()) == policy
    assert policy.minimum_cell >= 1
    assert policy.digest() == type(policy).model_validate(policy.model_dump()).digest()


def _policy_seeds() -> list[bytes]:
    return [
        yaml.safe_dump({**load_policy(name).model_dump(mode="json"), "profile": "custom"}).encode()
        for name in ("research", "cms")
    ]


register(
    Parser(
        name="policy",
        writer="a site's privacy officer, by hand",
        entry="fedcac.disclosure.load_policy",
        promise="every cell in its range; the same digest when read again",
        seeds=_policy_seeds,
        parse=_load_policy,
        mutators=(damage_yaml, damage_yaml, damage_text, damage_lines, damage_bytes),
        n_cases=60,
        names_path=True,
    )
)


# settings


def _site_settings() -> list[bytes]:
    pacs = {
        "connection": {"protocol": "dicomweb", "url": "http://127.0.0.1:8042/dicom-web"},
        "rules": {"index": {}},
    }
    document = {"name": "duke", "lead_key": LEAD.public.to_text(), "policy": "research"}
    return [yaml.safe_dump(document).encode(), yaml.safe_dump({**document, "pacs": pacs}).encode()]


def _read_site_settings(payload: bytes, folder: Path) -> None:
    file_at(folder, "site.yaml", payload)
    settings = SiteFolder(folder).settings()
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings


register(
    Parser(
        name="site-settings",
        writer="a hospital's IT, by hand",
        entry="site_agent.settings.SiteFolder.settings",
        promise="written again, they are the same settings",
        seeds=_site_settings,
        parse=_read_site_settings,
        mutators=(damage_yaml, damage_yaml, damage_text, damage_bytes),
        n_cases=60,
        names_path=True,
    )
)


def _courier_settings() -> list[bytes]:
    fields = {"site": "duke", "spool": "../spool", "superlink": "lead.example.org:8443"}
    fields |= {"coordinator_key": COURIER.public.to_text(), "ca_certificate": "ca.crt"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return ["\n".join([*lines, "port = 9094", "limit_mb = 2048"]).encode()]


def _read_courier_settings(payload: bytes, folder: Path) -> None:
    file_at(folder, "courier.toml", payload)
    settings = CourierFolder(folder).settings()
    assert type(settings).model_validate(settings.model_dump()) == settings


register(
    Parser(
        name="courier-settings",
        writer="a hospital's IT, by hand",
        entry="site_agent.flower_courier.settings.CourierFolder.settings",
        promise="written again, they are the same settings",
        seeds=_courier_settings,
        parse=_read_courier_settings,
        mutators=(damage_text, damage_numbers, damage_lines, damage_bytes),
        names_path=True,
    )
)


def _read_lead_settings(payload: bytes, folder: Path) -> None:
    file_at(folder, "consortium.json", payload)
    file_at(folder, "courier.json", payload)
    try:
        found: Any = read_consortium(folder)
    except Exception:
        found = LeadCourierFolder(folder).ports()
    assert type(found).model_validate_json(found.model_dump_json()) == found


register(
    Parser(
        name="lead-settings",
        writer="the lead's IT, by hand",
        entry="coordinator.enrolment.consortium.read_consortium",
        promise="written again, they are the same settings",
        seeds=lambda: [
            Consortium(name="CAC", address="lead.example.org:8443").model_dump_json().encode(),
            CourierPorts().model_dump_json().encode(),
        ],
        parse=_read_lead_settings,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
        names_path=True,
    )
)


def _parse_labels(payload: bytes, folder: Path) -> None:
    meanings = parse_labels(payload.decode("utf-8", "replace"))
    assert all(0 <= value <= 5 for value in meanings.values.values())


register(
    Parser(
        name="labels",
        writer="an operator, in site.yaml or on the command line",
        entry="fedcac.imaging.parse_labels",
        promise="meanings from 0 to 5",
        seeds=lambda: [b"1=lm, 2=lad 3=lcx,4=rca", b"calcium"],
        parse=_parse_labels,
        mutators=(damage_text, damage_bytes, damage_numbers),
    )
)
