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
    binding.check_ranges(days=8)

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
