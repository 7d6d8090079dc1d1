"""The reference names everything that is public."""

from __future__ import annotations

import re
from pathlib import Path

import xstefa
from xstefa.accessor import StefaAccessor

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api.md"


def test_reference_is_complete():
    text = API.read_text(encoding="utf-8")
    public = [name for name in xstefa.__all__ if not name.startswith("_")]
    # Errors have a module of their own there.
    missing = [
        name for name in public if f"xstefa.{name}" not in text and not name.endswith("Error")
    ]
    assert not missing, f"docs/api.md lacks {missing}"


def test_nothing_says_that_a_package_index_has_xstefa():
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "xstefa").rglob("*.*")]
    claims = re.compile(r"pip install [^.\n]*\bxstefa\b")
    found = [t.name for t in texts if t.suffix in (".md", ".py") and claims.search(t.read_text())]
    assert not found


def test_the_tests_that_a_page_names_are_there():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "files.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    assert not [name for name in named if f"def {name}(" not in code]


def test_the_reference_has_each_method_of_the_accessor():
    text = API.read_text(encoding="utf-8")
    told = set(re.findall(r"autoaccessor\w+:: Dataset\.stefa\.(\w+)", text))
    assert told == {name for name in vars(StefaAccessor) if not name.startswith("_")}
