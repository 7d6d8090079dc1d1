"""Maps on axes of cartopy's."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import xstefa
from xstefa.errors import LayoutError, OptionError
from xstefa.plotting import soil_moisture_maps
from xstefa.plotting.scores import plot_map, plot_skill


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def scored() -> xr.Dataset:
    coords = xstefa.open_sample("camels_us").drop_vars("time").coords
    nse = np.linspace(0.1, 0.9, coords.sizes["basin"])
    return xr.Dataset({"nse": ("basin", nse)}, coords=coords)


@pytest.fixture
def world() -> xr.DataArray:
    """From north to south, counted from 0 to 360 degrees."""
    lat = xr.DataArray(np.arange(80.0, -90, -20), dims="lat", attrs={"units": "degrees_north"})
    lon = xr.DataArray(np.arange(10.0, 360, 20), dims="lon", attrs={"units": "degrees_east"})
    values = np.sin(np.radians(lat)) + xr.zeros_like(lon)
    return values.assign_coords(lat=lat, lon=lon).rename("moisture")


def test_sites_stand_where_the_projection_has_them(scored: xr.Dataset) -> None:
    crs = pytest.importorskip("cartopy.crs", reason="no cartopy")
    projection = crs.LambertConformal()
    axis = plot_skill(scored, projection=projection).axes[0]
    (points,) = [each for each in axis.collections if len(each.get_offsets()) == 12]
    drawn = points.get_offset_transform().transform(points.get_offsets())
    place = projection.transform_points(crs.PlateCarree(), scored.lon.values, scored.lat.values)
    np.testing.assert_allclose(drawn, axis.transData.transform(place[:, :2]), atol=0.5)
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert left < place[:, 0].min() < place[:, 0].max() < right
    assert bottom < place[:, 1].min() < place[:, 1].max() < top


def test_cells_of_the_world_are_coloured_where_they_are(world: xr.DataArray) -> None:
    crs = pytest.importorskip("cartopy.crs", reason="no cartopy")
    projection = crs.Robinson()
    figure = plot_map(world, projection=projection, outline=None, limits=(-1, 1), crossed=world > 2)
    figure.canvas.draw()
    axis, picture = figure.axes[0], np.asarray(figure.canvas.buffer_rgba())
    colours = matplotlib.colormaps["RdBu"]
    for lat, lon in ((60.0, 70.0), (-60.0, -110.0), (40.0, 170.0), (40.0, -170.0)):
        x, y = axis.transData.transform(projection.transform_point(lon, lat, crs.PlateCarree()))
        expected = colours(float(world.sel(lat=lat, lon=lon % 360) + 1) / 2)
        found = picture[picture.shape[0] - int(y), int(x)] / 255
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_several_days_share_a_projection(world: xr.DataArray) -> None:
    crs = pytest.importorskip("cartopy.crs", reason="no cartopy")
    days = world.expand_dims(time=np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]"))
    figure = soil_moisture_maps(days, projection=crs.Orthographic(-60, 40))
    maps = [axis for axis in figure.axes if hasattr(axis, "projection")]
    assert len(maps) == 2
    assert all(isinstance(axis.projection, crs.Orthographic) for axis in maps)
    figure.canvas.draw()


def test_what_is_no_projection_is_refused(scored: xr.Dataset, world: xr.DataArray) -> None:
    with pytest.raises(OptionError, match="cartopy"):
        plot_map(scored.nse, projection="robinson")
    bare = xr.DataArray(
        np.ones((3, 4)), coords={"y": [1.0, 2, 3], "x": [1.0, 2, 3, 4]}, dims=("y", "x")
    )
    for name, axis in (("x", "X"), ("y", "Y")):
        bare[name].attrs["axis"] = axis
    with pytest.raises(LayoutError, match="coordinate reference system"):
        plot_map(bare, projection=SimpleNamespace(project_geometry=None))
