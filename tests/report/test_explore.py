"""Maps to click on: what is in the page, and that a click shows a site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xstefa
from xstefa.errors import LayoutError
from xstefa.report import explore as exploring

pytest.importorskip("bokeh", reason="the extra explore is not installed")


@pytest.fixture(scope="module")
def page(basins: xr.Dataset, predicted: xr.DataArray, tmp_path_factory) -> Path:
    explorer = basins.stefa.explore(predicted)
    assert "iframe" in explorer._repr_html_()
    return explorer.save(tmp_path_factory.mktemp("maps") / "map.html")


def series(page) -> list[float]:
    """What is drawn as predicted."""
    return page.evaluate(
        """() => { for (const model of Bokeh.documents[0]._all_models.values())
                     if (model.data && model.data.time) return [...model.data.predicted]; }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_a_click_shows_the_series_of_a_site(
    open_page, page: Path, predicted: xr.DataArray, scheme: str, width: int
) -> None:
    shown = open_page(page, scheme=scheme, width=width)
    view = shown.page
    view.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    np.testing.assert_allclose(series(view), predicted[0], rtol=1e-5)
    x, y = view.evaluate(
        """() => {
          const root = Object.values(Bokeh.index.roots ?? Bokeh.index);
          const find = (v) => v.model.type === "Figure" && v.model.x_range.type === "Range1d"
            && v.model.below.some((a) => a.axis_label === "Longitude (°)")
            ? v : (v.child_views ?? []).map(find).find((found) => found);
          const plot = root.map(find).find((found) => found);
          const places = plot.model.renderers.at(-1).data_source.data;
          const box = plot.el.getBoundingClientRect(), frame = plot.frame.bbox;
          return [box.left + frame.left + plot.frame.x_scale.compute(places.lon[2]) - frame.left,
                  box.top + frame.top + plot.frame.y_scale.compute(places.lat[2]) - frame.top];
        }"""
    )
    view.mouse.click(x, y)
    view.wait_for_timeout(200)
    np.testing.assert_allclose(series(view), predicted[2], rtol=1e-5)
    assert (
        view.get_by_role("heading", level=2).inner_text().endswith(f"({predicted.basin[2].item()})")
    )
    # The same with the keyboard.
    view.get_by_label("Site").select_option(index=1)
    view.wait_for_timeout(200)
    np.testing.assert_allclose(series(view), predicted[1], rtol=1e-5)
    assert shown.said == []
    assert [url for url in shown.asked if not url.startswith(("file:", "data:"))] == []
    assert view.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def test_pages_stay_small_and_say_so(basins, predicted, monkeypatch) -> None:
    monkeypatch.setattr(exploring, "LIMIT", 4 * 3 * 4 * 100)
    html = basins.stefa.explore(predicted).html
    assert "the last 100 of 730 days" in html


def test_names_are_text(open_page, basins, predicted, tmp_path: Path) -> None:
    odd = ["<b>x</b>", "</script><script>alert(1)</script>"]
    few = basins.isel(basin=[0, 1]).drop_vars("gauge_name").assign_coords(basin=odd)
    made = few.stefa.explore(predicted[:2].assign_coords(basin=odd))
    view = open_page(made.save(tmp_path / "map.html")).page
    for i, name in enumerate(odd):
        view.get_by_label("Site").select_option(index=i)
        view.wait_for_timeout(100)
        assert view.get_by_role("heading", level=2).inner_text() == name


def test_sites_need_a_place_and_an_answer(basins, predicted) -> None:
    lat = basins.lat.where(basins.basin != basins.basin[1])
    html = basins.assign_coords(lat=lat).stefa.explore(predicted.assign_coords(lat=lat)).html
    assert "1 of 4 sites have no place" in html
    assert str(basins.basin.values[1]) not in html
    with pytest.raises(LayoutError, match="no site to click on"):
        basins.stefa.explore(predicted * np.nan)


def test_one_site_without_its_dimension(basins, predicted) -> None:
    html = basins.isel(basin=0).stefa.explore(predicted[0]).html
    assert "Wild River At Gilead, Maine" in html


def test_cells_of_a_map(monkeypatch) -> None:
    grid = xstefa.open_sample("conus_grid").isel(time=slice(0, 30))
    moisture = (grid.vp / 1e4).rename("soil_moisture").assign_attrs(units="m3 m-3")
    monkeypatch.setattr(exploring, "CELLS", 20)
    html = grid.stefa.explore(moisture).html
    assert "one cell in 3 " in html
    assert "\\u00b0 N, " in html


def test_without_bokeh_it_says_what_to_install(basins, predicted, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bokeh", None)
    with pytest.raises(xstefa.XstefaError, match="explore"):
        basins.stefa.explore(predicted)
