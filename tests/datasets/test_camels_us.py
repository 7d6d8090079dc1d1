"""The official text files of CAMELS-US, written from the bundled sample and read back."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xstefa
from xstefa.binding import bind
from xstefa.datasets.camels_us import CamelsUsBackend
from xstefa.errors import LayoutError, OptionError

DAYS = 60
CLIM = ["p_mean", "pet_mean", "p_seasonality", "frac_snow", "aridity", "high_prec_freq",
        "high_prec_dur", "high_prec_timing", "low_prec_freq", "low_prec_dur",
        "low_prec_timing"]  # fmt: skip
TOPO = ["lat", "lon", "elev_mean", "slope_mean", "area_gages2", "area_geospa_fabric"]
GEOL = ["geol_1st_class", "glim_1st_class_frac", "geol_2nd_class", "glim_2nd_class_frac",
        "carbonate_rocks_frac", "geol_porosity", "geol_permeability"]  # fmt: skip
HEADER = "Year Mnth Day Hr\tdayl(s)\tprcp(mm/day)\tsrad(W/m2)\tswe(mm)\ttmax(C)\ttmin(C)\tvp(Pa)\n"


@pytest.fixture(scope="module")
def sample():
    return xstefa.open_sample("camels_us").isel(basin=slice(0, 3), time=slice(0, DAYS)).load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample):
    """Write three basins as the archive has them: a shorter record, a gap and missing flow."""
    root = tmp_path_factory.mktemp("camels")
    public = root / "basin_dataset_public_v1p2"
    for number, basin in enumerate(sample["basin"].values):
        one = sample.sel(basin=basin)
        one = one.isel(time=slice(5, None)) if number == 1 else one
        huc = str(one["huc_02"].item())
        forcing = public / "basin_mean_forcing" / "daymet" / huc
        forcing.mkdir(parents=True, exist_ok=True)
        stamps = pd.DatetimeIndex(one["time"].values)
        columns = np.column_stack(
            [one[n] if n != "swe" else 0 * one["prcp"]
             for n in ("dayl", "prcp", "srad", "swe", "tmax", "tmin", "vp")]
        )  # fmt: skip
        lines = [
            f"{day:%Y %m %d} 12\t" + "\t".join(f"{value:.4f}" for value in row) + "\n"
            for day, row in zip(stamps, columns, strict=True)
        ]
        head = f"{one['lat'].item():.5f}\n{one['elev_mean'].item():.2f}\n"
        head += f"{int(one['area_geospa_fabric'].item() * 1e6)}\n"
        (forcing / f"{basin}_lump_cida_forcing_leap.txt").write_text(head + HEADER + "".join(lines))
        flow = public / "usgs_streamflow" / huc
        flow.mkdir(parents=True, exist_ok=True)
        feet = one["streamflow"] * one["area_gages2"] / 86.4 / 0.028316846592
        rows = [
            f"{basin} {day:%Y %m %d} {-999 if i == 7 else f'{q:10.4f}'} A\n"
            for i, (day, q) in enumerate(zip(stamps, feet.values, strict=True))
            if i != 9
        ]
        (flow / f"{basin}_streamflow_qc.txt").write_text("".join(rows))
    attributes = root / "camels_attributes_v2.0"
    attributes.mkdir()
    for name, columns in {"clim": CLIM, "topo": TOPO, "geol": GEOL}.items():
        table = sample[columns].to_dataframe()[columns]
        # As spelt in the archive.
        table = table.rename(
            columns={"lat": "gauge_lat", "lon": "gauge_lon", "geol_porosity": "geol_porostiy"}
        )
        table.rename_axis("gauge_id").to_csv(attributes / f"camels_{name}.txt", sep=";",
                                             na_rep="NA")  # fmt: skip
    names = sample[["huc_02", "gauge_name"]].to_dataframe()[["huc_02", "gauge_name"]]
    names.rename_axis("gauge_id").to_csv(attributes / "camels_name.txt", sep=";")
    return root


@pytest.fixture
def opened(folder):
    return xr.open_dataset(folder, engine=CamelsUsBackend)


def test_series_are_those_of_the_files(opened, sample):
    assert dict(opened.sizes) == {"basin": 3, "time": DAYS}
    for name in ("prcp", "tmax", "tmin", "srad", "vp", "dayl"):
        expected = sample[name].copy()
        expected[1, :5] = np.nan
        np.testing.assert_allclose(opened[name], expected, atol=1e-4)
        assert opened[name].dtype == np.float32
    flow = opened["streamflow"].values
    assert np.isnan(flow[0, [7, 9]]).all()
    keep = [i for i in range(DAYS) if i not in (7, 9)]
    np.testing.assert_allclose(flow[0, keep], sample["streamflow"][0, keep], rtol=1e-4)
    assert np.isnan(flow[1, [0, 12, 14]]).all()


def test_attributes_and_places_come_along(opened, sample):
    np.testing.assert_allclose(opened["slope_mean"], sample["slope_mean"], rtol=1e-6)
    np.testing.assert_allclose(opened["lat"], sample["lat"], rtol=1e-6)
    assert opened["gauge_name"].values.tolist() == sample["gauge_name"].values.tolist()
    assert opened["huc_02"].values.tolist() == sample["huc_02"].values.tolist()
    assert "geol_porostiy" not in opened
    assert opened["geol_porosity"].attrs["units"] == "1"
    assert opened["basin"].attrs["cf_role"] == "timeseries_id"


def test_it_binds_as_the_sample_does(opened, sample):
    schema = xstefa.load_schema()
    found, expected = bind(opened, schema), bind(sample, schema)
    sample_only = {"potential_evapotranspiration"}  # derived by the sample's builder
    for token in found.table.matched:
        if token not in sample_only:
            assert found.table[token].variables == expected.table[token].variables
    assert found.layout.support == "point"
    assert found.table["potential_evapotranspiration"].rule == "derived: Hargreaves-Samani 1985"
    assert {"precipitation", "shortwave_down", "catchment_area", "geol_porosity"} <= set(
        found.table.matched
    )
    assert found.observed("streamflow") is not None
    found.check_ranges()


def test_nothing_is_read_before_it_is_used(folder, monkeypatch):
    def refuse(path):
        raise AssertionError("a file was read")

    monkeypatch.setattr("xstefa.datasets.camels_us._read_forcing", refuse)
    monkeypatch.setattr("xstefa.datasets.series.SITES_A_CHUNK", 2)
    ds = xr.open_dataset(folder, engine=CamelsUsBackend, chunks={})
    assert ds.chunksizes["basin"] == (2, 1)
    bind(ds, xstefa.load_schema())


@pytest.mark.parametrize(
    "pick",
    [
        {"basin": 1, "time": slice(10, 20)},
        {"basin": [2, 0], "time": [30, 3]},
        {"basin": slice(None, None, -1), "time": -1},
        {"basin": slice(0, 0)},
        {"basin": xr.DataArray([0, 1], dims="p"), "time": xr.DataArray([6, 7], dims="p")},
    ],
)
def test_parts_are_parts_of_the_whole(folder, opened, pick):
    lazily = xr.open_dataset(folder, engine=CamelsUsBackend)["tmax"].isel(pick)
    xr.testing.assert_identical(lazily.load(), opened["tmax"].load().isel(pick))


def test_it_travels_to_other_processes(folder, opened):
    again = pickle.loads(pickle.dumps(xr.open_dataset(folder, engine=CamelsUsBackend)))
    xr.testing.assert_identical(again["prcp"], opened["prcp"])


def test_the_inner_folder_and_missing_attributes_will_do(folder, tmp_path):
    inner = folder / "basin_dataset_public_v1p2"
    assert "p_mean" in xr.open_dataset(inner, engine=CamelsUsBackend)
    moved = tmp_path / "basin_dataset_public_v1p2"
    moved.symlink_to(inner)
    ds = xr.open_dataset(tmp_path, engine=CamelsUsBackend)
    assert "p_mean" not in ds
    assert ds["elev_mean"].attrs["units"] == "m"
    assert "lat" in ds.coords
    assert ds["streamflow"].attrs["comment"].endswith("the forcings' area")


def test_drop_variables_and_guessing(folder, tmp_path):
    assert CamelsUsBackend().guess_can_open(folder)
    assert CamelsUsBackend().guess_can_open(str(folder / "basin_dataset_public_v1p2"))
    assert not CamelsUsBackend().guess_can_open(folder / "camels_attributes_v2.0")
    assert not CamelsUsBackend().guess_can_open(tmp_path)
    assert not CamelsUsBackend().guess_can_open(3)
    ds = xr.open_dataset(folder, engine=CamelsUsBackend, drop_variables=["vp", "p_mean"])
    assert not {"vp", "p_mean"} & set(ds)


def test_other_folders_and_forcings_are_refused_with_the_fix(folder, tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(LayoutError, match="basin_dataset_public_v1p2"):
            xr.open_dataset(path, engine=CamelsUsBackend)
    with pytest.raises(LayoutError, match="basin_mean_forcing/maurer"):
        xr.open_dataset(folder, engine=CamelsUsBackend, forcing="maurer")
    with pytest.raises(OptionError, match="daymet"):
        xr.open_dataset(folder, engine=CamelsUsBackend, forcing="era5")


def test_extended_forcings_have_the_same_format(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "camels")
    forcings = tmp_path / "camels" / "basin_dataset_public_v1p2" / "basin_mean_forcing"
    (forcings / "daymet").rename(forcings / "maurer_extended")
    found = xr.open_dataset(tmp_path / "camels", engine=CamelsUsBackend, forcing="maurer_extended")
    xr.testing.assert_equal(found, xr.open_dataset(folder, engine=CamelsUsBackend))
