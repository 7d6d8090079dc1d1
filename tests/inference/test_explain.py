"""What each input adds to an answer: it adds up, and whoever says nothing adds nothing."""

from __future__ import annotations

from datetime import date
from itertools import combinations
from math import factorial

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.binding import bind
from xstefa.cli import main
from xstefa.errors import MissingTokenError, ModelError, OptionError
from xstefa.windows import SegmentPolicy

pytestmark = pytest.mark.filterwarnings("ignore::xstefa.inference.run.SpinUpWarning")

DAY = "2000-07-01"
FEW = {"lags": (0, 70, 140), "samples": 1}
SEGMENTS = SegmentPolicy(length=60, spin_up=10, known=0.5)
TOKENS = ("precipitation", "temperature_mean", "sand", "catchment_area")


@pytest.fixture(scope="module")
def stations(make_dataset) -> xr.Dataset:
    ds = make_dataset(days=200, lat=2, lon=2, start="2000-01-05").stack(site=("lat", "lon"))
    ds = ds.reset_index("site").assign_coords(site=["a", "b", "c", "d"])
    ds["shortwave_down"] = ds.shortwave_down.where(ds.site != "b")
    return ds


@pytest.fixture(scope="module")
def causal(make_model):
    """A model that carries a state, and never learned to read radiation."""
    return make_model(causal=True, members=2, windows=SEGMENTS, name="causal", tokens=TOKENS)


@pytest.fixture(scope="module")
def both_ways(make_model):
    return make_model(name="both ways", link="identity")


def total(found: xr.Dataset) -> xr.DataArray:
    return (
        found.baseline
        + found.contribution.sum(["token", "lag"])
        + found.contribution_static.sum("attribute")
        + found.contribution_earlier
    )


@pytest.mark.parametrize("name", ["causal", "both_ways"])
def test_contributions_add_up_to_the_prediction(name, request, stations) -> None:
    model = request.getfixturevalue(name)
    found = stations.stefa.explain(model, day=DAY, **FEW)
    predicted = stations.stefa.predict(model).sel(time=DAY, drop=True)
    np.testing.assert_allclose(found.prediction, predicted, rtol=1e-5)
    np.testing.assert_allclose(total(found), found.prediction, atol=1e-6)
    assert abs(found.contribution.sum("lag")).max("site").sel(token="precipitation") > 1e-4


def dense(model, site: xr.Dataset, until: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network reads of one site: forcings (T, C) and attributes (S,)."""
    spec = model.spec
    binding = bind(site.sel(time=slice(None, until)), spec.schema)
    forcing, static = binding.read().forcings(), binding.read().statics()
    forcing[..., [name not in TOKENS for name in spec.schema.forcing_names]] = np.nan
    static[..., [name not in TOKENS for name in spec.schema.static_names]] = np.nan
    x, c = spec.scaler.standardise(forcing, static)
    return torch.from_numpy(x[0]), torch.from_numpy(c[0])


def test_they_are_shapley_values(causal, stations) -> None:
    """Against every coalition, hidden by hand and asked of the network."""
    site, network = stations.isel(site=0), causal.network_on("cpu")
    x, c = dense(causal, site, DAY)
    rain, warmth = (causal.spec.schema.forcing_names.index(name) for name in TOKENS[:2])
    texture, area = (causal.spec.schema.static_names.index(name) for name in TOKENS[2:])
    begin = len(x) - 141
    bins = {"0": slice(-1, None), "1-70": slice(-71, -1), "71-140": slice(-141, -71)}
    players = [
        *((rain, lag) for lag in bins),
        *((warmth, lag) for lag in bins),
        texture, area, "earlier",
    ]  # fmt: skip

    coalitions = [frozenset(c) for n in range(10) for c in combinations(players, n)]
    forcing, static = (v.repeat(len(coalitions), *[1] * v.ndim) for v in (x, c))
    for row, chosen in enumerate(coalitions):
        for player in set(players) - chosen - {"earlier"}:
            if isinstance(player, tuple):
                forcing[row, bins[player[1]], player[0]] = torch.nan
            else:
                static[row, player] = torch.nan
    with torch.inference_mode():
        _, state = network.follow(x[None, :begin], c[None], None)
        state = {
            name: part.expand(len(coalitions), *part.shape[1:]) for name, part in state.items()
        }
        says = [network.members(forcing[:, begin:], static, past) for past in (None, state)]
        says = [each[:, -1].mean(-1).double().numpy() for each in says]
    worth = {c: says["earlier" in c][row] for row, c in enumerate(coalitions)}
    orders = factorial(len(players))
    expected = {
        player: sum(
            factorial(len(chosen)) * factorial(len(players) - len(chosen) - 1) / orders
            * (worth[chosen | {player}] - value)
            for chosen, value in worth.items()
            if player not in chosen
        )
        for player in players
    }  # fmt: skip
    found = site.stefa.explain(causal, day=DAY, lags=(0, 70, 140), samples=50)
    for token, column in zip(TOKENS, (rain, warmth), strict=False):
        for lag in bins:
            value = found.contribution.sel(token=token, lag=lag).item()
            assert value == pytest.approx(expected[column, lag], abs=1e-6)
    assert found.contribution_static.values == pytest.approx(
        [expected[texture], expected[area]], abs=1e-6
    )
    assert found.contribution_earlier.item() == pytest.approx(expected["earlier"], abs=1e-6)
    assert found.baseline.item() == pytest.approx(worth[frozenset()], abs=1e-6)
    assert (found.contribution_error == 0).all()


def test_samples_come_near_them(causal, stations) -> None:
    exact, sampled = (
        stations.isel(site=0).stefa.explain(causal, day=DAY, lags=(0, 70, 140), samples=n)
        for n in (50, 6)
    )
    apart = abs(sampled.contribution - exact.contribution)
    assert (sampled.contribution_error.sel(lag="0") > 0).any()
    assert (apart <= 6 * sampled.contribution_error + 1e-6).all()


def test_inputs_that_say_nothing_add_nothing(causal, both_ways, stations) -> None:
    found = stations.stefa.explain(causal, day=DAY, **FEW)
    assert {"precipitation", "shortwave_down"} < {*found.token.values}
    assert (found.contribution.sel(token="shortwave_down") == 0).all()  # which it cannot read
    assert (found.contribution.sel(lag="after") == 0).all()  # it looks back only
    both = stations.stefa.explain(both_ways, day=DAY, **FEW)
    radiation = abs(both.contribution.sel(token="shortwave_down")).sum("lag")
    assert radiation.sel(site="b") == 0  # where it is missing
    assert radiation.sel(site="a") > 0
    assert abs(both.contribution.sel(lag="after", site="a")).max() > 0  # it looks ahead


def test_days_after_are_not_read(causal, stations) -> None:
    changed = stations.copy(deep=True)
    changed["precipitation"] = changed.precipitation.where(changed.time <= np.datetime64(DAY), 9.0)
    xr.testing.assert_identical(
        changed.stefa.explain(causal, day=DAY, **FEW),
        stations.stefa.explain(causal, day=DAY, **FEW),
    )


def test_sites_do_not_depend_on_their_order_or_chunks(causal, stations) -> None:
    found = stations.stefa.explain(causal, day=DAY, **FEW)
    turned = stations.isel(site=slice(None, None, -1)).stefa.explain(causal, day=DAY, **FEW)
    xr.testing.assert_identical(turned.isel(site=slice(None, None, -1)), found)
    for chunks in ({"site": 1}, {"site": 3, "time": 50}):
        lazy = stations.chunk(chunks).stefa.explain(causal, day=DAY, **FEW)
        assert all(variable.chunks is not None for variable in lazy.data_vars.values())
        xr.testing.assert_allclose(lazy.compute(), found, rtol=0, atol=2e-7)
    for one in ("c", ["c"]):
        alone = stations.stefa.explain(causal, day=DAY, site=one, **FEW)
        xr.testing.assert_allclose(alone, found.sel(site=one), rtol=0, atol=2e-7)


def test_maps_are_explained_too(causal, dataset, monkeypatch) -> None:
    ds = dataset.transpose("lat", "time", "lon")
    found = ds.stefa.explain(causal, day=DAY, **FEW)
    monkeypatch.setattr("xstefa.inference.explain.AT_ONCE", 5)
    sea = ds.where(ds.lat < 60).chunk(lat=1)
    sea = sea.assign({name: sea[name].assign_attrs(ds[name].attrs) for name in ds.data_vars})
    land = sea.stefa.explain(causal, day=DAY, **FEW).compute()
    assert land.contribution.sel(lat=60).isnull().all()
    xr.testing.assert_allclose(land.isel(lat=[1, 2]), found.isel(lat=[1, 2]), rtol=0, atol=2e-7)
    assert found.contribution.dims == ("token", "lag", "lat", "lon")
    assert found.prediction.dims == ("lat", "lon")
    assert str(found.time.values)[:10] == DAY
    np.testing.assert_allclose(total(found), found.prediction, atol=1e-6)


def test_it_is_labelled(causal, stations) -> None:
    found = stations.stefa.explain("soil_moisture", model=causal, day=DAY, **FEW)
    assert {variable.attrs["units"] for variable in found.data_vars.values()} == {"m3 m-3"}
    assert found.attrs["model_hash"] == causal.content_hash
    assert found.contribution.attrs["ancillary_variables"] == "contribution_error"
    assert list(found.lag.values) == ["0", "1-70", "71-140", "after"]
    assert list(found.attribute.values) == ["soil_texture", "catchment_area"]


def test_a_site_without_an_answer_has_no_contributions(causal, stations) -> None:
    dry = stations.copy(deep=True)
    dry["precipitation"] = dry.precipitation.where(dry.site != "c")
    found = dry.stefa.explain(causal, day=DAY, **FEW)
    assert found.contribution.sel(site="c").isnull().all()
    assert found.contribution.drop_sel(site="c").notnull().all()


@pytest.mark.parametrize(
    ("error", "text", "how"),
    [
        (OptionError, "no days of the dataset", {"day": "1999-01-01"}),
        (OptionError, "no days of the dataset", {"day": np.datetime64("NaT")}),
        (OptionError, "30 days", {"day": "2000-06"}),
        (OptionError, "spin-up. Fix: day=.2000-01-", {"day": "2000-01-06"}),
        (MissingTokenError, "did you mean 'site_a'", {"site": "site_aa"}),
        (OptionError, "lags", {"lags": (3, 3)}),
        (OptionError, "lags are counted back in one record.*xr.concat", {"history": 1}),
        (OptionError, "which weather made it", {"state": 1}),
        (OptionError, "before observations move it", {"observed": "swc"}),
        (OptionError, "no quantile", {"interval": 0.9}),
        (OptionError, "one day is explained", {"period": "2000-06"}),
        (OptionError, "31 days", {"day": np.datetime64("2000-05")}),
        (ModelError, "soil_moisture", {"target": "streamflow"}),
    ],
)
def test_errors_teach(error, text, how, causal, stations) -> None:
    named = stations.assign_coords(site=[f"site_{name}" for name in stations.site.values])
    how = {"target": "soil_moisture", "day": DAY, **FEW, **how}
    with pytest.raises(error, match=text):
        named.stefa.explain(model=causal, **how)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize(
    "day",
    [
        np.datetime64("2000-06-15"),
        date(2000, 6, 15),
        cftime.datetime(2000, 6, 15, 12, calendar="360_day"),
    ],
    ids=lambda day: type(day).__module__,
)
def test_days_are_named_by_dates_of_any_calendar(calendar, day, causal, stations) -> None:
    how = {"calendar": calendar, "align_on": "date", "missing": np.nan}
    found = stations.convert_calendar(use_cftime=calendar != "standard", **how)
    expected = found.stefa.predict(causal).sel(time="2000-06-15").squeeze()
    told = found.stefa.explain(causal, day=day, **FEW)
    np.testing.assert_allclose(told.prediction, expected, rtol=1e-5)


def test_periods_are_named_by_dates_of_any_calendar(causal, stations) -> None:
    days = np.datetime64("2000-06-15"), cftime.datetime(2000, 6, 16, calendar="standard")
    for found in (stations, stations.convert_calendar("noleap", use_cftime=True)):
        expected = found.stefa.predict(causal).sel(time=slice("2000-06-15", "2000-06-16"))
        np.testing.assert_array_equal(found.stefa.predict(causal, period=days), expected)
        assert len(expected.time) == 2


def test_unknown_keywords_are_those_of_python(causal, stations) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'dya'"):
        stations.stefa.explain(causal, day=DAY, dya=DAY)


def test_cells_of_a_map_are_named_by_where_they_are(causal, dataset) -> None:
    found = dataset.stefa.explain(causal, day=DAY, site=(51.0, 5.5), **FEW)
    assert (found.lat.item(), found.lon.item()) == (50.0, 5.0)
    with pytest.raises(OptionError, match=r"site=\("):
        dataset.stefa.explain(causal, day=DAY, site="a", **FEW)


@pytest.mark.parametrize("name", ["streamflow", "water-balance"])
def test_released_models_add_up(name) -> None:
    """With physics inside, which has no answer where nothing is known: there nothing flows."""
    basins = xstefa.open_sample("camels_us").isel(basin=[3], time=slice(500))
    found = basins.stefa.explain(
        "streamflow", model=name, day="1991-01-20", lags=(2, 365), samples=1
    )
    np.testing.assert_allclose(total(found), found.prediction, atol=1e-3)
    assert found.baseline.notnull().all()
    if name == "water-balance":
        assert found.baseline.item() < 0.01


def test_it_is_a_command(tmp_path, causal, stations) -> None:
    source, out = tmp_path / "in.nc", tmp_path / "out.nc"
    stations.to_netcdf(source)
    asked = ["explain", str(source), str(out), "--target", "soil_moisture", "--day", DAY]
    done = CliRunner().invoke(
        main, [*asked, "--model", str(causal.path), "--site", "b", "--lag", "3", "--samples", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "temperature_mean" in done.output
    assert "prediction" in done.output
    with xr.open_dataset(out) as written:
        np.testing.assert_allclose(total(written), written.prediction, atol=1e-6)
