"""What is understood of the real files, opened in both ways; skipped where they are absent."""

import numpy as np
import pytest

from xstefa.binding import bind, plan

EXPECTED = {
    "camels_us.nc": {
        "precipitation": ("prcp",),
        "temperature_mean": ("tmax", "tmin"),
        "shortwave_down": ("srad", "dayl"),
        "relative_humidity": ("vp", "tmax", "tmin"),
        "potential_evapotranspiration": ("pet",),
        "catchment_area": ("area_gages2",),
        "depth_to_bedrock": ("soil_depth_pelletier",),
    },
    "mopex_us.nc": {
        "precipitation": ("prcp",),
        # Its own "pet" is a climatology.
        "potential_evapotranspiration": ("tmax", "tmin"),
        "pet_mean": ("pet_mean",),
        "soil_conductivity": ("soil_ksat",),
        "sand": (),
        "clay": (),
    },
    "fluxnet_daily.nc": {
        "precipitation": ("precipitation",),
        # Its own "rh" and "ws" cover daytime only.
        "relative_humidity": ("vpd", "tas"),
        "wind_speed": (),
        "elevation": ("alt",),
        "aridity": (),
        "sand": ("sand_topsoil",),
        "topographic_index": ("gti",),
        "root_zone_storage": ("cwdx80",),
    },
    "conus_smap_nldas.nc": {
        "precipitation": ("precipitation",),
        "relative_humidity": ("huss", "tas", "elevation"),
        "wind_speed": ("uas", "vas"),
        "potential_evapotranspiration": ("tas",),
        "ndvi": (),
        "ndvi_mean": ("ndvi",),
        "max_water_content": (),
    },
    "drb_hru.nc": {
        "precipitation": ("precipitation",),
        "relative_humidity": ("hurs",),
        "catchment_area": ("area",),
        "max_water_content": (),
    },
}
OBSERVED = {
    "camels_us.nc": {"streamflow"},
    "mopex_us.nc": {"streamflow"},
    "fluxnet_daily.nc": {"soil_moisture"},
    "conus_smap_nldas.nc": {"soil_moisture"},
    "drb_hru.nc": set(),
}


@pytest.mark.parametrize("chunks", [None, {}], ids=["eager", "chunked"])
@pytest.mark.parametrize("name", EXPECTED)
def test_tokens_of_real_files(shared, schema, name, chunks):
    ds = shared(name, chunks=chunks)
    binding = bind(ds, schema)
    found = {token: binding.table[token].variables for token in EXPECTED[name]}
    assert found == EXPECTED[name]
    binding.check_ranges()

    sites = {dim: slice(0, 8) for dim in binding.layout.site_dims}
    for token, array in {**binding.forcing, **binding.static}.items():
        assert array.dtype == np.float32
        assert (array.chunks is not None) == (chunks is not None)
        few = array.isel({dim: part for dim, part in sites.items() if dim in array.dims})
        low, high = schema[token].valid_range
        inside = few.isnull() | ((few >= low) & (few <= high))
        assert float(inside.mean()) > 0.999, token

    for target in ("soil_moisture", "streamflow"):
        observed = binding.observed(target)
        assert (observed is not None) == (target in OBSERVED[name])
        if observed is not None:
            assert observed.dims == binding.layout.dims
            assert observed.dtype == np.float32


@pytest.mark.parametrize("name", EXPECTED)
def test_planning_reads_no_data(shared, schema, name):
    ds = shared(name)
    repr(plan(ds, schema).table)
    bind(ds, schema)
    assert not any(ds[variable].variable._in_memory for variable in ds.data_vars)


def test_statics_alone_are_understood(shared, schema):
    table = plan(shared("caravan_attributes.nc"), schema).table
    assert table["catchment_area"].variables == ("area",)
    assert table["elevation"].variables == ("ele_mt_sav",)
    assert table["high_precip_freq"].units_found == "1"
    assert table["p_seasonality"].variables == ()


BASINS = {"precipitation": "prcp", "temperature_mean": "tmean", "catchment_area": "area"}
EXTREMES = {"temperature_max": "tmax", "temperature_min": "tmin"}
MAPS = {"precipitation": "precipitation", "temperature_mean": "tas", "elevation": "elevation"}
PET = {"potential_evapotranspiration": "pet"}
WORLD = {
    "camels_de_sample": BASINS
    | EXTREMES
    | {
        "shortwave_down": "srad", "relative_humidity": "rel_hum",
        "potential_evapotranspiration": "tmax, tmin", "elevation": "elev_mean",
        "p_mean": "p_mean", "p_seasonality": "p_seasonality", "snow_fraction": "frac_snow",
        "high_precip_freq": "high_prec_freq", "high_precip_dur": "high_prec_dur",
        "low_precip_freq": "low_prec_freq", "low_precip_dur": "low_prec_dur",
    },
    "camels_fr_sample": BASINS | PET | {"elevation": "elev_mean"},
    "camels_gb_sample": BASINS | PET,
    "canada_sample": BASINS
    | EXTREMES
    | PET
    | {
        "shortwave_down": "srad", "relative_humidity": "dewpoint, tmean",
        "surface_pressure": "pressure",
    },
    # Caravan before 1.5: its evapotranspiration is that of open water, and so are its aridity and
    # mean; HydroATLAS has no units in the file.
    "caravan_sample": BASINS
    | EXTREMES
    | {
        "relative_humidity": "dewpoint, tmean", "potential_evapotranspiration": "tmax, tmin",
        "wind_speed": "wind_u, wind_v", "surface_pressure": "pressure", "elevation": "ele_mt_sav",
        "slope": "slp_dg_sav", "p_mean": "p_mean", "snow_fraction": "frac_snow",
        "high_precip_freq": "high_prec_freq", "high_precip_dur": "high_prec_dur",
        "low_precip_freq": "low_prec_freq", "low_precip_dur": "low_prec_dur",
        "t_mean": "tmp_dc_syr", "sand": "snd_pc_sav", "silt": "slt_pc_sav", "clay": "cly_pc_sav",
        "forest_fraction": "for_pc_sse", "water_fraction": "lka_pc_sse",
        "population_density": "ppd_pk_sav", "gdp": "gdp_ud_sav",
    },
    "switzerland_thur": BASINS | PET | {"elevation": "elev_mean"},
    "moselle_grid": MAPS
    | PET
    | {
        "slope": "slope", "sand": "sand", "clay": "clay", "bulk_density": "bulk_density",
        "forest_fraction": "forest_fraction",
    },
    "rhine_grid_1990": MAPS
    | PET
    | {
        "slope": "slope", "sand": "sand", "silt": "silt", "clay": "clay",
        "soil_conductivity": "ksat", "canopy_height": "canopy_height",
    },
    "stehekin_grid": MAPS
    | {
        "temperature_max": "tasmax", "temperature_min": "tasmin", "wind_speed": "wind",
        "potential_evapotranspiration": "tasmax, tasmin", "soil_conductivity": "ksat",
        "bulk_density": "bulk_density", "lai_max": "lai_max",
    },
}  # fmt: skip
# The file has numbers without units, of which its documentation says none either.
DOUBTED = {"canada_sample": {"elev_mean", "slope_mean"}}


@pytest.mark.parametrize("name", WORLD)
def test_files_from_all_over_the_world_are_understood_without_rename(shared, schema, name):
    made = plan(shared(f"world/{name}.nc"), schema)
    found = {token: ", ".join(source.variables) for token, source in made.sources.items()}
    assert found == WORLD[name]
    assert not made.problems
    assert {doubt.variable for doubt in made.doubts} == DOUBTED.get(name, set())


@pytest.mark.parametrize("name", WORLD)
@pytest.mark.filterwarnings("ignore")
def test_files_from_all_over_the_world_are_predicted(shared, name):
    ds = shared(f"world/{name}.nc")
    grid = "basin" not in ds.dims
    weather = ["precipitation", "tas"] if grid else ["prcp", "tmean"]
    known = ds[weather].to_array().notnull().all("variable")
    first = known.argmax(...)
    place = {dim: [int(first[dim])] for dim in known.dims if dim != "time"}
    last = int(np.flatnonzero(known.isel(place).values.ravel())[-1])
    small = ds.isel(place).isel(time=slice(max(0, last - 400), last + 1))
    answer = small.stefa.predict("soil_moisture" if grid else "streamflow")
    assert answer.isel(time=-1).notnull().all()
