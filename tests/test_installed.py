"""What an installation says of itself, and what packagers are told of it."""

from __future__ import annotations

import io
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import xarray as xr

import xstefa
from xstefa.demo import run
from xstefa.errors import MissingExtraError
from xstefa.inference.command import cluster
from xstefa.plotting import contributions, soil_moisture_maps

ROOT = Path(__file__).parents[1]


def test_show_versions_names_what_is_installed():
    out = io.StringIO()
    xstefa.show_versions(out)
    lines = dict(line.split(": ", 1) for line in out.getvalue().splitlines())
    assert lines["xstefa"] == xstefa.__version__
    assert lines["xarray"] == version("xarray")
    assert "torch" in lines
    assert lines["processor"]


@pytest.mark.skipif(not (ROOT / "ci/conda").is_dir(), reason="not a clone")
def test_the_conda_recipe_asks_for_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    other = {"cf-xarray": "cf_xarray", "dask": "dask-core", "matplotlib": "matplotlib-base"}
    other["torch"] = "pytorch"
    wanted = set()
    extras = project["optional-dependencies"]
    # Of a package of conda there is one kind: it draws, reads rasters and runs on clusters.
    for line in [*project["dependencies"], *extras["cluster"], *extras["plot"], *extras["raster"]]:
        name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()
        wanted.add(f"{other.get(name, name)} >={lowest}")
    recipe = (ROOT / "ci/conda/recipe.yaml").read_text()
    run = recipe.split("  run:\n")[1].split("\n\n")[0]
    assert {line.strip(" -") for line in run.splitlines()} == wanted | {"python >=3.11"}
    assert f'version: "{xstefa.__version__}"' in recipe


def grid():
    return xstefa.open_sample("conus_grid").isel(time=slice(0, 3), lat=slice(8, 10))


USES = {
    "matplotlib": [
        ("plot", lambda: contributions(xr.Dataset())),
        ("plot", lambda: soil_moisture_maps(grid().prcp)),
    ],
    "rioxarray": [("raster", lambda: grid().stefa.attach(grid().elev_mean))],
    "distributed": [("cluster", lambda: cluster("tcp://127.0.0.1:1"))],
}


@pytest.mark.parametrize("package", USES)
def test_what_is_not_installed_is_named_with_its_extra(package, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for extra, use in USES[package]:
        with pytest.raises(MissingExtraError, match=f"the extra '{extra}': {package}") as raised:
            use()
        assert raised.value.fix.startswith(f"pip install {package}")
        assert isinstance(raised.value, ImportError)


def test_the_demo_asks_first_whether_it_can_draw(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="the demo needs"):
        run(tmp_path / "demo", say=print)
    assert not (tmp_path / "demo").exists()
