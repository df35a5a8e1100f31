"""Print the oldest versions that pyproject.toml admits, as constraints for pip.

python scripts/oldest.py > oldest.txt && pip install --constraint oldest.txt --editable ".[test]"
"""

import argparse
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def requirements() -> dict[str, list[Requirement]]:
    """Each extra's requirements, those of everybody under ``""``; extras that name extras are left out.

    >>> [str(requirement) for requirement in requirements()["files"]]
    ['pyarrow>=18.0']
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    parsed = {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}
    return {extra: [it for it in lines if it.name != project["name"]] for extra, lines in parsed.items()}


def oldest(requirement: Requirement) -> str | None:
    """The version after ``>=``, None where there is none.

    >>> oldest(Requirement("numpy>=2.0")), oldest(Requirement("numpy"))
    ('2.0', None)
    """
    return next((bound.version for bound in requirement.specifier if bound.operator == ">="), None)


def constraints() -> list[str]:
    """``name==version``, one a line, of everything that is required with a bound."""
    found = {it.name: oldest(it) for lines in requirements().values() for it in lines}
    return sorted(f"{name}=={version}" for name, version in found.items() if version)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("\n".join(constraints()))
