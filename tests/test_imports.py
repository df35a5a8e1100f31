"""Imports run one way, and importing the library is cheap."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mm_metrics
from mm_metrics.tasks import TASKS

ROOT = Path(mm_metrics.__file__).parent
GROUND = {
    "modalities",
    "tasks",
    "scores",
    "contributions",
    "uncertainty",
    "quantiles",
    "words",
    "files",
    "streams",
    "cells",
    "extras",
    "workers",
    "sampler",
    "guide",
    "versions",
    "moments",
    "ranking",
    "properties",
    "tables",  # the one reader of files, for predictions and for what leakage compares, which share nothing else
}
# Which rooms each room may import from, itself included. Every file belongs to a room: there is no default.
MAY = {"ground": {"ground"}}
MAY["ablation"] = {"ground", "ablation"}
MAY["leakage"] = {"ground", "leakage"}
MAY["counts"] = {"ground", "counts"}
MAY["gate"] = {"ground", "gate"}
MAY["verdict"] = MAY["counts"] | {"gate", "verdict"}
MAY["render"] = MAY["verdict"] | {"render"}
MAY["scorecard"] = MAY["render"] | {"scorecard"}
MAY["metrics"] = MAY["scorecard"] | {"metrics"}
MAY["predictions"] = MAY["metrics"] | {"predictions"}
MAY["callbacks"] = MAY["predictions"] | {"ablation", "leakage", "callbacks"}
MAY["cli"] = MAY["predictions"] | {"leakage", "cli"}
ROOMS = {"logging": "scorecard", "cli_options": "cli", "__init__": "cli", "__main__": "cli"}
# Code lines a wing, without blank lines, docstrings and comments; a capability raises its wing's bound by its size.
BOUNDS = {
    "core": 5559,
    "ablation": 2498,
    "callbacks": 2825,
    "render": 1837,
    "predictions": 1536,
    "leakage": 1502,
    "tables": 329,
}


def room(module: str) -> str:
    """The room of a module: ``mm_metrics.verdict.gate`` is in the gate."""
    parts = module.split(".")[1:]
    if parts[:2] == ["verdict", "gate"]:
        return "gate"
    name = parts[0] if parts else "__init__"
    return "ground" if name in GROUND else ROOMS.get(name, name)


def module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, at_once: bool = False):
    """The modules that a file imports, also inside functions and for type checkers unless only those `at_once`."""
    tree = ast.parse(path.read_text())
    later = {
        node
        for part in ast.walk(tree)
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(part, ast.If) and "TYPE_CHECKING" in ast.dump(part.test))
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        if at_once and node in later:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else str(node.module) for name in inner)


FILES = sorted(ROOT.rglob("*.py"))
MODULES = {module(path): path for path in FILES}
HEAVY = ("matplotlib", "pandas", "jinja2", "pyarrow", "sklearn")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_list(path):
    home = room(module(path))
    for name in set(imports(path)):
        assert name.split(".")[0] not in ("models", "scripts", "tests"), f"{path.name} imports {name}"
        if home != "callbacks":
            assert name.split(".")[0] not in ("lightning", "pytorch_lightning"), f"{path.name} imports {name}"
        if name.startswith("mm_metrics.") and module(path) != "mm_metrics":
            assert room(name) in MAY[home], f"{path.name} imports {name}, which lies above it"
    for name in set(imports(path, at_once=True)):
        if home not in ("render", "callbacks", "predictions", "leakage", "cli"):
            assert name.split(".")[0] not in HEAVY, f"{path.name} imports {name}"


def test_no_file_stands_in_a_circle_of_imports():
    # What a package's __init__ hands on is no arrow of its own: the names are resolved to the files they come from.
    arrows = {
        name: {target for target in imports(path) if target in MODULES and MODULES[target].stem != "__init__"}
        for name, path in MODULES.items()
        if path.stem != "__init__"
    }
    arrows = {name: targets & arrows.keys() - {name} for name, targets in arrows.items()}
    while leaves := [name for name, targets in arrows.items() if not targets]:
        for name in leaves:
            del arrows[name]
        arrows = {name: targets - set(leaves) for name, targets in arrows.items()}
    assert not _circle(arrows)


def _circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle among files of which each imports another of them."""
    if not arrows:
        return []
    way = [next(iter(arrows))]
    while way.count(way[-1]) == 1:
        way.append(next(iter(arrows[way[-1]])))
    return way[way.index(way[-1]) :]


def code_lines(path: Path) -> int:
    """Lines that are neither blank, nor a comment, nor part of a docstring."""
    text = path.read_text()
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docs |= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and i not in docs
        for i, line in enumerate(text.splitlines(), 1)
    )


def test_each_wing_keeps_its_size():
    wings = dict.fromkeys(BOUNDS, 0)
    for path in FILES:
        name = path.relative_to(ROOT).parts[0]
        wings[name if name in wings else "core"] += code_lines(path)
    assert {name: lines for name, lines in wings.items() if lines > BOUNDS[name]} == {}


def loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stdout.split())


def test_a_module_named_as_its_function_may_come_first():
    code = (
        "import torch, mm_metrics.verdict.judge; from mm_metrics import ModalityConfusionMatrix as M; "
        "m = M(('text',), num_classes=2); m.update(torch.tensor([1]), torch.tensor([1])); m.scorecard().verdict()"
    )
    loaded(code)


def test_importing_adds_nothing_heavy_to_torchmetrics():
    added = loaded("from mm_metrics import *") - loaded("import torchmetrics")
    heavy = ("lightning", "pytorch_lightning", "matplotlib", "pandas", "jinja2", "pyarrow", "sklearn", "scipy")
    assert not added & set(heavy)
    assert "mm_metrics" in added


def test_the_package_alone_and_its_help_do_not_wait_for_torch():
    assert "torch" not in loaded("import mm_metrics")
    for words in (["gate", "--help"], ["score", "--help"], ["leakage", "--help"], ["--version"]):
        assert "torch" not in loaded(f"from mm_metrics.cli import main; assert main({words}) == 0")


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


@pytest.mark.parametrize("module", ["scores", "contributions", "uncertainty", "quantiles"])
def test_every_public_function_has_an_example(module):
    for name, function in inspect.getmembers(importlib.import_module(f"mm_metrics.{module}"), inspect.isfunction):
        if not name.startswith("_") and function.__module__ == f"mm_metrics.{module}":
            assert function.__doc__, name
            by_tests_only = name in ("score_interval", "difference_interval")  # on what a metric gives, see its tests
            assert by_tests_only or ">>> " in function.__doc__, f"{module}.{name} has no example"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 350, "split it: one idea a file"
    assert "fmt: " not in text, "a file's size is what the formatter makes of it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_task_is_is_asked_of_the_task_alone(path):
    def told(node: ast.AST) -> bool:  # "binary" is the name of an average too, which scores compare
        return isinstance(node, ast.Constant) and node.value in TASKS.keys() - {"binary"}

    compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
    assert not [node.lineno for one in compared for node in ast.walk(one) if told(node)], "ask task_of(task)"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_crosses_a_file(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mm_metrics"):
            assert not [name.name for name in node.names if re.match("_[a-z]", name.name)]
