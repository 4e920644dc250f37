"""`python docs/sbom.py --out FOLDER`: a bill of materials (CycloneDX 1.6) of each installation.

Versions are those of `constraints.txt`; licences and who needs whom are as the packages say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dependencies import (
    INSTALLATIONS,
    installed_with,
    licence_of,
    pinned_versions,
    requirements_of,
)
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from fedcac import __version__

__all__ = ["bill", "write_bills"]


def bill(installation: str) -> str:
    """Return the bill of one of `INSTALLATIONS` as JSON that its schema accepts."""
    pinned, extras = pinned_versions(), installed_with(INSTALLATIONS[installation])
    parts = {name: _component(name, pinned[name]) for name in sorted(set(extras) & set(pinned))}
    root = Component(
        name="fedcac",
        version=__version__,
        type=ComponentType.APPLICATION,
        description=f"installation: {installation}",
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        bom_ref="fedcac",
    )
    made = Bom(components=parts.values())
    made.metadata.component = root
    for component in (root, *parts.values()):
        needed = requirements_of(component.name, extras[component.name])
        names = {canonicalize_name(name) for name, _ in needed} & set(parts)
        made.register_dependency(component, [parts[name] for name in sorted(names)])
    text: str = JsonV1Dot6(made).output_as_string(indent=2)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ValueError(f"The bill of '{installation}' is not CycloneDX 1.6: {wrong}")
    return text


def _component(name: str, version: str) -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=PackageURL("pypi", None, name, version),
        licenses=[LicenseFactory().make_from_string(licence_of(name))],
        bom_ref=f"{name}=={version}",
    )


def write_bills(folder: Path) -> list[Path]:
    """Write `fedcac-INSTALLATION.cdx.json` of each installation; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for installation in INSTALLATIONS:
        path = folder / f"fedcac-{installation}.cdx.json"
        path.write_text(bill(installation), encoding="utf-8")
        made.append(path)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the files")
    for written in write_bills(parser.parse_args().out):
        sys.stdout.write(f"{written}\n")
