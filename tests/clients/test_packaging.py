"""What is imported is declared, what is declared is imported, and nobody is sent to a stranger's package."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mm_metrics import extras
from scripts.oldest import ROOT, requirements

FOR_OTHERS = (
    "demo",
    "test",
    "clients",
    "docs",
    "dev",
)  # for scripts, tests and those who work on the project
DECLARED = {
    canonicalize_name(it.name) for extra, lines in requirements().items() if extra not in FOR_OTHERS for it in lines
}


def imported() -> set[str]:
    """The top modules that mm_metrics imports of others, also inside functions and for type checkers."""
    names: set[str] = set()
    for path in (ROOT / "mm_metrics").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"mm_metrics"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    homes = metadata.packages_distributions()
    used = {name: {canonicalize_name(home) for home in homes[name]} for name in imported()}
    assert [name for name, home in used.items() if not home & DECLARED] == []
    assert set().union(*used.values()) >= DECLARED


def test_the_sentence_names_the_declared_requirement():
    assert extras.install("jsonargparse", "pillow") == 'pip install "jsonargparse[signatures]>=4.48" "pillow>=10.1"'
    for extra, lines in requirements().items():
        for requirement in lines if extra not in FOR_OTHERS else []:
            assert Requirement(extras.install(requirement.name).split('"')[1]) == requirement


def test_what_is_asked_for_is_declared():
    calls = [
        node
        for path in (ROOT / "mm_metrics").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("install", "needed")
    ]
    named = [
        argument.value
        for call in calls
        for argument in call.args[: 1 if call.func.id == "needed" else None]
        if isinstance(argument, ast.Constant)
    ]
    assert {canonicalize_name(name) for name in named} <= DECLARED
    assert len(calls) >= 5


def test_a_clone_that_was_never_installed_names_the_package_alone(monkeypatch):
    monkeypatch.setattr(extras, "DISTRIBUTION", "modality-metrics-of-nobody")
    assert extras.install("pyarrow") == 'pip install "pyarrow"'


STRANGERS = re.compile(r"mm[-_]metrics\[|\b(install|add)\b[^\n.]*\bmm[-_]metrics\b(?!/)|mm[-_]metrics *[=><~]=", re.I)


@pytest.mark.parametrize("text", ["pip install 'mm_metrics[all]'", "uv add mm-metrics", "mm_metrics>=0.1"])
def test_the_search_finds_what_it_looks_for(text):
    assert STRANGERS.search(text)


def test_nobody_is_told_to_install_a_package_of_that_name():
    folders = ("mm_metrics", "models", "configs", "scripts", "tests", ".ci")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".txt") or path.name == "Makefile"]
    texts = {
        path: path.read_text() for path in files if path.suffix not in (".pyc", ".png") and path.name not in __file__
    }
    assert len(texts) > 100
    assert [(path.name, found[0]) for path, text in texts.items() if (found := STRANGERS.search(text))] == []
    assert metadata.metadata(extras.DISTRIBUTION)["Name"] == extras.DISTRIBUTION
