"""Scores by site, cross-validation, comparisons, pictures."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xstefa
from tests.training.conftest import ENCODER, HEAD, WINDOWS, make_basins
from xstefa.errors import LayoutError, OptionError, RangeError, TrainingError
from xstefa.evaluation import metrics
from xstefa.evaluation.evaluate import METRICS, score
from xstefa.evaluation.report import compare, table, write_report
from xstefa.model.checkpoint import create_model
from xstefa.plotting.scores import plot_cdf, plot_few_sites, plot_map
from xstefa.splits.holdout import (
    AllTests,
    HashedSites,
    NamedSites,
    Period,
    RandomGroups,
    RandomSites,
    TimeBlocks,
    held_out,
)
from xstefa.splits.leakage import LeakageWarning, find_twins, roles

FAST = {"head": HEAD, "steps": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def model(basins, foundation):
    return basins.stefa.finetune("streamflow", model=foundation, holdout=RandomSites(0.25), **FAST)


def test_all_of_appendix_e():
    assert set(METRICS) == set(metrics.__all__)


def test_evaluate(basins, model):
    found = basins.stefa.evaluate("streamflow", model=model)
    assert set(found.data_vars) == {*METRICS, "days", "training"}
    predicted = basins.stefa.predict(model)
    xr.testing.assert_allclose(found.nse, metrics.nse(predicted, basins.qobs))
    assert found.nse.dims == ("site",)
    assert found.days.values.tolist() == [185] + [195] * 7
    assert found.attrs["model_hash"] == model.content_hash
    trained = model.spec.provenance["datasets"]["data"]["trained"]
    expected = np.where(basins.site.isin(trained), 1, 2)
    # The foundation was pretrained on all of them.
    assert (found.training == 1).all()
    assert (roles({"datasets": {"d": {"trained": trained}}}, basins.site.values) == expected).all()
    assert found.training.attrs["flag_meanings"] == "unknown seen_in_training held_out"


def test_days_before_a_period_are_read_and_not_scored(basins, model):
    period = ("2001-04-01", "2001-05-31")
    found = basins.stefa.evaluate("streamflow", model=model, period=period)
    predicted = basins.stefa.predict(model).sel(time=slice(*period))
    xr.testing.assert_allclose(
        found.nse, metrics.nse(predicted, basins.qobs.sel(time=slice(*period)))
    )
    assert (found.days == 61).all()


def test_evaluate_a_model_as_such(basins, model):
    expected = basins.stefa.evaluate("streamflow", model=model, scores=["nse"])
    xr.testing.assert_identical(basins.stefa.evaluate(model, scores="nse"), expected)


def test_models_of_an_older_schema_know_the_names_of_today(basins, model, foundation):
    def forgetful(known):
        tokens, targets = (
            tuple(replace(v, standard_names=(), aliases=()) for v in part)
            for part in (known.spec.schema.forcings, known.spec.schema.targets)
        )
        schema = replace(known.spec.schema, forcings=tokens, targets=targets)
        return create_model(replace(known.spec, schema=schema), known.network().state_dict())

    older = forgetful(model)
    expected = basins.stefa.evaluate(model, scores="nse")
    xr.testing.assert_equal(basins.stefa.evaluate(older, scores="nse"), expected)
    tuned = basins.stefa.finetune("streamflow", model=forgetful(foundation), **FAST)
    assert tuned.schema == model.schema


def test_evaluate_is_lazy_for_chunks(basins, model):
    whole = basins.stefa.evaluate("streamflow", model=model, scores=["nse", "fhv"])
    lazy = basins.chunk(site=2).stefa.evaluate("streamflow", model=model, scores=["nse", "fhv"])
    assert lazy.nse.chunks
    xr.testing.assert_allclose(lazy.compute(), whole)


def test_evaluate_says_what_is_missing(basins, model):
    with pytest.raises(TrainingError, match="no variable of the dataset that observes it"):
        basins.drop_vars("qobs").stefa.evaluate("streamflow", model=model)
    with pytest.raises(OptionError, match="nse, kge"):
        basins.stefa.evaluate("streamflow", model=model, scores=["r2"])


def test_roles_follow_rules_and_ancestors():
    ids = np.array(["01054200", "02231000"])
    assert roles({}, ids).tolist() == [0, 0]
    assert roles({"holdout": "xstefa-release-1"}, ids).tolist() == [2, 0]
    ancestor = {"provenance": {"datasets": {"d": {"trained": ["01054200"], "validated": []}}}}
    child = {"datasets": {"d": {"trained": ["02231000"]}}, "foundation": ancestor}
    assert roles(child, ids).tolist() == [1, 1]


@pytest.mark.parametrize("prefix", ["USGS-", "camels_", "CAMELSUS:", "gauge ", "usgs"])
def test_roles_know_gauges_by_their_numbers(prefix):
    ids = np.array([f"{number:08d}" for number in range(2_231_000, 2_231_040)])
    written = np.array([prefix + name for name in ids])
    for provenance in (
        {"datasets": {"d": {"trained": ids[:5].tolist()}}},
        {"holdout": "xstefa-release-1"},
    ):
        expected = roles(provenance, ids)
        assert (expected == 2).any()
        assert roles(provenance, written).tolist() == expected.tolist()
        assert not roles(provenance, np.array([f"DE{name}-x" for name in ids])).any()


def test_roles_claim_nothing_of_other_names(basins, model):
    """Numbers lose leading zeros, and positions are no names: neither makes a site held out."""
    ids = np.array(["01054200", "02231000", "03504000"])
    trained = {"datasets": {"d": {"trained": ids[:2].tolist()}}}
    rule = {"held_out": HashedSites().to_dict()}
    numbers = np.array(["1054200", "2231000", "3504000"])
    assert roles(trained, numbers).tolist() == [1, 1, 2]
    assert roles(trained, np.array(["a", "b", "c"])).tolist() == [0, 0, 0]
    # A hash decides over names of the form that was trained on, and of no other.
    names = np.array([f"{number:08d}" for number in range(40)])
    out = roles(trained | rule, names)
    np.testing.assert_array_equal(out == 2, held_out(names))
    both = {"held_out": AllTests((HashedSites(), NamedSites(("00000007",)))).to_dict()}
    expected = held_out(names) | (names == "00000007")
    np.testing.assert_array_equal(roles(trained | both, names) == 2, expected)
    others = np.array([f"{kind}{name}" for kind, name in zip("ab" * 20, names, strict=True)])
    assert not roles(trained | rule, others).any()
    assert roles({"holdout": "xstefa-release-1"}, ids, named=False).tolist() == [0, 0, 0]
    unnamed = basins.drop_vars("site")
    assert (unnamed.stefa.evaluate(model, scores="nse").training == 0).all()


def test_cross_validate(basins, foundation):
    with pytest.warns(LeakageWarning, match="pretrained on the inputs of 8 test sites"):
        found = basins.stefa.cross_validate(
            "streamflow", model=foundation, holdout=RandomGroups(3), scores=["nse"], **FAST
        )
    assert found.nse.notnull().all()
    assert sorted(np.unique(found.fold, return_counts=True)[1]) == [2, 3, 3]
    assert len(set(found.attrs["model_hashes"])) == 3
    xr.testing.assert_allclose(found.nse, metrics.nse(found.predicted, found.observed))
    # Each fold's prediction is that of a model that never saw the site.
    fold = int(found.fold[2])
    alone = basins.stefa.finetune(
        "streamflow", model=foundation, holdout=RandomGroups(3).fold(fold), **FAST
    )
    assert "gauge 2" not in alone.spec.provenance["datasets"]["data"]["trained"]


def test_what_the_foundation_may_have_seen(basins, foundation):
    """Released weights tell the rule of what was held out, not the sites."""
    spec = replace(foundation.spec, provenance={"holdout": "xstefa-release-1"})
    released = create_model(spec, foundation.network().state_dict())
    with pytest.warns(LeakageWarning, match="inputs of perhaps [1-8] test sites"):
        basins.stefa.cross_validate(
            "streamflow", model=released, holdout=RandomGroups(2), scores="nse", **FAST
        )


def test_cross_validate_over_time(basins, foundation):
    found = basins.stefa.cross_validate(
        "streamflow",
        model=foundation,
        holdout=RandomGroups(2) & TimeBlocks(2),
        scores=["nse"],
        **FAST,
    )
    assert found.predicted.notnull().sum("time").values.tolist() == [195] * 8
    assert len(found.attrs["folds"]) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeakageWarning)  # no site is new: nothing to warn of
        basins.stefa.cross_validate(
            "streamflow",
            model=foundation,
            holdout=Period("2001-04-01", "2001-06-01"),
            scores=["nse"],
            **FAST,
        )


def test_near_duplicates_are_reported(foundation):
    basins = make_basins()
    double = basins.copy(deep=True)
    for name in ("pr", "qobs"):
        double[name][{"site": 5}] = double[name].isel(site=1) * 1.01 + 0.001
    holdouts = (RandomGroups(8), RandomGroups(2))
    with pytest.warns(LeakageWarning, match="near duplicate"):
        found = double.stefa.cross_validate(
            "streamflow", model=foundation, holdout=holdouts[0], scores=["nse"], **FAST
        )
    assert found.twin.sel(site="gauge 5").item() == "gauge 1"
    assert found.twin.sel(site="gauge 1").item() == "gauge 5"
    assert (found.twin != "").sum() == 2


def test_clean_foundation_gives_no_warning(basins):
    rule = HashedSites(0.3, salt="x")
    clean = xstefa.pretrain(
        basins, size=ENCODER, windows=WINDOWS, steps=1, batch_size=4, holdout=rule
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeakageWarning)
        found = basins.stefa.cross_validate(
            "streamflow", model=clean, holdout=rule, scores=["nse"], **FAST
        )
    assert (found.pretraining[found.fold == 0] == 2).all()
    assert found.nse.isnull().any()  # sites that no fold tested


def test_twins():
    random = np.random.default_rng(0)
    series = random.normal(size=(5, 400)).astype("f4")
    copy = series[:1] * 3 + 1
    copy[:, 30:60] = np.nan
    found = find_twins([copy, copy], [series, series])
    assert found.nearest.tolist() == [0]
    assert found.similarity[0] == pytest.approx(1, abs=1e-5)
    # One kind alike, another not: not the same site.
    assert not find_twins([copy, copy], [series, -series]).above(0.9).any()
    # Nothing in common to compare.
    assert np.isnan(find_twins([copy * np.nan], [series]).similarity).all()
    assert find_twins([copy], [series[:0]]).nearest.tolist() == [-1]


# Reports


@pytest.fixture(scope="module")
def predictions():
    random = np.random.default_rng(0)
    observed = xr.DataArray(
        random.gamma(1.0, 2.0, (30, 200)),
        dims=("site", "time"),
        coords={
            "site": np.arange(30),
            "lat": ("site", np.linspace(30, 45, 30)),
            "lon": ("site", np.linspace(-120, -80, 30)),
        },
        attrs={"units": "mm d-1"},
    )
    good = observed + random.normal(0, 0.5, observed.shape)
    poor = observed + random.normal(0, 1.5, observed.shape)
    poor[3] = np.nan
    return {"good": good, "poor": poor}, observed


def test_identical_sites_and_days(predictions):
    arrays, observed = predictions
    found = compare(arrays, observed, scores=["nse", "rmse"])
    assert found.nse.sizes == {"model": 2, "site": 30}
    assert found.nse.isel(site=3).isnull().all()  # the good one, too, is not judged there
    holes = arrays["poor"].copy()
    holes[:, :100] = np.nan
    found = compare({"good": arrays["good"], "poor": holes}, observed, scores=["nse"])
    expected = score(arrays["good"][:, 100:], observed[:, 100:], scores=["nse"]).nse
    xr.testing.assert_allclose(
        found.nse.sel(model="good").drop_vars("model").where(expected.site != 3),
        expected.where(expected.site != 3),
    )
    with pytest.raises(LayoutError, match="different labels"):
        compare({"good": arrays["good"].isel(site=slice(5))}, observed)
    with pytest.raises(LayoutError, match="no day of any site"):
        compare({"good": arrays["good"] * np.nan}, observed)
    with pytest.raises(OptionError):
        compare({}, observed)


def test_table_and_files(predictions, tmp_path):
    compared = compare(*predictions)
    found = table(compared, reference="poor").set_index(["score", "model"])
    for name in ("nse", "rmse", "correlation"):
        row = found.loc[(name, "good")]
        assert row.difference > 0  # better is positive, whatever the score
        assert row.better == 1.0
        assert row.p_value < 1e-3
        assert row.low <= row["median"] <= row.high
        assert row.sites == 29
        assert np.isnan(found.loc[(name, "poor")].p_value)
    with pytest.raises(OptionError, match="good, poor"):
        table(compared, reference="best")
    write_report(tmp_path, compared, about={"seed": 0}, reference="poor")
    sites = pd.read_csv(tmp_path / "sites.csv")
    assert len(sites) == 60
    assert {"model", "site", "nse", "lat"} <= set(sites)
    again = json.loads((tmp_path / "report.json").read_text())
    assert again["seed"] == 0
    assert len(again["medians"]) == 2 * len(METRICS)
    assert len(pd.read_csv(tmp_path / "medians.csv")) == 2 * len(METRICS)


def test_picture_of_few_sites(predictions):
    tables = [
        table(compare(*predictions, scores="nse").isel(site=slice(count))).assign(
            training_sites=count, seed=0
        )
        for count in (20, 10)
    ]
    axis = plot_few_sites(pd.concat(tables)).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["good", "poor"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["10", "20"]


def test_pictures(predictions, tmp_path):
    compared = compare(*predictions, scores=["nse"])
    figure = plot_cdf(compared, "nse")
    axis = figure.axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels[0].startswith("good, median 0.9")
    for line in axis.get_lines()[:2]:
        shares = np.asarray(line.get_ydata())
        assert (np.diff(shares) > 0).all()
        assert shares[-1] == 1
    figure.savefig(tmp_path / "cdf.png")
    outline = xstefa.datasets.US_OUTLINE
    plot_map(compared.nse.sel(model="good"), outline=outline).savefig(tmp_path / "map.png")
    with pytest.raises(LayoutError, match="where the sites are"):
        plot_map(compared.nse.sel(model="good").drop_vars("lat"))


def test_observations_far_below_zero_are_refused(basins, model):
    for value in (-9.99, -2.0):
        marked = basins.copy(deep=True)
        marked["qobs"][:, ::4] = value
        with pytest.raises(RangeError, match="qobs"):
            marked.stefa.evaluate("streamflow", model=model, scores="nse")


def test_names_of_sites_lie_on_the_sites(basins, model):
    with pytest.raises(LayoutError, match=r"'pr'.*a variable on \(site\)"):
        basins.stefa.evaluate("streamflow", model=model, scores="nse", sites="pr")
