"""What pyproject.toml admits and what constraints.txt pins say the same: bounds below, pins within them, no other."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.oldest import ROOT, constraints, oldest, requirements

GROUPS = requirements()
ALL = sorted({it.name: it for lines in GROUPS.values() for it in lines}.values(), key=lambda it: it.name)


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines if line)}


@pytest.mark.parametrize("requirement", ALL, ids=lambda it: it.name)
def test_every_requirement_has_a_lower_bound_and_a_pin_within_it(requirement, pins):
    assert {bound.operator for bound in requirement.specifier} == {">="}
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_a_package_in_two_extras_has_one_bound():
    bounds: dict[str, set[str | None]] = {}
    for lines in GROUPS.values():
        for requirement in lines:
            bounds.setdefault(canonicalize_name(requirement.name), set()).add(oldest(requirement))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


def test_what_is_installed_is_admitted():
    for requirement in GROUPS[""]:
        assert requirement.specifier.contains(metadata.version(requirement.name)), requirement


def test_every_pin_is_there_once(pins):
    assert len(pins) == len((ROOT / "constraints.txt").read_text().split())


def test_the_oldest_are_named():
    assert {"lightning==2.6.6", "numpy==1.26", "torch==2.6"} <= set(constraints())
