"""What ``import xstefa`` must not do, seen from a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:xstefa", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "heavy",
    ["torch", "matplotlib", "scipy.stats", "scipy.spatial", "bokeh", "sklearn", "cartopy"],
)
def test_import_stays_light(heavy):
    found = f"[m for m in sys.modules if (m + '.').startswith('{heavy}.')]"
    code = f"import sys, xstefa; print({found})"
    assert run(code) == "[]"


def test_import_registers_the_accessor():
    assert run("import xarray, xstefa; print(hasattr(xarray.Dataset, 'stefa'))") == "True"


def test_import_says_nothing_and_leaves_logging_alone():
    code = (
        "import logging; before = logging.root.level, list(logging.root.handlers)\n"
        "import xstefa; assert before == (logging.root.level, list(logging.root.handlers))"
    )
    assert run(code) == ""


def test_import_leaves_pints_application_registry_alone():
    code = (
        "import pint; before = pint.get_application_registry().get()\n"
        "import xstefa; print(pint.get_application_registry().get() is before)"
    )
    assert run(code) == "True"


def test_version_is_that_of_the_distribution():
    code = (
        "import importlib.metadata, xstefa\n"
        "print(xstefa.__version__ == importlib.metadata.version('xstefa'))"
    )
    assert run(code) == "True"


def test_public_names_exist():
    code = (
        "import xstefa\n"
        "missing = [name for name in xstefa.__all__ if not hasattr(xstefa, name)]\n"
        "assert not missing, missing"
    )
    run(code)


# Each room, or module beside them, imports those before it only, wherever in a file that is.
FLOORS = (
    "errors", "typed", "arguments", "options", "progress", "version", "installed", "windows",
    "schema", "model", "binding", "cf", "prepare", "splits", "inference", "training", "evaluation",
    "datasets", "plotting", "report", "demo", "tree", "accessor", "xstefa", "bmi", "cli",
)  # fmt: skip

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text()
    )
    for path in sorted(ROOT.glob("xstefa/**/*.py"))
}


def imported(tree: ast.Module) -> set[str]:
    """Return the modules of the package that a file imports, in functions and for types too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "modules are imported by their whole name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & set(SOURCES) or {node.module}
    return found & set(SOURCES)


def floor(module: str) -> int:
    return FLOORS.index((module.split(".")[1:] or ["xstefa"])[0])


@pytest.mark.parametrize("module", SOURCES)
def test_rooms_depend_downwards(module):
    assert not [name for name in imported(SOURCES[module]) if floor(name) > floor(module)]


def test_files_import_one_another_in_no_circle():
    graph = {name: imported(tree) for name, tree in SOURCES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(SOURCES)


def test_no_two_classes_share_a_name():
    names = Counter(
        node.name
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]
