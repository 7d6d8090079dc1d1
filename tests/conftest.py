"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# Time says nothing here: runs share their cores. In CI a run can be repeated exactly.
settings.register_profile("xstefa", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("xstefa")
