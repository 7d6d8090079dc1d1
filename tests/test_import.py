"""What ``import xstefa`` must not do, seen from a fresh interpreter."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "sklearn", "cartopy"])
def test_import_stays_light(heavy):
    code = f"import sys, xstefa; print([m for m in sys.modules if m.split('.')[0] == {heavy!r}])"
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


# Each room reads those before it only; the modules beside them are below all or, thin, above.
ROOMS = (
    "schema", "model", "binding", "prepare", "splits", "inference", "training", "evaluation",
    "plotting",
)  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_depend_downwards(room):
    sources = {path: path.read_text() for path in (ROOT / "xstefa" / room).glob("**/*.py")}
    assert sources
    above = "|".join((*ROOMS[ROOMS.index(room) + 1 :], "accessor", "cli", "demo"))
    upwards = re.compile(rf"^\s*(?:from|import) xstefa\.(?:{above})\b", re.MULTILINE)
    assert not [path.name for path, text in sources.items() if upwards.search(text)]


def test_files_import_one_another_in_no_circle():
    paths = {path.relative_to(ROOT).with_suffix(""): path for path in ROOT.glob("xstefa/**/*.py")}
    named = {".".join(p.parts).removesuffix(".__init__"): path for p, path in paths.items()}
    graph = {
        name: {
            inner if (inner := f"{node.module}.{alias.name}") in named else node.module
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module in named
            for alias in node.names
        }
        for name, path in named.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(named)
