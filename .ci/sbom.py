"""Print the software bill of materials of a release, as CycloneDX JSON: what requirements.lock pins, and nothing else.

Usage: python .ci/sbom.py > paropt_exporter-VERSION.cdx.json. The scope of a component is `required` if the package
needs it, `optional` if one of its extras does, and `excluded` if only developing does. Hashes are those of all files
that the lock accepts. The same commit gives the same bytes: the time is SOURCE_DATE_EPOCH, the serial number a digest.
"""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "paropt-exporter"
_PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?P<hashes>(?: \\\n +--hash=sha256:[0-9a-f]{64})+)", re.MULTILINE
)
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_LONGEST_NAME = 60  # of a licence; some packages give its whole text


def main() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    print(build_sbom(lock, _read_version(), int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))


def build_sbom(lock: str, version: str, timestamp_seconds: int) -> str:
    """Return the text. The packages of the lock must be installed: their metadata says what needs what."""
    needed = _find_needed([], PACKAGE)
    optional = _find_needed(sorted(metadata.metadata(PACKAGE).get_all("Provides-Extra") or ()), PACKAGE)
    ours = _build_component(PACKAGE, version, (), ComponentType.APPLICATION, None)
    components = {
        name: _build_component(name, pinned, hashes, ComponentType.LIBRARY, _choose_scope(name, needed, optional))
        for name, pinned, hashes in read_lock(lock)
    }
    bom = Bom(
        components=components.values(),
        metadata=BomMetaData(component=ours, timestamp=datetime.fromtimestamp(timestamp_seconds, UTC)),
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{version}\n{timestamp_seconds}\n{lock}"),
    )
    bom.register_dependency(ours, _pick(components, _list_direct(PACKAGE, [])))
    for name, component in components.items():
        bom.register_dependency(component, _pick(components, _list_direct(name, [])))
    return str(JsonV1Dot6(bom).output_as_string(indent=2))


def read_lock(lock: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the name, version and sha256 sums of each pinned package."""
    for match in _PINNED.finditer(lock):
        yield canonicalize_name(match["name"]), match["version"], tuple(re.findall("[0-9a-f]{64}", match["hashes"]))


def _build_component(
    name: str, version: str, hashes: Iterable[str], kind: ComponentType, scope: ComponentScope | None
) -> Component:
    return Component(
        type=kind,
        name=name,
        version=version,
        bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", name=name, version=version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in hashes],
        licenses=_list_licenses(name),
        scope=scope,
    )


def _list_licenses(name: str) -> list[LicenseExpression] | list[DisjunctiveLicense]:
    """Return the licence as the package states it: its expression, the names in its classifiers, or its field."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:  # a lock of another platform
        return []
    classifiers = [each for each in found.get_all("Classifier") or () if each.startswith("License :: OSI Approved :: ")]
    if expressions := found.get_all("License-Expression"):
        return [LicenseExpression(expressions[0])]
    names = [each.rpartition(" :: ")[2] for each in classifiers] or found.get_all("License") or ()
    return [DisjunctiveLicense(name=each) for each in sorted({*names}) if each and len(each) <= _LONGEST_NAME]


def _choose_scope(name: str, needed: set[str], optional: set[str]) -> ComponentScope:
    if name in needed:
        return ComponentScope.REQUIRED
    return ComponentScope.OPTIONAL if name in optional else ComponentScope.EXCLUDED


def _find_needed(extras: list[str], start: str) -> set[str]:
    """Return the names of all packages that a package with these extras needs, directly or not."""
    found: set[str] = set()
    waiting = _list_direct(start, extras)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _list_direct(name, [])
    return found


def _list_direct(name: str, extras: list[str]) -> list[str]:
    try:
        stated = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return []
    requirements = map(Requirement, stated)
    return [
        canonicalize_name(each.name)
        for each in requirements
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def _pick(components: Mapping[str, Component], names: Iterable[str]) -> list[Component]:
    return [components[name] for name in sorted({*names}) if name in components]


def _read_version() -> str:
    found = _VERSION.search((ROOT / "exporter/paropt_exporter/_version.py").read_text())
    if found is None:
        sys.exit("no version in exporter/paropt_exporter/_version.py")
    return found[1]


if __name__ == "__main__":
    main()
