"""A browser, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import xstefa

MADE = {"model_name": "m", "model_hash": "0123456789", "xstefa_version": "1"}


@dataclass
class Opened:
    """A page in a browser, and what it said and asked for."""

    page: Any
    said: list[str]
    asked: list[str]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if (program := shutil.which("chromium") or shutil.which("chromium-browser")) is None:
        pytest.skip("no chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def opened(path: Path, *, scheme: str = "light", width: int = 1400) -> Opened:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(color_scheme=scheme, viewport=size, offline=True))
        found = Opened(contexts[-1].new_page(), [], [])
        kinds = ("error", "warning")
        found.page.on("console", lambda m: found.said.append(m.text) if m.type in kinds else None)
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(path.resolve().as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def basins() -> xr.Dataset:
    ds = xstefa.open_sample("camels_us").isel(basin=slice(0, 4))
    return ds.sel(time=slice("1989-10", "1991-09")).load()


@pytest.fixture(scope="session")
def predicted(basins: xr.Dataset) -> xr.DataArray:
    """Half of what was observed, as a prediction that was made before."""
    return (basins.streamflow / 2).assign_attrs(
        units="mm d-1", long_name="streamflow per area", **MADE
    )
