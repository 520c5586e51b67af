"""The installed packages, against the bounds that Baton declares."""

import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from baton.doctor.finding import Colour, Finding

AREA = "packages"


def look_at_packages() -> list[Finding]:
    """Return one finding for each package that is missing or out of bounds, or one that all is well."""
    needed = [Requirement(line) for line in requires("baton") or ()]
    wrong = [finding for requirement in needed if (finding := _look(requirement)) is not None]
    python = ".".join(map(str, sys.version_info[:3]))
    return wrong or [
        Finding(AREA, "versions", Colour.GREEN, f"baton {version('baton')} on Python {python}, all in bounds")
    ]


def _look(requirement: Requirement) -> Finding | None:
    is_optional = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        if is_optional:
            return None
        return Finding(AREA, requirement.name, Colour.RED, "not installed", f"pip install '{requirement}'")
    if requirement.specifier.contains(found, prereleases=True):
        return None
    fact = f"{found}, and Baton is made for {requirement.specifier}"
    return Finding(
        AREA, requirement.name, Colour.YELLOW, fact, f"pip install '{requirement.name}{requirement.specifier}'"
    )
