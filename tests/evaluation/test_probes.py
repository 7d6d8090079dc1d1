"""A bucket that conserves water passes all probes; each way to break it fails the row that asks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.binding import bind
from xstefa.cli import main
from xstefa.errors import CalendarError, LayoutError, OptionError
from xstefa.evaluation import probing
from xstefa.evaluation.probe_weather import CHANGES, Weather
from xstefa.evaluation.probes import PROBES, Answers

CAPACITY = 150.0


def bucket(
    ds: xr.Dataset, *, snow: bool = True, lost: float = 0.0, demand: bool = True
) -> xr.DataArray:
    """Snow that melts by degree-days, a soil that evaporates and overflows, a slow store."""
    rain, warmth, pet = (
        ds[name].transpose("time", "site").values.astype(float)
        for name in ("precipitation", "temperature_mean", "potential_evapotranspiration")
    )
    if not demand:
        pet = np.full_like(pet, 2.0)
    frozen = np.where(warmth < 1, rain, 0) if snow else 0 * rain
    falls, melts = rain - frozen, 4 * np.maximum(warmth - 1, 0)
    pack, soil, slow = (np.full(rain.shape[1], stored) for stored in (0.0, 80.0, 20.0))
    found = []
    for fall, stays, may, e in zip(
        falls, frozen * (1 - lost), melts, np.maximum(pet, 0), strict=True
    ):
        pack = pack + stays
        melt = np.minimum(pack, may)
        pack, water = pack - melt, fall + melt
        quick = water * (soil / CAPACITY) ** 2
        full = soil + water - quick
        soil = np.minimum(full, CAPACITY)
        over = full - soil
        soil = soil - np.minimum(soil, e * np.minimum(1.4 * soil / CAPACITY, 1))
        leaks = 0.02 * soil
        soil, slow = soil - leaks, slow + quick + over + leaks
        found.append(0.1 * slow)
        slow = 0.9 * slow
    return xr.DataArray(np.array(found), dims=("time", "site"), coords=ds.coords)


def rain(ds: xr.Dataset) -> xr.DataArray:
    return ds.precipitation.transpose("time", "site")


def later(flow: xr.DataArray, days: int) -> xr.DataArray:
    return flow.shift(time=days, fill_value=0.0)


def clock(ds: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(np.arange(ds.sizes["time"]), dims="time")


BROKEN: dict[str, tuple[Callable[[xr.Dataset], xr.DataArray], str]] = {
    "smooths over days to come": (
        lambda ds: bucket(ds).rolling(time=5, center=True, min_periods=1).mean(),
        "no anticipation",
    ),
    "knows how the record ends": (
        lambda ds: bucket(ds) * (1 + 0.1 * rain(ds).isel(time=-1)),
        "no anticipation, cut",
    ),
    "does not answer": (lambda ds: 0 * bucket(ds) + 1, "response"),
    "overshoots": (
        lambda ds: 20 * bucket(ds) - 19 * later(bucket(ds), 1),
        "more rain, no day less",
    ),
    "saturates": (lambda ds: np.minimum(bucket(ds), 1.0), "larger storms run off"),
    "turns down": (
        lambda ds: bucket(ds) - 3 * (rain(ds) - 200).clip(min=0),
        "larger storms, more flow",
    ),
    "amplifies": (
        lambda ds: bucket(ds) + 0.05 * bucket(ds) ** 2,
        "larger storms, no more than fell",
    ),
    "is drier with more rain": (lambda ds: 50 / (1 + bucket(ds)), "wetter climate"),
    "flows as a power of rain": (lambda ds: 1e-4 * rain(ds) ** 4, "elasticity"),
    "goes on with the seasons": (
        lambda ds: bucket(ds) + 1 + np.sin(clock(ds) / 58),
        "recession",
    ),
    "never settles": (lambda ds: bucket(ds) * (1 + 0.2 * np.sin(clock(ds) / 5)), "steady state"),
    "drifts": (lambda ds: bucket(ds) * (1 + clock(ds) / 3000), "cycle"),
    "remembers how it began": (
        lambda ds: bucket(ds) + rain(ds).isel(time=slice(30)).mean("time"),
        "spin-up forgotten",
    ),
    "has no memory": (lambda ds: 0.4 * rain(ds), "memory"),
    "knows the year": (
        lambda ds: bucket(ds) * (1 + 0.01 * (ds.time.dt.year - 1990)),
        "calendar, 28 years",
    ),
    "knows the season": (
        lambda ds: bucket(ds) * (1 + 0.1 * np.sin(ds.time.dt.dayofyear / 58)),
        "calendar, 40 days",
    ),
    "loses snow": (lambda ds: bucket(ds, lost=0.6), "snow is water"),
    "has no snow": (lambda ds: bucket(ds, snow=False), "snow stays"),
    "never melts earlier": (lambda ds: bucket(ds, snow=False), "warming, earlier melt"),
    "does not evaporate more": (lambda ds: bucket(ds, demand=False), "more demand, less water"),
    "does not feel warmth": (lambda ds: bucket(ds, demand=False), "warming, less flow"),
    "does not feel cold": (lambda ds: bucket(ds, demand=False), "cooling, more flow"),
    "makes water": (lambda ds: bucket(ds) + 0.8 * rain(ds), "water limit"),
    "swallows water": (lambda ds: 0.01 * bucket(ds), "energy limit"),
    "leaks by area": (lambda ds: bucket(ds) / (1 + 1e-4 * ds.catchment_area), "area"),
    "looks at its neighbours": (
        lambda ds: bucket(ds) + bucket(ds).isel(site=0, drop=True),
        "neighbours",
    ),
    "is negative": (lambda ds: bucket(ds) - 0.5, "possible"),
    "is no number": (lambda ds: bucket(ds).where(rain(ds) < 400), "possible"),
}


@pytest.fixture(scope="module")
def basins() -> xr.Dataset:
    """A wet basin, a snowy and a dry one."""
    sample = xstefa.open_sample("camels_us").sel(basin=["12115000", "09066000", "06352000"])
    names = ["prcp", "tmax", "tmin", "pet", "area_gages2"]
    return sample[[name for name in names if name in sample]].load()


def test_a_bucket_passes(basins) -> None:
    found = basins.stefa.probe(bucket)
    assert not found.failed, found
    asked = {probe.name for probe in PROBES if probe.of != "state"} - {*found.passed}
    assert asked == {"units", "closure", "evaporation, no more than demand"}
    assert all(found[name].verdict == "not asked" for name in asked)
    assert found["warming, earlier melt"].asked.count(True) < 3  # not where there is no snow


@pytest.fixture(scope="module")
def changed(basins) -> dict[str, Weather]:
    weather, _ = Weather.of(bind(basins, xstefa.load_schema()), sites=3)
    return {name: change(weather) for name, change in CHANGES.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_fails(name, changed) -> None:
    model, row = BROKEN[name]
    said, _ = probing._asked(model, changed, ("streamflow",), {})
    answers = Answers(weather=changed, said=said, limits=(0, 2000))
    (probe,) = (probe for probe in PROBES if probe.name == row)
    assert probing._row(probe, answers, []).verdict == "fail"


def test_each_row_of_flow_has_a_broken_model() -> None:
    probes = {p.name for p in PROBES if p.of != "state" and not {"stores", "model"} & {*p.needs}}
    assert probes == {row for _, row in BROKEN.values()}


@pytest.fixture
def streamflow(make_model):
    return make_model(name="a bucket", target="streamflow", causal=False)


def answering(monkeypatch, *, units: bool = True, missing: float = 0.0) -> None:
    """Let a bucket answer in place of a network, with the water that it has not let off."""

    def predict(data, targets, *, model, rename, **_):
        assert rename["precipitation"] == "precipitation"
        if units and data.precipitation.attrs["units"] != "mm d-1":
            data = data.assign(
                precipitation=data.precipitation * 86400,
                temperature_mean=data.temperature_mean - 273.15,
            )
        flow = bucket(data)
        kept = (rain(data) * (1 - missing) - flow).cumsum("time")
        stored = {"streamflow": flow, "evapotranspiration": 0 * flow, "soil_water_storage": kept}
        return xr.Dataset({name: stored.get(name, 0 * flow) for name in targets})

    monkeypatch.setattr(probing, "predict", predict)


@pytest.mark.parametrize("units", [True, False])
def test_units_are_read_or_not(units, basins, streamflow, monkeypatch) -> None:
    answering(monkeypatch, units=units)
    found = basins.stefa.probe(streamflow)
    assert found["units"].verdict == ("pass" if units else "fail")
    assert found["closure"].verdict == "not asked"


@pytest.mark.parametrize(("missing", "verdict"), [(0.0, "pass"), (0.05, "fail")])
def test_where_there_are_stores_they_close(missing, verdict, basins, monkeypatch) -> None:
    answering(monkeypatch, missing=missing)
    model = xstefa.load_model("water-balance")
    assert basins.stefa.probe(model)["closure"].verdict == verdict


def test_moisture_is_asked_what_moisture_can_answer(basins) -> None:
    def moisture(ds):
        stored = 0.1 + 0.3 * (1 - np.exp(-bucket(ds) / 20))
        return stored + 0.0 * rain(ds)

    found = basins.stefa.probe(moisture, target="soil_moisture")
    assert not found.failed, found
    assert "memory of moisture" in found.passed
    assert not {"water limit", "elasticity"} & {*found.passed}
    for broken, row in (
        (lambda ds: moisture(ds) - 0.01 * (rain(ds) > 100), "more rain, no day drier"),
        (
            lambda ds: 0.3 - 1e-5 * rain(ds).rolling(time=12, min_periods=1).sum(),
            "larger storms, wetter",
        ),
        (lambda ds: 0.001 * rain(ds), "memory of moisture"),
    ):
        assert row in basins.stefa.probe(broken, target="soil_moisture").failed


def test_it_can_be_read(basins) -> None:
    found = basins.isel(basin=[0, 1]).stefa.probe(bucket, sites=2)
    text, html = repr(found), found._repr_html_()
    assert "bucket (streamflow)" in text
    assert "mass/causality" in text
    assert "<table" in html
    table, numbers = found.to_pandas(), found.to_dataset()
    assert table.loc["elasticity", "verdict"] == "pass"
    assert numbers.number.sizes == {"probe": len(found.rows), "site": 2}
    assert bool(numbers.passed.sel(probe="elasticity").all())
    assert set(numbers.site.values) == set(basins.basin.values[:2])


def test_short_records_are_repeated_and_gaps_filled(basins) -> None:
    short = basins.isel(time=slice(800), basin=[0]).copy(deep=True)
    short["prcp"][dict(time=slice(10, 20))] = np.nan
    assert not {"cycle", "possible"} & {*short.stefa.probe(bucket).failed}


def test_maps_are_probed(basins) -> None:
    ds = xstefa.open_sample("conus_grid").isel(lat=[10, 12], lon=[20, 30], time=slice(730))
    found = ds.chunk(time=100).stefa.probe(bucket, sites=2)
    assert len(found.sites) == 2
    assert "no anticipation" in found.passed


def test_errors_teach(basins) -> None:
    with pytest.raises(CalendarError, match="at least 365"):
        basins.isel(time=slice(100)).stefa.probe(bucket)
    with pytest.raises(OptionError, match="leave target= out"):
        basins.stefa.probe("streamflow", target="soil_moisture")


def test_one_basin_without_a_dimension(basins) -> None:
    one = basins.isel(time=slice(800))
    expected = one.isel(basin=[0]).stefa.probe(bucket).to_dataset()
    assert one.isel(basin=0).stefa.probe(bucket).to_dataset().equals(expected)


def test_a_function_may_reorder_and_change_what_it_is_given(basins) -> None:
    def careless(ds: xr.Dataset) -> xr.DataArray:
        found = bucket(ds.sortby("site", ascending=False)).isel(time=slice(None, None, -1))
        ds["precipitation"][:] = 0
        return found

    short = basins.isel(time=slice(800))
    expected = short.stefa.probe(bucket).to_dataset()
    assert short.stefa.probe(careless).to_dataset().equals(expected)
    named = short.rename(basin="site")
    assert named.stefa.probe(bucket).to_dataset().equals(expected)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda ds: rain(ds).values, "Found ndarray"),
        (lambda ds: None, "Found NoneType"),
        (lambda ds: ds[["precipitation"]], "Found Dataset"),
        (lambda ds: rain(ds).mean("site"), "Found DataArray {'time': 2555}"),
        (lambda ds: rain(ds)[365:], "Found DataArray {'time': 2190"),
    ],
)
def test_a_wrong_function_is_told(basins, wrong, found) -> None:
    with pytest.raises(LayoutError, match=f"'<lambda>': a function that is probed.*{found}"):
        basins.isel(time=slice(400)).stefa.probe(wrong)


def test_it_has_to_rain(basins) -> None:
    some = basins.isel(time=slice(400))
    for dry in (
        some.isel(basin=[]),
        some.assign(prcp=some.prcp * np.nan),
        some.assign(prcp=0 * some.prcp),
    ):
        with pytest.raises(LayoutError, match="no site where it rains"):
            dry.assign(prcp=dry.prcp.assign_attrs(some.prcp.attrs)).stefa.probe(bucket)


def test_it_is_a_command(basins, tmp_path, monkeypatch) -> None:
    answering(monkeypatch)
    source, out = tmp_path / "in.nc", tmp_path / "out.nc"
    basins.to_netcdf(source)
    monkeypatch.setattr("xstefa.cli.xstefa.open_sample", lambda name: xr.open_dataset(source))
    for asked in ([str(source), str(out)], []):
        done = CliRunner().invoke(main, ["probe", *asked, "--model", "streamflow"])
        assert done.exit_code == 0, done.output
        assert "no anticipation, cut" in done.output
    with xr.open_dataset(out) as found:
        assert found.passed.sizes["site"] == 3
