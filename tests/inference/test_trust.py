"""How far to trust a model at a site: distances to training sites, and the skill to expect."""

from __future__ import annotations

import json
from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from xstefa.cli import main
from xstefa.errors import ModelError, OptionError, TrainingError
from xstefa.model.checkpoint import ModelSpec
from xstefa.model.neighbourhood import HeldOut, Neighbourhood
from xstefa.splits.holdout import NamedSites
from xstefa.training.ensemble import ensemble
from xstefa.training.neighbourhood import acquainted

pytestmark = pytest.mark.filterwarnings("ignore::xstefa.inference.run.SpinUpWarning")

DAYS = 420
TOKENS = (
    "precipitation", "temperature_mean", "potential_evapotranspiration", "sand", "clay",
    "catchment_area", "aridity",
)  # fmt: skip


@pytest.fixture(scope="module")
def stations(make_dataset) -> xr.Dataset:
    """Forty stations over a year: half of them were trained on."""
    ds = make_dataset(days=DAYS, lat=8, lon=5, seed=5).stack(site=("lat", "lon"))
    ds = ds.reset_index("site").assign_coords(site=[f"s{i:02}" for i in range(40)])
    ds["clay"] = "site", np.linspace(5, 60, 40, dtype="f4"), {"units": "%"}
    ds["precipitation"] = ds.precipitation * np.float32(0.5)
    ds.precipitation.attrs = {"standard_name": "precipitation_flux", "units": "mm d-1"}
    demand = ds.precipitation * np.linspace(0.3, 3, 40, dtype="f4")
    ds["pet"] = demand.assign_attrs(
        standard_name="water_potential_evapotranspiration_flux", units="mm d-1"
    )
    return ds


@pytest.fixture(scope="module")
def trained(stations) -> list[str]:
    return stations.site.values[::2].tolist()


@pytest.fixture(scope="module", params=[True, False], ids=["encoder", "no encoder"])
def model(request, make_model, stations, trained):
    bare = make_model(
        encoder=request.param,
        provenance={"datasets": {"a": {"trained": trained}}},
        tokens=TOKENS,
    )
    return acquainted(stations, bare)


def scored(model, *rows: tuple[float, float | None, float]):
    """Return the model with scores at sites of some distance and aridity."""
    held_out = tuple(HeldOut(distance=d, aridity=a, score=s) for d, a, s in rows)
    neighbourhood = replace(model.spec.neighbourhood, held_out=held_out)
    return model.described(replace(model.spec, neighbourhood=neighbourhood))


def test_training_sites_are_nearest_to_themselves(model, stations, trained) -> None:
    found = stations.stefa.trust(model, neighbours=2)
    itself = found.sel(site=trained)
    np.testing.assert_allclose(itself.distance, 0, atol=5e-3)
    assert itself.nearest.isel(neighbour=0).values.tolist() == trained
    assert (found.drop_sel(site=trained).distance > 0.01).all()
    assert found.nearest.sizes == {"site": 40, "neighbour": 2}
    assert (found.nearest_distance.diff("neighbour") >= 0).all()
    np.testing.assert_array_equal(found.nearest_distance[:, 0], found.distance)
    assert not itself.outside.any()


def test_it_is_labelled(model, stations) -> None:
    found = stations.stefa.trust(model)
    xr.testing.assert_equal(found.site, stations.site)
    assert "time" not in found.coords
    assert "expected_score" not in found
    assert found.attrs["model_hash"] == model.content_hash
    assert all(variable.attrs["long_name"] for variable in found.values())
    np.testing.assert_allclose(found.known, 6 / 7)  # of its tokens aridity is not there


def test_lazy_as_eager_in_any_order_and_on_a_map(model, stations) -> None:
    model = scored(model, (0.1, 0.5, 0.8), (1.0, 1.5, 0.5))
    eager = stations.stefa.trust(model)
    lazy = stations.chunk(site=7, time=100).stefa.trust(model)
    assert all(variable.chunks is not None for variable in lazy.values())
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_allclose(lazy.compute(), eager)
    other = stations.isel(site=slice(None, None, -1)).stefa.trust(model)
    xr.testing.assert_allclose(other.isel(site=slice(None, None, -1)), eager)
    cells = stations.assign_coords(site=range(40)).coarsen(site=5).construct(site=("y", "x"))
    cells = cells.transpose("time", ...).drop_vars("site")
    cells = cells.assign_coords(y=np.arange(8.0), x=np.arange(5.0))
    onto = cells.stefa.trust(model)
    assert onto.distance.dims == ("y", "x")
    np.testing.assert_allclose(onto.distance.values.ravel(), eager.distance)


def test_sites_without_an_answer_or_unlike_all(model, stations) -> None:
    other = stations.copy(deep=True)
    other.precipitation[:, 1] = np.nan
    other.sand[3] = np.nan
    found, before = other.stefa.trust(model), stations.stefa.trust(model)
    assert np.isnan(found.distance[1])
    assert found.outside[1]
    assert found.nearest[1].values.tolist() == [""] * 3
    assert found.distance[3] != before.distance[3]
    assert float(found.known[3]) == pytest.approx(5 / 7)
    xr.testing.assert_equal(found.distance[4:], before.distance[4:])


def test_attributes_and_climates_beyond_training_are_outside(make_model, stations, trained) -> None:
    limits = {"low": 0.0, "high": 95.0, "mean_low": 0.0, "mean_high": 95.0}
    model = make_model(provenance={"datasets": {"a": {"trained": trained}}})
    model = acquainted(stations, model)
    content = json.loads(model.spec.to_json())
    content["ranges"] = {"clay": limits | {"high": 50.0, "mean_high": 50.0},
                         "precipitation": limits | {"mean_high": 12.0}}  # fmt: skip
    content["neighbourhood"]["reach"] = 1e6
    model = model.described(ModelSpec.from_json(json.dumps(content)))
    wet = stations.copy(deep=True)
    wet.precipitation[:, 4] += 20
    with pytest.warns(Warning, match="has never seen"):
        found = wet.stefa.trust(model)
    expected = (stations.clay > 50).values
    expected[4] = True
    np.testing.assert_array_equal(found.outside, expected)


def test_what_to_expect_falls_with_distance_and_knows_the_climate(model) -> None:
    random = np.random.default_rng(0)
    distance = random.uniform(0.1, 3, 300)
    aridity = random.uniform(0.3, 3, 300)
    excess = 0.2 + 0.15 * distance + 0.3 * (aridity > 2.1) + random.normal(0, 0.05, 300)
    found = scored(model, *zip(distance, aridity, 1 - excess, strict=True)).spec.neighbourhood
    far = np.linspace(0, 9, 50)
    humid, arid = (found.expected(far, np.full(50, a)) for a in (0.5, 2.8))
    assert (np.diff(humid, axis=0)[:, 0] <= 0).all()
    assert abs(humid[np.abs(far - 1.5).argmin(), 0] - (1 - 0.2 - 0.15 * 1.5)) < 0.07
    assert (humid[:, 0] - arid[:, 0] > 0.1).all()
    assert ((humid[:, 1] < humid[:, 0]) & (humid[:, 0] < humid[:, 2])).all()
    assert humid[-1, 3] == 0  # none of them was so far away
    assert 20 < humid[np.abs(far - 4).argmin(), 3] < 50  # at least half as far
    assert humid[0, 3] == 100
    unknown = found.expected(np.array([1.5]), np.array([np.nan]))[0]
    assert arid[8, 0] < unknown[0] < humid[8, 0]
    assert unknown[3] > 100
    inside = found.expected(distance, aridity)
    share = (1 - excess >= inside[:, 1]) & (1 - excess <= inside[:, 2])
    assert 0.87 < share.mean() < 0.95


def test_one_bad_site_does_not_speak_for_those_as_far_away(model) -> None:
    random = np.random.default_rng(0)
    near = [(d, 1.0, 0.8) for d in random.uniform(0.1, 1, 40)]
    far = [(3.4, None, 0.6)] * 40 + [(3.4, None, -500.0)] * 4
    found = scored(model, *near, *far, (4.0, 1.0, -50.0)).spec.neighbourhood
    told = found.expected(np.array([0.5, 3.4, 3.4, 4.0]), np.array([1.0, np.nan, 1.0, 1.0]))
    np.testing.assert_allclose(told[:3, 0], [0.8, 0.6, 0.6], atol=0.15)
    assert told[3, 0] > 0
    alone = scored(model, (1.0, None, 0.5)).spec.neighbourhood
    answer = alone.expected(np.array([0.2, np.nan]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(answer, [[0.5, 0.5, 0.5, 0], [np.nan] * 4])
    assert told[0, 2] - told[0, 1] < 0.3 * (told[1, 2] - told[1, 1])


def test_calibration_says_what_to_expect(make_model, stations, trained) -> None:
    provenance = {"datasets": {"a": {"trained": trained}}}
    model = make_model(encoder=False, provenance=provenance, tokens=TOKENS)
    model = acquainted(stations, model)
    new = stations.drop_sel(site=trained)
    answer = new.stefa.predict(model)
    random = np.random.default_rng(1)
    truth = (answer + random.normal(0, float(answer.std()) / 2, answer.shape)).clip(0, 1)
    new = new.assign(soil_moisture=truth.assign_attrs(units="m3 m-3"))
    taught = new.stefa.calibrate(model=model)
    held_out = taught.spec.neighbourhood.held_out
    scores = new.stefa.evaluate(model, scores="correlation").correlation
    found = new.stefa.trust(model)
    np.testing.assert_allclose([s.score for s in held_out], scores, atol=2e-3)
    np.testing.assert_allclose([s.distance for s in held_out], found.distance, atol=1e-3)
    np.testing.assert_allclose(
        [s.aridity for s in held_out], np.linspace(0.3, 3, 40)[1::2], rtol=2e-2
    )
    expected = new.stefa.trust(taught)
    assert abs(float((expected.expected_score - scores).median())) < 0.1
    assert expected.expected_score.attrs["long_name"].startswith("correlation to expect")
    assert expected.held_out_sites.attrs["units"] == "1"
    few = new.isel(site=slice(0, 3)).assign_coords(site=["x", "y", "z"])
    assert len(few.stefa.calibrate(model=taught).spec.neighbourhood.held_out) == 23
    both = ensemble([taught, taught], name="both").spec.neighbourhood
    assert both == replace(taught.spec.neighbourhood, held_out=())


def test_what_is_trained_knows_its_sites(stations, trained, tiny_model) -> None:
    truth = stations.sand / 100 + 0 * stations.temperature_mean
    truth.attrs = {"units": "m3 m-3"}
    basins = stations.assign(soil_moisture=truth)
    holdout = NamedSites(tuple(basins.drop_sel(site=trained).site.values.tolist()))
    model = basins.stefa.finetune(
        "soil_moisture", model=tiny_model, head="lstm", steps=1, batch_size=2, holdout=holdout
    )
    assert model.spec.neighbourhood.names.tolist() == trained
    found = stations.stefa.trust(model, neighbours=1)
    np.testing.assert_allclose(found.distance.sel(site=trained), 0, atol=5e-3)
    assert (found.nearest == found.site).isel(neighbour=0).values.tolist() == [True, False] * 20


def test_the_command(model, stations, tmp_path) -> None:
    stations.reset_coords(drop=True).to_netcdf(tmp_path / "in.nc")
    for name in ("out.nc", "out.zarr"):
        words = ["trust", tmp_path / "in.nc", tmp_path / name, "--model", model.path]
        done = CliRunner().invoke(main, [*map(str, words), "--neighbours", "1"])
        assert done.exit_code == 0, done.output
    found = xr.open_dataset(tmp_path / "out.nc")
    assert found.nearest.astype(str).values[0].tolist() == ["s00"]
    assert found.outside.dtype == bool
    xr.testing.assert_allclose(found.distance, xr.open_zarr(tmp_path / "out.zarr").distance)


def test_a_model_of_before_says_what_to_do(tiny_model, stations, make_model) -> None:
    with pytest.raises(ModelError, match="acquainted"):
        stations.stefa.trust(tiny_model)
    with pytest.raises(TrainingError, match="none of these sites"):
        acquainted(stations, tiny_model)
    with pytest.raises(ModelError, match="foundation"):
        stations.stefa.trust(make_model(foundation=True))
    with pytest.raises(OptionError, match="neighbours"):
        stations.stefa.trust(tiny_model, neighbours=0)


def test_it_is_part_of_the_file(model, tmp_path) -> None:
    model = scored(model, (0.1, None, 0.8), (1.0, 1.5, 0.5))
    assert ModelSpec.from_json(model.spec.to_json()) == model.spec
    content = json.loads(model.spec.to_json())
    for wrong in ({"centre": [0.0]}, {"places": []}, {"held_out": [{"distance": 1, "score": 2}]}):
        text = json.dumps(content | {"neighbourhood": content["neighbourhood"] | wrong})
        with pytest.raises(ModelError, match="neighbourhood"):
            ModelSpec.from_json(text)


def test_a_gauge_that_is_in_two_datasets_is_one_site() -> None:
    random = np.random.default_rng(0)
    signatures = random.normal(size=(30, 4))
    found = Neighbourhood.of(np.array([f"g{i % 20}" for i in range(30)]), signatures)
    distance, number = found.nearest(signatures, 3)
    assert len(found.names) == 20
    assert all(len(set(row)) == 3 for row in number.tolist())
    np.testing.assert_allclose(distance[:, 0], 0, atol=5e-3)
