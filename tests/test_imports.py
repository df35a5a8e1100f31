"""Imports run one way, and importing the library is cheap."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mm_metrics

ROOT = Path(mm_metrics.__file__).parent
LAYERS = (  # each imports from itself and those before it only, at module level; what is not named stands fourth
    {"modalities", "scores", "contributions", "uncertainty", "files"},
    {"labels", "layout", "counts"},
    {"estimates", "scorecard", "scorecard_json", "open_scorecard", "comparison", "counting", "metrics"},
    set(),
    {"callbacks", "cli"},
)


def layer(module: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if module in names), 3)


def imports(path: Path, inside: bool):
    """What a file imports; at module level, or also inside functions and for type checkers."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node for branch in ast.walk(tree) if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }  # fmt: skip
    nested = {
        node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }  # fmt: skip
    for node in ast.walk(tree):
        if not inside and (node in typing_only or node in nested):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "mm_metrics":
            yield from (f"mm_metrics.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    everything, at_once = set(imports(path, inside=True)), set(imports(path, inside=False))
    part = path.relative_to(ROOT).with_suffix("").parts[0]
    for name in everything:
        assert name.split(".")[0] not in ("models", "scripts", "tests"), f"{path.name} imports {name}"
        if part != "callbacks":
            assert name.split(".")[0] not in ("lightning", "pytorch_lightning"), f"{path.name} imports {name}"
    for name in at_once:
        if part not in ("render", "callbacks", "predictions", "leakage", "cli"):
            assert name.split(".")[0] not in ("matplotlib", "pandas", "rich", "jinja2", "pyarrow", "sklearn")
    if part == "__init__":
        return
    for name in at_once:
        if name.startswith("mm_metrics."):
            assert layer(name.split(".")[1]) <= layer(part), f"{path.name} imports {name}, which comes after it"


def loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stdout.split())


def test_importing_adds_nothing_heavy_to_torchmetrics():
    added = loaded("from mm_metrics import *") - loaded("import torchmetrics")
    heavy = ("lightning", "pytorch_lightning", "matplotlib", "pandas", "rich", "jinja2", "pyarrow", "sklearn", "scipy")
    assert not added & set(heavy)
    assert "mm_metrics" in added


def test_the_package_alone_and_its_help_do_not_wait_for_torch():
    assert "torch" not in loaded("import mm_metrics")
    assert "torch" not in loaded("from mm_metrics.cli import main; assert main(['gate', '--help']) == 0")


def test_every_public_name_is_there_and_no_other():
    assert set(mm_metrics.__all__) <= set(dir(mm_metrics))
    with pytest.raises(AttributeError, match="no attribute 'Score'"):
        mm_metrics.Score  # noqa: B018


@pytest.mark.parametrize("name", mm_metrics.__all__)
def test_every_public_name_says_what_it_is_by_an_example(name):
    thing = getattr(mm_metrics, name)
    assert thing.__doc__
    if not inspect.ismodule(thing):
        assert ">>> " in thing.__doc__, f"{name} has no example"


@pytest.mark.parametrize("module", ["scores", "contributions", "uncertainty"])
def test_every_public_function_has_an_example(module):
    for name, function in inspect.getmembers(importlib.import_module(f"mm_metrics.{module}"), inspect.isfunction):
        if not name.startswith("_") and function.__module__ == f"mm_metrics.{module}":
            assert function.__doc__, name
            by_tests_only = name in ("score_interval", "difference_interval")  # on what a metric gives, see its tests
            assert by_tests_only or ">>> " in function.__doc__, f"{module}.{name} has no example"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400, "split it: one idea a file"
