"""Maps in a projection of cartopy's, where one is asked for: its axes draw them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.datasets import WORLD_OUTLINE
from xstefa.errors import LayoutError, OptionError
from xstefa.plotting.look import FAINT, INK, LAND
from xstefa.plotting.place import Extent, Outline, Sheet, to_degrees

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sheet_of(panel: xr.DataArray, projection: Any = None) -> Sheet:
    """Find the places of a map without time.

    Parameters
    ----------
    panel : DataArray
    projection : cartopy.crs.Projection, optional
        By default one that fits the place; cartopy is not needed for it.

    Raises
    ------
    OptionError
        If it is no projection of cartopy's.
    LayoutError
        If the map does not say where it is.
    """
    place = Sheet.of(panel)
    if projection is None:
        return place
    # What has no such method is no projection, whether cartopy is installed or not.
    if not hasattr(projection, "project_geometry"):
        raise OptionError(
            "a map is drawn in a projection of cartopy's",
            variable="projection",
            found=repr(projection),
            expected="a cartopy.crs.Projection",
            fix="projection=cartopy.crs.Robinson(), or leave it out",
        )
    if place.crs is None:
        raise LayoutError(
            "a map of coordinates that are no longitudes and latitudes has no other projection",
            variable=str(panel.name),
            found="no coordinate reference system",
            expected="one, or coordinates of longitude and latitude",
            fix="ds = ds.rio.write_crs(...), or leave projection= out",
        )
    lon, lat = to_degrees(place.crs, place.x, place.y)
    return _Projected(
        dims=place.dims, x=lon, y=lat, crs=place.crs, placed=place.placed, projection=projection
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Projected(Sheet):
    """Where the values of a map are, in longitude and latitude."""

    projection: Any

    @property
    def kind(self) -> dict[str, Any]:
        """What makes the axes."""
        return {"projection": self.projection}

    @property
    def how(self) -> dict[str, Any]:
        """In which coordinates things are drawn."""
        from cartopy.crs import PlateCarree

        return {"transform": PlateCarree()}

    def extent(self, drawn: NDArray[np.bool_]) -> Extent:
        """Left, right, bottom, top in the projection, which may not show all of it."""
        x, y, _ = self.projection.transform_points(self.how["transform"], self.x, self.y).T
        on_paper = Sheet(dims=self.dims, x=x.T, y=y.T, crs=None, placed=self.placed)
        west, east, south, north = on_paper.extent(drawn)
        (left, right), (bottom, top) = self.projection.x_limits, self.projection.y_limits
        return max(west, left), min(east, right), max(south, bottom), min(north, top)

    def ground(self, axis: Axes, extent: Extent, outline: Outline = "auto") -> None:
        """Draw land below the values; borders and a graticule above them."""
        from shapely import from_geojson

        axes: Any = axis
        axes.set(xlim=extent[:2], ylim=extent[2:])
        if outline is not None:
            path = WORLD_OUTLINE if outline == "auto" else Path(outline)
            shapes, crs = list(from_geojson(path.read_text()).geoms), self.how["transform"]
            axes.add_geometries(shapes, crs, facecolor=LAND, edgecolor="none", zorder=1)
            look = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.45, "alpha": 0.55}
            axes.add_geometries(shapes, crs, zorder=4, **look)
        axes.gridlines(
            draw_labels={"bottom": "x", "left": "y"},
            x_inline=False,
            y_inline=False,
            color=FAINT,
            linewidth=0.4,
            alpha=0.6,
            zorder=1.5,
            xlabel_style={"size": 8},
            ylabel_style={"size": 8},
        )
