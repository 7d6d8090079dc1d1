"""What may be observed around a model's answers, learned at sites that it was not trained on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

from xstefa.cli import main
from xstefa.errors import LayoutError, MissingTokenError, ModelError, OptionError, TrainingError
from xstefa.model.checkpoint import ModelSpec
from xstefa.model.distribution import Scale, measured
from xstefa.model.registry import load_model
from xstefa.splits.leakage import LeakageWarning
from xstefa.training.calibration import calibrate, gather, learn
from xstefa.windows import SegmentPolicy

pytestmark = pytest.mark.filterwarnings("ignore::xstefa.inference.run.SpinUpWarning")

WEATHER = ("precipitation", "temperature_mean")
SPREAD = 0.4  # of the errors of a day; those of a site are twice as large


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(members=2, encoder=False)


def world(model, make_dataset, *, lat: int, seed: int, spread: float = SPREAD) -> xr.Dataset:
    """Cells that are off by a part of their own and one of each day, on a scale of logits."""
    ds = make_dataset(days=120, lat=lat, lon=10, seed=seed)
    answer = ds.stefa.predict(model)
    random = np.random.default_rng(seed + 100)
    off = spread * random.normal(size=answer.shape)
    off = off + 2 * spread * random.normal(size=answer.shape[1:])
    truth = 1 / (1 + np.exp(-(np.log(answer / (1 - answer)) + off)))
    return ds.assign(soil_moisture=truth.assign_attrs(units="m3 m-3"))


@pytest.fixture(scope="module")
def known(model, make_dataset):
    return world(model, make_dataset, lat=6, seed=1)


@pytest.fixture(scope="module")
def calibrated(model, known):
    return known.stefa.calibrate(model=model)


def shares(ds: xr.Dataset, model, interval: float) -> xr.DataArray:
    """Share of the days of each cell that lie in the interval."""
    bounds = ds.stefa.predict(model, interval=interval)
    inside = (ds.soil_moisture >= bounds.lower) & (ds.soil_moisture <= bounds.upper)
    return inside.where(bounds.lower.notnull() & ds.soil_moisture.notnull()).mean("time")


@pytest.mark.parametrize("interval", [0.5, 0.9])
def test_coverage_at_sites_that_are_new(calibrated, model, make_dataset, interval) -> None:
    new = world(model, make_dataset, lat=20, seed=2)
    found = shares(new, calibrated, interval)
    assert float(found.std()) > 0.1  # sites differ, so the mean of 200 is known to about 0.02
    assert abs(float(found.mean()) - interval) < 0.06


def test_the_answer_itself_stays(calibrated, model, known) -> None:
    xr.testing.assert_equal(known.stefa.predict(calibrated), known.stefa.predict(model))


def test_errors_that_grow_with_a_measure(model, make_dataset) -> None:
    ds = make_dataset(days=120, lat=6, lon=10, seed=3)
    answer = ds.stefa.predict(model)
    random = np.random.default_rng(0)
    off = np.exp((ds.temperature_mean - 7.5) / 10) * 0.3 * random.normal(size=answer.shape)
    truth = 1 / (1 + np.exp(-(np.log(answer / (1 - answer)) + off)))
    ds = ds.assign(soil_moisture=truth.assign_attrs(units="m3 m-3"))
    bounds = ds.stefa.predict(ds.stefa.calibrate(model=model), interval=0.8)
    width = (bounds.upper - bounds.lower) / (answer * (1 - answer))
    warm, cold = (
        width.where(part).mean() for part in (ds.temperature_mean > 15, ds.temperature_mean < 0)
    )
    assert 2 < float(warm / cold) < 8  # exp(1.5) in the logarithm's linear part


def test_what_is_missing_of_the_last_week() -> None:
    forcing = torch.zeros(1, 12, 2)
    forcing[0, [3, 4], 0], forcing[0, [0, 1, 5], 1] = torch.nan, torch.nan
    columns = {"precipitation": 0, "precipitation_missing": None, "weather_missing": None}
    members, static = torch.full((1, 12, 1), 0.5), torch.zeros(1, 0)
    _, found = measured(columns, Scale(), members, forcing, static)
    rain = [0, 0, 0, 1 / 4, 2 / 5, 2 / 6, 2 / 7, 2 / 7, 2 / 7, 2 / 7, 1 / 7, 0]
    np.testing.assert_allclose(found["precipitation_missing"][0], rain, rtol=1e-6)
    # Before day 2 nothing is known of the second, so nothing of it is missing.
    expected = [0, 0, 0, 1 / 6, 2 / 8, 3 / 10, 3 / 12, 3 / 13, 3 / 14, 3 / 14, 2 / 14, 1 / 14]
    np.testing.assert_allclose(found["weather_missing"][0], expected, rtol=1e-6)


def test_intervals_widen_where_weather_is_missing_and_only_there(make_model, make_dataset) -> None:
    model = make_model(causal=True, windows=SegmentPolicy(length=40, spin_up=10))
    ds = world(model, make_dataset, lat=3, seed=1, spread=0.002)
    errors, *_ = gather(ds, model=model)
    unaware = model.described(replace(model.spec, distribution=learn(errors, model.spec)))
    aware, days, widths = ds.stefa.calibrate(model=model), np.random.default_rng(0), []
    xr.testing.assert_equal(*(ds.stefa.predict(m, interval=0.9) for m in (aware, unaware)))
    lost = xr.DataArray(days.random(ds.sizes["time"]), dims="time")
    for share in (0.1, 0.3, 0.6):
        part = ds.assign({n: ds[n].where(lost >= share) for n in WEATHER})
        bounds = (part.stefa.predict(m, interval=0.9) for m in (aware, unaware))
        widths.append(float(np.divide(*[(each.upper - each.lower).mean() for each in bounds])))
    assert (np.diff([1, *widths]) > 0.01).all(), widths


def test_it_is_part_of_the_file(calibrated, tmp_path) -> None:
    spec = calibrated.save(tmp_path / "model").spec
    assert spec.distribution == calibrated.spec.distribution
    assert spec.distribution.sites == 60
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert len(spec.provenance["calibration"]["sites"]) == 60


def test_files_without_one_are_read(model) -> None:
    text = model.spec.to_json().replace(', "distribution": null', "")
    assert "distribution" not in text
    assert ModelSpec.from_json(text) == model.spec


def test_a_few_sites_adapt_what_is_known(calibrated, model, make_dataset) -> None:
    wide = world(model, make_dataset, lat=1, seed=4, spread=3 * SPREAD).isel(lon=[0, 1, 2])
    adapted = wide.stefa.calibrate(model=calibrated)
    before, after = (wide.stefa.predict(m, interval=0.9) for m in (calibrated, adapted))
    assert float(((after.upper - after.lower) / (before.upper - before.lower)).mean()) > 1.2
    assert adapted.spec.distribution.sites == 63
    with pytest.raises(TrainingError, match=r"3 sites with observations.*20"):
        wide.stefa.calibrate(model=model)


def test_observations_beside_the_dataset_and_several_datasets(model, known, calibrated) -> None:
    bare, observed = known.drop_vars("soil_moisture"), known.soil_moisture
    observed = (100 * observed).assign_attrs(units="%").rename("theta")
    found = bare.stefa.calibrate(observed, model=model).spec.distribution
    assert abs(found.below - calibrated.spec.distribution.below) < 1e-2
    parts = {"north": known.isel(lat=slice(0, 3)), "south": known.isel(lat=slice(3, None))}
    joint = calibrate(parts, model=model).spec.distribution
    shapes = (np.array(d.regimes[-1].quantiles) for d in (joint, calibrated.spec.distribution))
    np.testing.assert_allclose(*(shape[3:-3] for shape in shapes), atol=0.3)
    assert joint.sites == 60
    lazily = known.chunk(lat=2).stefa.calibrate(model=model)
    assert lazily.spec.distribution == calibrated.spec.distribution


def test_sites_count_once_and_the_model_says_which(model, known) -> None:
    stations = known.stack(site=("lat", "lon")).reset_index("site").drop_vars(["lat", "lon"])
    stations = stations.assign_coords(site=[f"tower_{i}" for i in range(stations.sizes["site"])])
    first, other = stations.isel(site=slice(0, 25)), stations.isel(site=slice(25, 27))
    card = replace(model.spec, card="# tiny\n")
    learned = first.stefa.calibrate(model=model.described(card))
    adapted = other.stefa.calibrate(model=learned)
    calibration = adapted.spec.provenance["calibration"]
    assert len(calibration["sites"]) == adapted.spec.distribution.sites == 27
    assert (calibration["learned"], calibration["trained_on"]) == (True, False)
    assert "Learned anew by 25 sites" in learned.card
    assert "Adapted by 2 sites" in adapted.card
    with pytest.raises(TrainingError, match=r"tower_24.*count twice.*1 of 3"):
        stations.isel(site=slice(24, 27)).stefa.calibrate(model=learned)
    with pytest.raises(ModelError, match="a model of soil_moisture"):
        other.stefa.calibrate(model=learned, target="streamflow")


def test_gauges_of_one_river_count_as_one(model, make_dataset) -> None:
    ds = world(model, make_dataset, lat=6, seed=1)
    odd = ds.lat == ds.lat[0]  # ten cells where nothing is right
    ds["soil_moisture"] = ds.soil_moisture.where(~odd, 1 - ds.soil_moisture)
    cells = np.arange(60).reshape(6, 10)
    ds["river"] = ("lat", "lon"), np.where(odd.values[:, None], -1, cells)
    alone, together = (ds.stefa.calibrate(model=model, groups=g) for g in (None, "river"))
    assert alone.spec.distribution.sites == 60
    assert together.spec.distribution.sites == 51
    assert len(together.spec.provenance["calibration"]["sites"]) == 60
    others = ds.isel(lat=slice(1, None))
    assert float(shares(others, alone, 0.8).mean()) > 0.86
    assert abs(float(shares(others, together, 0.8).mean()) - 0.8) < 0.05
    with pytest.raises(MissingTokenError, match="basin"):
        ds.stefa.calibrate(model=model, groups="basin")


def test_observations_pair_up_with_the_dataset(known, calibrated) -> None:
    bare, observed = known.drop_vars("soil_moisture"), known.soil_moisture
    late = observed.assign_coords(time=observed.time + np.timedelta64(12, "h"))
    elsewhere = observed.rename(lat="y")
    for wrong, text in ((late, "labels of 'time'"), (elsewhere, "dimension 'y'")):
        with pytest.raises(LayoutError, match=text):
            bare.stefa.calibrate(wrong, model=calibrated)
    with pytest.raises(TrainingError, match="no site with an observation"):
        known.isel(lat=slice(0)).stefa.calibrate(model=calibrated)


def test_sites_of_training_are_refused(model, known) -> None:
    stations = known.stack(site=("lat", "lon")).reset_index("site").isel(site=slice(0, 25))
    names = [f"tower_{i}" for i in range(25)]
    stations = stations.drop_vars(["lat", "lon"]).assign_coords(site=names)
    trained = {"datasets": {"towers": {"trained": ["tower_3", "other"]}}}
    seen = model.described(replace(model.spec, provenance=trained))
    with pytest.raises(TrainingError, match=r"tower_3.*1 of 25 sites.*trained_on=True"):
        stations.stefa.calibrate(model=seen)
    assert stations.stefa.calibrate(model=seen, trained_on=True).spec.distribution.sites == 25
    assert (
        stations.isel(site=slice(4, 25)).stefa.calibrate(model=seen).spec.distribution.sites == 21
    )


def test_sites_without_names_are_warned_of(model, known) -> None:
    trained = {"datasets": {"towers": {"trained": ["tower_3"]}}}
    seen = model.described(replace(model.spec, provenance=trained))
    with pytest.warns(LeakageWarning, match=r"of these 60 sites cannot be told.*sites="):
        known.stefa.calibrate(model=seen)


def test_no_quantile_knows_later_days(make_model, distribution, dataset) -> None:
    causal = make_model(
        causal=True, windows=SegmentPolicy(length=40, spin_up=10), distribution=distribution
    )
    later = dataset.copy(deep=True)
    later.precipitation[120:] += 5
    one, two = (ds.stefa.predict(causal, quantiles=[0.1, 0.9]) for ds in (dataset, later))
    xr.testing.assert_equal(one[:, :120], two[:, :120])
    assert (abs(one - two)[:, 120:] > 0).any()


def test_other_heads_err_otherwise(calibrated, known) -> None:
    how = {"head": None, "steps": 1, "batch_size": 2, "device": "cpu"}
    trained = known.stefa.finetune("soil_moisture", model=calibrated, **how)
    assert trained.spec.distribution is None


def test_a_description_that_cannot_be(calibrated) -> None:
    content = json.loads(calibrated.spec.to_json())
    last, level = content["distribution"]["regimes"][-1], content["distribution"]["measures"][0]
    for wrong, what in (
        ({"regimes": [{**last, "quantiles": last["quantiles"][::-1]}]}, "in order"),
        ({"regimes": [{**last, "within": {"sand": [0, 1]}}]}, "a regime of sand"),
        ({"regimes": []}, "the last regime"),
        ({"regimes": [last], "measures": [{**level, "column": 3}]}, "a token has a column"),
        (
            {"regimes": [last], "measures": [{**level, "name": "clay", "column": 3}]},
            "do not fit each other",
        ),
    ):
        text = json.dumps(content | {"distribution": content["distribution"] | wrong})
        with pytest.raises(ModelError, match=what):
            ModelSpec.from_json(text)


def test_the_command(model, known, calibrated, tmp_path) -> None:
    known.to_netcdf(tmp_path / "in.nc")
    words = ["calibrate", tmp_path / "in.nc", tmp_path / "out", "--model", model.path]
    done = CliRunner().invoke(main, [*map(str, words), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    found = load_model(tmp_path / "out").spec.distribution
    assert found.sites == 60
    np.testing.assert_allclose(found.below, calibrated.spec.distribution.below, atol=1e-2)


def test_what_cannot_be_asked(model, calibrated, dataset) -> None:
    with pytest.raises(ModelError, match=r"not calibrated.*calibrate\(model='tiny'\)"):
        dataset.stefa.predict(model, quantiles=[0.5])
    for wrong in (
        {"quantiles": [0.999]},
        {"quantiles": [0.5, 0.5]},
        {"quantiles": [0.1], "interval": 0.9},
        {"interval": 0},
    ):
        with pytest.raises(OptionError):
            dataset.stefa.predict(calibrated, **wrong)
    found = dataset.stefa.predict(calibrated, quantiles=[0.1])
    assert "calibrated at 60 sites" in found.attrs["comment"]
    with pytest.raises(TrainingError, match="no variable of the dataset that observes it"):
        dataset.stefa.calibrate(model=model)
    with pytest.raises(OptionError, match="neither a target nor a model"):
        dataset.stefa.calibrate()
    unknown = dataset.temperature_mean.where(False).assign_attrs(units="%")
    with pytest.raises(TrainingError, match="no site with an observation"):
        dataset.stefa.calibrate(unknown, model=model)
