"""Planner cases, `cpacman.planner.cases`, as tests use them: a difference is a failure."""

from __future__ import annotations

from cpacman.model import Plan
from cpacman.planner.cases.build import (
    advisories_of,
    channel_of,
    installed_package,
    inventory_of,
    plan_case,
    policy_of,
    request_of,
)
from cpacman.planner.cases.expect import differences
from cpacman.planner.cases.metadata import checksum_of, filelists_xml, primary_xml, source_of
from cpacman.planner.cases.text import Case, Pkg, Section, packages, read_case, read_sections

__all__ = [
    "Case",
    "Pkg",
    "Section",
    "advisories_of",
    "channel_of",
    "check_case",
    "checksum_of",
    "filelists_xml",
    "installed_package",
    "inventory_of",
    "packages",
    "plan_case",
    "policy_of",
    "primary_xml",
    "read_case",
    "read_sections",
    "request_of",
    "source_of",
]


def check_case(case: Case, plan: Plan) -> None:
    """Fail when a plan is not what its case expects of each host."""
    assert not list(differences(case, plan))
