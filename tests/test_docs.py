"""The reference names everything that is public."""

from __future__ import annotations

from pathlib import Path

import xstefa

API = Path(__file__).parents[1] / "docs" / "api.md"


def test_reference_is_complete():
    text = API.read_text(encoding="utf-8")
    public = [name for name in xstefa.__all__ if not name.startswith("_")]
    # Errors have a module of their own there.
    missing = [
        name for name in public if f"xstefa.{name}" not in text and not name.endswith("Error")
    ]
    assert not missing, f"docs/api.md lacks {missing}"
