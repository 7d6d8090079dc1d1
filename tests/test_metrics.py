"""Metrics against hand-computed values, another library where there is one, and invariances."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xstefa.errors import LayoutError, UnitsError
from xstefa.evaluation import metrics
from xstefa.evaluation.evaluate import METRICS

ALL = [getattr(metrics, name) for name in metrics.__all__]
EFFICIENCIES = [metrics.nse, metrics.kge, metrics.correlation]
ERRORS = [metrics.rmse, metrics.ubrmse, metrics.mae, metrics.fdc_rmse]
BIASES = [metrics.pbias, metrics.fhv, metrics.flv]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def series(*values: float) -> xr.DataArray:
    return xr.DataArray(np.array(values, dtype=float), dims="time", attrs={"units": "mm d-1"})


def runoff(seed: int, shape: tuple[int, ...] = (3, 400)) -> xr.DataArray:
    values = np.random.default_rng(seed).gamma(0.6, 2.0, shape) + 0.05
    return xr.DataArray(values, dims=["site", "time"][-len(shape) :], attrs={"units": "mm d-1"})


def test_by_hand() -> None:
    obs, pred = series(1, 2, 3, 4), series(2, 2, 4, 6)
    # errors 1 0 1 2: sum of squares 6; observed sum of squares about 2.5 is 5
    assert metrics.nse(pred, obs).item() == pytest.approx(1 - 6 / 5)
    assert metrics.rmse(pred, obs).item() == pytest.approx(np.sqrt(6 / 4))
    assert metrics.mae(pred, obs).item() == pytest.approx(1)
    assert metrics.ubrmse(pred, obs).item() == pytest.approx(np.sqrt(2 / 4))
    assert metrics.pbias(pred, obs).item() == pytest.approx(40)
    # anomalies of pred -1.5 -1.5 0.5 2.5 (sum of squares 11), of obs -1.5 -0.5 0.5 1.5
    r = 7 / np.sqrt(11 * 5)
    assert metrics.correlation(pred, obs).item() == pytest.approx(r)
    kge = 1 - np.sqrt((r - 1) ** 2 + (np.sqrt(11 / 5) - 1) ** 2 + (3.5 / 2.5 - 1) ** 2)
    assert metrics.kge(pred, obs).item() == pytest.approx(kge)


def test_flow_duration_curve_by_hand() -> None:
    # 200 days: the highest 2 % are 4 days, the lowest 30 % are 60.
    obs = series(*range(1, 201))
    shuffled = obs.isel(time=np.random.default_rng(0).permutation(200)).data
    pred = xr.where(obs > 196, obs + 10, xr.where(obs <= 60, obs * 1.5, obs))
    pred = pred.copy(data=pred.data[np.argsort(shuffled)])
    high = 197 + 198 + 199 + 200
    assert metrics.fhv(pred, obs).item() == pytest.approx(100 * 40 / high)
    low = sum(range(1, 61))
    assert metrics.flv(pred, obs).item() == pytest.approx(
        100 * (sum(sorted(pred.data)[:60]) - low) / low
    )
    # Percentiles of 200 days are ranks 0, 2, 4, ...
    curve = np.sort(pred.data)[::-1][::2] - np.sort(obs.data)[::-1][::2]
    assert metrics.fdc_rmse(pred, obs).item() == pytest.approx(np.sqrt((curve**2).mean()))


def test_shares_of_days_are_rounded_to_the_nearest_day() -> None:
    obs = series(*range(1, 31))  # 2 % of 30 days are 0.6
    pred = xr.where(obs == 30, 33, obs)
    assert metrics.fhv(pred, obs).item() == pytest.approx(10)


def test_agrees_with_scores() -> None:
    continuous = pytest.importorskip("scores.continuous", reason="scores is not installed")
    pred, obs = runoff(1), runoff(2)
    pred[0, :9], obs[1, 5:20] = np.nan, np.nan
    both = pred.notnull() & obs.notnull()
    pred, obs = pred.where(both), obs.where(both)
    for name in ("nse", "kge", "rmse", "mae", "pbias"):
        theirs = getattr(continuous, name)(pred, obs, reduce_dims="time")
        ours = getattr(metrics, name)(pred, obs)
        np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize("metric", ALL)
def test_perfect_prediction(metric) -> None:
    obs = runoff(0)
    expected = 1.0 if metric in EFFICIENCIES else 0.0
    np.testing.assert_allclose(metric(obs, obs), expected, atol=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_days_missing_in_either_count_for_neither(metric) -> None:
    pred, obs = runoff(1), runoff(2)
    gone = np.zeros(400, dtype=bool)
    gone[10:60] = gone[100:130] = True
    pred_gaps, obs_gaps = pred.copy(), obs.copy()
    pred_gaps[:, 10:60], obs_gaps[:, 100:130] = np.nan, np.nan
    expected = metric(pred.isel(time=~gone), obs.isel(time=~gone))
    np.testing.assert_allclose(metric(pred_gaps, obs_gaps), expected)


@pytest.mark.parametrize("metric", ALL)
def test_no_pairs_is_missing(metric) -> None:
    pred, obs = runoff(1, (60,)), runoff(2, (60,))
    pred[:30], obs[30:] = np.nan, np.nan
    assert np.isnan(metric(pred, obs))


@pytest.mark.parametrize("metric", EFFICIENCIES)
@pytest.mark.parametrize("constant", [0.0, 0.1, 7.3])
def test_constant_observations_are_missing_not_infinite(metric, constant: float) -> None:
    obs = series(*[constant] * 33)
    assert np.isnan(metric(runoff(0, (33,)), obs))


@pytest.mark.parametrize("metric", [metrics.kge, metrics.correlation])
def test_constant_prediction_has_no_correlation(metric) -> None:
    assert np.isnan(metric(series(*[0.1] * 33), runoff(0, (33,))))


@pytest.mark.parametrize("metric", BIASES)
def test_bias_of_a_dry_stream_is_missing(metric) -> None:
    assert np.isnan(metric(runoff(0, (100,)), series(*[0.0] * 100)))


@pytest.mark.parametrize("metric", ALL)
def test_lazy_and_the_same_for_any_chunks(metric) -> None:
    pred, obs = runoff(1), runoff(2)
    obs[1, 7:50] = np.nan
    lazy = metric(pred.chunk(site=1, time=90), obs)
    assert lazy.chunks is not None
    np.testing.assert_allclose(lazy.compute(), metric(pred, obs), rtol=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_result_is_labelled_and_keeps_the_other_dimensions(metric) -> None:
    pred = runoff(1).expand_dims(quantile=[0.1, 0.9]).assign_coords(site=["a", "b", "c"])
    obs = runoff(2).assign_coords(site=["a", "b", "c"])
    score = metric(pred, obs)
    assert set(score.dims) == {"quantile", "site"}
    assert score["site"].values.tolist() == ["a", "b", "c"]
    assert score.name == metric.__name__
    assert score.attrs["units"] == ("mm d-1" if metric in ERRORS else score.attrs["units"])
    assert score.attrs["units"] in {"mm d-1", "1", "%"}
    assert score.attrs["long_name"]


@pytest.mark.parametrize("metric", ALL)
def test_single_precision_scores_in_double(metric) -> None:
    # Around 1e4 single precision has steps of 1e-3, of the size of these errors' squares.
    pred, obs = runoff(1) + 1e4, runoff(2) + 1e4
    single = metric(pred.astype("f4"), obs.astype("f4"))
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, metric(pred, obs), atol=2e-2)


def test_different_labels_are_refused_with_the_fix() -> None:
    pred, obs = runoff(1), runoff(2)
    pred, obs = (a.assign_coords(time=np.arange(400) + k) for k, a in enumerate((pred, obs)))
    with pytest.raises(LayoutError, match=r"xr\.align\(.*inner"):
        metrics.nse(pred, obs)


@pytest.mark.parametrize("metric", ALL)
def test_units_are_converted_to_those_observed(metric) -> None:
    pred, obs = runoff(1), runoff(2)
    in_metres = (pred / 1000).assign_attrs(units="m day-1")
    score = metric(in_metres, obs)
    np.testing.assert_allclose(score, metric(pred, obs))
    assert score.attrs == metric(pred, obs).attrs


def test_units_are_converted_with_their_zero() -> None:
    pred = series(274.15, 276.15).assign_attrs(units="K")
    obs = series(0, 5).assign_attrs(units="degC")
    assert metrics.mae(pred, obs).item() == pytest.approx((1 + 2) / 2)


def test_units_of_another_kind_are_refused() -> None:
    pred, obs = runoff(1).rename("streamflow").assign_attrs(units="m3 s-1"), runoff(2)
    with pytest.raises(UnitsError, match=r"streamflow.*m3 s-1.*mm d-1"):
        metrics.rmse(pred, obs)


def test_missing_dimension_is_refused_and_another_is_taken() -> None:
    pred, obs = (runoff(k).rename(time="day") for k in (1, 2))
    with pytest.raises(LayoutError, match="'time'"):
        metrics.nse(pred, obs)
    assert metrics.nse(pred, obs, dim="day").dims == ("site",)


FLOWS = hnp.arrays(
    float, st.shared(st.integers(30, 120), key="n"), elements=st.floats(0.0625, 100, width=32)
)


@settings(max_examples=50, deadline=None)
@given(FLOWS, FLOWS, st.floats(0.1, 10))
def test_dimensionless_scores_do_not_depend_on_the_unit(pred, obs, factor: float) -> None:
    pred, obs = series(*pred), series(*obs)
    for metric in [*EFFICIENCIES, *BIASES]:
        before, after = metric(pred, obs), metric(pred * factor, obs * factor)
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(FLOWS, FLOWS, st.randoms(use_true_random=False))
def test_order_of_days_does_not_matter_and_curves_ignore_timing(pred, obs, random) -> None:
    order = list(range(len(pred)))
    random.shuffle(order)
    pred, obs = series(*pred), series(*obs)
    for metric in ALL:
        np.testing.assert_allclose(
            metric(pred[order], obs[order]), metric(pred, obs), rtol=1e-6, atol=1e-9
        )
    for metric in (metrics.fhv, metrics.flv, metrics.fdc_rmse, metrics.pbias):
        np.testing.assert_allclose(metric(pred[order], obs), metric(pred, obs), rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(FLOWS, FLOWS)
def test_bounds_and_relations(pred, obs) -> None:
    pred, obs = series(*pred), series(*obs)
    scores = {metric.__name__: metric(pred, obs).item() for metric in ALL}
    for name in ("nse", "kge"):
        assert np.isnan(scores[name]) or scores[name] <= 1
    assert np.isnan(scores["correlation"]) or -1 <= scores["correlation"] <= 1
    bias = (pred - obs).mean().item()
    assert scores["rmse"] ** 2 == pytest.approx(scores["ubrmse"] ** 2 + bias**2, abs=1e-9)
    assert scores["mae"] <= scores["rmse"] + 1e-9


@pytest.mark.parametrize("name", METRICS)
def test_days_may_be_called_anything(name):
    """Caravan's count along ``date``."""
    days = xr.date_range("2000-01-01", periods=400)
    random = np.random.default_rng(0).gamma(1.0, 1.0, (2, 2, 400))
    pred, obs = (
        xr.DataArray(values, dims=("gauge_id", "date"), coords={"date": days}) for values in random
    )
    found = METRICS[name](pred, obs)
    xr.testing.assert_identical(found, METRICS[name](pred, obs, dim="date"))
    assert found.dims == ("gauge_id",)
    with pytest.raises(LayoutError):
        METRICS[name](pred.drop_vars("date"), obs.drop_vars("date"))
