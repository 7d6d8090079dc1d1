"""Rebuild the data sets bundled with xstefa from a folder of source data.

    python ci/build_sample.py SOURCE [--out xstefa/datasets] [--only NAME ...]

SOURCE holds ``camels_us.nc``, ``fluxnet_daily.nc``, ``us_states.geojson`` and
``world/landslide_ecuador.nc``. The same sources and
library versions give the same bytes: nothing here is random and no clock is read. Takes about half
a minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from pyproj import CRS

from xstefa.splits.holdout import held_out

# Diverse in climate, on both sides of the held-out split, with complete records 1989-1999.
BASINS = (
    "01054200",  # Maine, humid continental, snow
    "02231000",  # Florida, subtropical lowland
    "03504000",  # North Carolina, wet Appalachian forest
    "05454000",  # Iowa, cropland
    "06352000",  # North Dakota, semi-arid prairie
    "06921070",  # Missouri, flashy mixed land use
    "08195000",  # Texas, karst
    "09066000",  # Colorado, high snow
    "11148900",  # California, Mediterranean
    "11532500",  # California, very wet coast
    "12115000",  # Washington, rain and snow
    "12381400",  # Montana, snow
)
BASIN_PERIOD = slice("1989-10-01", "1999-09-30")

TOWERS = ("AU-DaS", "AU-Emr", "DK-Sor", "IT-Ren", "NL-Loo", "US-ARM", "US-SRM", "US-Ton")
TOWER_PERIOD = slice("2008-01-01", "2013-12-31")
# Neither forcing tokens nor targets: energy balance terms of accepted daytime half-hours only.
TOWER_UNUSED = ("et_daytime", "netrad", "soil_temperature")

# The Texas drought of 2011 and the Midwest flash drought of 2012 are in it.
GRID_PERIOD = slice("2011-01-01", "2013-12-31")
GRID_LAT = np.arange(25.5, 50.0)
GRID_LON = np.arange(-124.5, -67.0)
NEIGHBOURS = 6
SMOOTHING_KM = 30.0
OFFSHORE = {
    "Alaska",
    "American Samoa",
    "Commonwealth of the Northern Mariana Islands",
    "Guam",
    "Hawaii",
    "Puerto Rico",
    "United States Virgin Islands",
}
# name: (step of the packed integers, long name, standard name, units, time method)
GRID_FORCING = {
    "prcp": (0.05, "daily precipitation", "lwe_precipitation_rate", "mm day-1", "mean"),
    "tmax": (0.1, "daily maximum 2 m air temperature", "air_temperature", "degC", "maximum"),
    "tmin": (0.1, "daily minimum 2 m air temperature", "air_temperature", "degC", "minimum"),
    "rsds": (
        1.0,
        "downward shortwave radiation, 24 h mean",
        "surface_downwelling_shortwave_flux_in_air",
        "W m-2",
        "mean",
    ),
    "vp": (
        10.0,
        "water vapour partial pressure",
        "water_vapor_partial_pressure_in_air",
        "Pa",
        "mean",
    ),
}
# Averages of these over neighbouring basins say nothing about a grid cell.
GRID_STATIC_UNUSED = (
    "area_gages2",
    "area_geospa_fabric",
    "dom_land_cover_frac",
    "glim_1st_class_frac",
    "glim_2nd_class_frac",
    "other_frac",
    "root_depth_99",
    "in_531_subset",
    "streamflow_coverage",
)


def bit_round(values: NDArray[np.float32], keep: int) -> NDArray[np.float32]:
    """Keep `keep` bits of the mantissa, round half to even: relative error below 2^-(keep + 1)."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    drop = 23 - keep
    half = np.uint32((1 << (drop - 1)) - 1) + ((bits >> np.uint32(drop)) & np.uint32(1))
    rounded = (bits + half) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def mark_held_out(ds: xr.Dataset, ids: xr.DataArray) -> xr.Dataset:
    """Add the boolean variable `held_out` of the released weights' split."""
    flags = held_out(str(i) for i in ids.values)
    attrs = {
        "long_name": "site held out of the training of the weights that ship with xstefa",
        "comment": "hash split: HashedSites() holds out these sites",
    }
    return ds.assign(held_out=(ids.dims, flags, attrs))


def write(ds: xr.Dataset, path: Path, encoding: dict[str, dict[str, object]]) -> None:
    """Write `ds` compressed, coordinates without fill values."""
    for name, variable in ds.variables.items():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k == "coordinates"}
        own = encoding.setdefault(str(name), {})
        if variable.dtype.kind in "fiu" and variable.ndim:
            own.update(zlib=True, complevel=9, shuffle=True)
        if name in ds.coords:
            own["_FillValue"] = None
    if "time" in ds.variables:
        start = np.datetime_as_string(ds["time"].values[0], unit="D")
        encoding["time"] = {"units": f"days since {start}", "dtype": "int32", "_FillValue": None}
    ds.to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=encoding)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB {dict(ds.sizes)}")


def camels_us(source: Path, out: Path) -> None:
    """Twelve CAMELS basins, ten water years, names and units as in the source."""
    full = xr.open_dataset(source / "camels_us.nc")
    # The source's packing is kept, so its values are too.
    packed = ("dtype", "scale_factor", "add_offset", "_FillValue")
    encoding = {
        name: {k: full[name].encoding[k] for k in packed if k in full[name].encoding}
        for name in ("prcp", "tmax", "tmin", "srad", "vp", "pet")
    }
    leaking = [v for v in full if full[v].attrs.get("attribute_group") == "hydrology"]
    ds = full.drop_vars([*leaking, "streamflow_coverage"])
    ds = ds.sel(basin=list(BASINS), time=BASIN_PERIOD).load()
    for name in ("dayl", "streamflow"):
        ds[name].values = bit_round(ds[name].values, keep=14)
        ds[name].attrs.pop("_QuantizeGranularBitRoundNumberOfSignificantDigits", None)
    ds = mark_held_out(ds, ds["basin"])
    ds.attrs |= {
        "title": "CAMELS-US sample bundled with xstefa: 12 of the 671 basins, "
        "water years 1990-1999, daily Daymet forcing, observed streamflow, static attributes",
        "comment": f"{full.attrs['comment']} This sample leaves out the attributes computed from "
        "the observed streamflow (group hydrology) and rounds dayl and streamflow to 15 "
        "significant bits.",
        "history": "subset by ci/build_sample.py of xstefa",
    }
    write(ds, out / "camels_us.nc", encoding)


def fluxnet(source: Path, out: Path) -> None:
    """Eight FLUXNET2015 towers, six years, names and units as in the source."""
    full = xr.open_dataset(source / "fluxnet_daily.nc")
    ids = [str(i) for i in full["station_id"].values]
    ds = full.drop_vars(list(TOWER_UNUSED)).sel(time=TOWER_PERIOD)
    ds = ds.isel(station=[ids.index(i) for i in TOWERS]).load()
    ds["station"] = ds["station"].copy(data=np.arange(len(TOWERS)))
    ds = ds.sel(swc_layer=ds["swc"].notnull().any(["station", "time"]))
    for name, variable in ds.data_vars.items():
        if variable.dtype == np.float32:
            ds[name].values = bit_round(variable.values, keep=12)
    ds = mark_held_out(ds, ds["station_id"])
    ds.attrs |= {
        "title": "FLUXNET2015 sample bundled with xstefa: 8 towers, 2008-2013, daily forcing, "
        "evapotranspiration and soil water content",
        "site_ids": " ".join(TOWERS),
        "comment": "29 February is missing in the source and left missing here. Not an official "
        "FLUXNET product. Values rounded to 13 significant bits.",
        "history": "subset by ci/build_sample.py of xstefa",
    }
    write(ds, out / "fluxnet.nc", {})


def state_rings(source: Path) -> dict[str, list[NDArray[np.float64]]]:
    """Read the rings (lon, lat) of each state of the conterminous US."""
    collection = json.loads((source / "us_states.geojson").read_text())
    return {
        feature["properties"]["name"]: [
            np.array(ring) for polygon in feature["geometry"]["coordinates"] for ring in polygon
        ]
        for feature in collection["features"]
        if feature["properties"]["name"] not in OFFSHORE
    }


def land(source: Path) -> NDArray[np.bool_]:
    """Mark the cells of the 1 degree grid that are at least half US land, from 10 x 10 points."""
    offset = (np.arange(10) - 4.5) / 10
    lon, lat = np.meshgrid(
        (GRID_LON[:, None] + offset).ravel(), (GRID_LAT[:, None] + offset).ravel()
    )
    points = np.column_stack([lon.ravel(), lat.ravel()])
    inside = np.zeros(len(points), dtype=bool)
    for rings in state_rings(source).values():
        for ring in rings:
            inside |= Polygon(ring).contains_points(points)
    cells = inside.reshape(GRID_LAT.size, 10, GRID_LON.size, 10)
    return cells.mean(axis=(1, 3)) >= 0.5


def great_circle_km(
    lat1: NDArray[np.float64],
    lon1: NDArray[np.float64],
    lat2: NDArray[np.float64],
    lon2: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Haversine distance in km on a sphere of radius 6371 km, degrees in, broadcasting."""
    phi1, phi2 = np.deg2rad(lat1), np.deg2rad(lat2)
    a = (
        np.sin((phi2 - phi1) / 2) ** 2
        + np.cos(phi1) * np.cos(phi2) * np.sin(np.deg2rad(lon2 - lon1) / 2) ** 2
    )
    return 2 * 6371.0 * np.arcsin(np.sqrt(a))


def conus_grid(source: Path, out: Path) -> None:
    """One-degree grid over the conterminous US, interpolated from the CAMELS basins."""
    basins = xr.open_dataset(source / "camels_us.nc").sel(time=GRID_PERIOD)
    basins["rsds"] = basins["srad"] * basins["dayl"] / 86400
    mask = land(source)
    rows, cols = np.nonzero(mask)
    distance = great_circle_km(
        GRID_LAT[rows, None], GRID_LON[cols, None], basins["lat"].values, basins["lon"].values
    )
    far = np.sort(distance, axis=1)[:, [NEIGHBOURS]]
    weight = np.where(distance < far, 1 / (distance**2 + SMOOTHING_KM**2), 0.0)

    def interpolate(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weighted mean over the basins that have a value: (basin, ...) to (..., lat, lon)."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        known = np.isfinite(flat)
        total = weight @ np.where(known, flat, 0.0)
        with np.errstate(invalid="ignore"):
            cells = total / (weight @ known)
        grid = np.full((cells.shape[1], *mask.shape), np.nan, dtype=np.float32)
        grid[:, rows, cols] = cells.T
        return grid.reshape(*values.shape[1:], *mask.shape)

    ds = xr.Dataset(
        coords={
            "time": basins["time"],
            "lat": ("lat", GRID_LAT, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", GRID_LON, {"standard_name": "longitude", "units": "degrees_east"}),
        }
    )
    ds["lat"].attrs |= {"long_name": "latitude", "axis": "Y"}
    ds["lon"].attrs |= {"long_name": "longitude", "axis": "X"}
    encoding: dict[str, dict[str, object]] = {}
    for name, (step, long_name, standard_name, units, method) in GRID_FORCING.items():
        attrs = {
            "long_name": f"{long_name}, interpolated from CAMELS basins",
            "standard_name": standard_name,
            "units": units,
            "cell_methods": f"area: mean time: {method}",
            "grid_mapping": "crs",
        }
        ds[name] = (("time", "lat", "lon"), interpolate(basins[name].values), attrs)
        # A tile of the map with all its days: what a prediction reads at once.
        encoding[name] = {
            "dtype": "int16",
            "scale_factor": np.float32(step),
            "_FillValue": np.int16(-32768),
            "chunksizes": (ds.sizes["time"], 13, 15),
        }
    for static, variable in basins.data_vars.items():
        if (
            variable.dims == ("basin",)
            and variable.dtype == np.float32
            and variable.attrs["attribute_group"] != "hydrology"
            and static not in GRID_STATIC_UNUSED
        ):
            attrs = {k: variable.attrs[k] for k in ("long_name", "units", "attribute_group")}
            values = bit_round(interpolate(variable.values), keep=12)
            ds[static] = (("lat", "lon"), values, {**attrs, "grid_mapping": "crs"})
    nearest = np.full(mask.shape, np.nan, dtype=np.float32)
    nearest[rows, cols] = distance.min(axis=1)
    ds["gauge_distance"] = (
        ("lat", "lon"),
        bit_round(nearest, keep=12),
        {
            "long_name": "distance from the cell centre to the nearest gauge interpolated from",
            "units": "km",
            "grid_mapping": "crs",
        },
    )
    ds["crs"] = ((), np.int32(0), {**CRS.from_epsg(4326).to_cf()})
    ds.attrs = {
        "Conventions": "CF-1.10",
        "title": "Interpolated demonstration data, not observations: CAMELS-US basin forcing and "
        "attributes spread over a 1 degree grid of the conterminous US, 2011-2013",
        "source": basins.attrs["source"],
        "institution": basins.attrs["institution"],
        "references": basins.attrs["references"]
        + "; Shepard 1968, doi:10.1145/800186.810616 (interpolation)",
        "license": basins.attrs["license"],
        "comment": "Inverse-distance weighting (Shepard 1968): each cell is the mean of the "
        f"{NEIGHBOURS} nearest of {basins.sizes['basin']} basins, weights 1 / (d^2 + "
        f"{SMOOTHING_KM:g}^2) with d the great-circle distance in km from cell centre to gauge. "
        "All basins take part, those held out of training included: forcing and attributes are "
        "inputs, no streamflow is used. No elevation correction: temperature and elev_mean "
        "are averages with the same weights, so they belong together but lie above the true "
        "terrain where gauges are in mountains. Averaging makes rain more frequent and extremes "
        "smaller than at a point. gauge_distance says how far the support is. Cells with less "
        "than half US land are missing.",
        "history": "interpolated by ci/build_sample.py of xstefa",
    }
    write(ds, out / "conus_grid.nc", encoding)


def landslides(source: Path, out: Path) -> None:
    """Points with and without landslides, and every second pixel of the terrain around them."""
    full = xr.open_dataset(source / "world/landslide_ecuador.nc", decode_coords="all")
    origin = {k: full.attrs[k] for k in ("Conventions", "source", "license", "references")}
    points = full.drop_dims(["y", "x"]).drop_vars("crs")
    for axis in "xy":
        points[f"point_{axis}"].attrs["long_name"] = f"{axis} of UTM 17 S"
    points.attrs = origin | {
        "title": "Landslide initiation points, Reserva Biologica San Francisco, southern Ecuador",
        "featureType": "point",
        "comment": full.attrs["comment"],
        "history": "subset by ci/build_sample.py of xstefa",
    }
    write(points, out / "landslides.nc", {})
    grids = [name for name in full.data_vars if str(name).startswith("grid_")]
    terrain = full[grids].rename({name: str(name).removeprefix("grid_") for name in grids})
    terrain = terrain.drop_vars(["lat", "lon"], errors="ignore")
    terrain = terrain.isel(y=slice(None, None, 2), x=slice(None, None, 2)).load()
    for name, variable in terrain.data_vars.items():
        keep = 14 if name == "elev" else 9
        terrain[name] = variable.copy(data=bit_round(variable.values.astype("f4"), keep=keep))
    terrain.attrs = origin | {
        "title": "Terrain of the landslide initiation points, Reserva Biologica San Francisco",
        "comment": "Derived at 10 m; every second pixel of either axis, none of them averaged. "
        "Values rounded to 15 (elevation) and 10 significant bits.",
        "history": "subset by ci/build_sample.py of xstefa",
    }
    write(terrain, out / "landslide_terrain.nc", {})


def simplify(line: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Douglas-Peucker: drop points nearer than `tolerance` to the line that is left."""
    keep = np.zeros(len(line), dtype=bool)
    keep[[0, -1]] = True
    todo = [(0, len(line) - 1)]
    while todo:
        first, last = todo.pop()
        between = line[first + 1 : last] - line[first]
        if not len(between):
            continue
        chord = line[last] - line[first]
        length = np.hypot(*chord)
        if length > 0:
            gap = np.abs(chord[0] * between[:, 1] - chord[1] * between[:, 0]) / length
        else:
            gap = np.hypot(between[:, 0], between[:, 1])
        if gap.max() > tolerance:
            split = first + 1 + int(gap.argmax())
            keep[split] = True
            todo += [(first, split), (split, last)]
    return line[keep]


def us_outline(source: Path, out: Path) -> None:
    """State borders as lines, thin enough for a map of the country."""
    features = []
    for name, rings in sorted(state_rings(source).items()):
        lines = [simplify(ring, 0.02) for ring in rings]
        # Islands below about 10 km are specks at this scale.
        lines = [line.tolist() for line in lines if np.ptp(line, axis=0).max() > 0.1]
        features.append(
            {
                "type": "Feature",
                "properties": {"name": name},
                "geometry": {"type": "MultiLineString", "coordinates": lines},
            }
        )
    collection = {
        "type": "FeatureCollection",
        "attribution": "US Atlas, ISC licence, after US Census Bureau boundaries; simplified",
        "features": features,
    }
    path = out / "us_outline.geojson"
    path.write_text(json.dumps(collection, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def world_outline(source: Path, out: Path) -> None:
    """Coasts as rings and borders on land as lines, each once, for maps of continents."""
    import shapely

    features = json.loads((source / "ne_110m_countries.geojson").read_text())["features"]
    countries = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    land = shapely.unary_union([shapely.set_precision(each, 0.01) for each in countries])
    outside = shapely.unary_union(
        [ring for part in land.geoms for ring in (part.exterior, *part.interiors)]
    )
    inside = [shapely.set_precision(each.boundary, 0.01) for each in countries]
    borders = shapely.unary_union(inside).difference(outside.buffer(0.02))
    shapes = {"land": shapely.orient_polygons(land), "borders": shapely.line_merge(borders)}
    collection = {
        "type": "FeatureCollection",
        "attribution": "Natural Earth 1:110m, public domain; neighbours joined, rounded",
        "features": [
            {
                "type": "Feature",
                "properties": {"name": name},
                "geometry": json.loads(shapely.to_geojson(shape)),
            }
            for name, shape in shapes.items()
        ],
    }
    path = out / "world_outline.geojson"
    path.write_text(json.dumps(collection, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


BUILDERS: dict[str, Callable[[Path, Path], None]] = {
    "camels_us": camels_us,
    "fluxnet": fluxnet,
    "conus_grid": conus_grid,
    "landslides": landslides,
    "us_outline": us_outline,
    "world_outline": world_outline,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the chosen files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the source data")
    default = Path(__file__).resolve().parents[1] / "xstefa" / "datasets"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to")
    parser.add_argument("--only", nargs="+", choices=sorted(BUILDERS), default=list(BUILDERS))
    chosen = parser.parse_args(arguments)
    for name in chosen.only:
        BUILDERS[name](chosen.source, chosen.out)


if __name__ == "__main__":
    main()
