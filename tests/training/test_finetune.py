"""Fine-tuning on labeled datasets: what goes in, what comes out, what is refused."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
import torch
import xarray as xr

import xstefa
from tests.training.conftest import ENCODER, HEAD, WINDOWS, make_basins
from xstefa.binding import bind
from xstefa.errors import ModelError, OptionError, TrainingError, XstefaError
from xstefa.model.architecture import STATIC, EncoderSize, HeadSize
from xstefa.model.checkpoint import create_model
from xstefa.model.variants import VARIANTS, driven_size, with_target_as_input
from xstefa.plotting.curves import plot_learning
from xstefa.schema import Alias, Target
from xstefa.splits.holdout import HashedSites, Period, RandomGroups, RandomSites
from xstefa.training.devices import Runner
from xstefa.training.finetune import HeadRecipe, finetune
from xstefa.training.options import RunOptions, Schedule
from xstefa.training.records import Record, fit_scaler
from xstefa.training.sampling import Feed, Windows
from xstefa.windows import SegmentPolicy, WindowPolicy

FAST = {"steps": 3, "batch_size": 4, "head": HEAD}


def test_predicts_with_metadata(basins, foundation):
    model = basins.stefa.finetune("streamflow", model=foundation, **FAST)
    assert model.target.name == "streamflow"
    predicted = basins.stefa.predict(model)
    assert predicted.dims == ("site", "time")
    assert predicted.attrs["units"] == "mm d-1"
    assert predicted.notnull().sum("time").values.tolist() == [195] * 8
    assert "8 sites" in model.card
    assert "catchment_area" in model.card


def test_same_seed_same_file(basins, foundation):
    models = [
        basins.stefa.finetune("streamflow", model=foundation, seed=seed, **FAST)
        for seed in (1, 1, 2)
    ]
    assert models[0].content_hash == models[1].content_hash != models[2].content_hash


def test_states_the_ranges_of_training_sites(basins, foundation):
    high = basins.assign(elevation=basins.elevation.copy(data=1000.0 + 100 * np.arange(8)))
    area = [float(basins.area.min()), float(basins.area.max())]
    model = high.stefa.finetune("streamflow", model=foundation, **FAST)
    known, mine = foundation.spec.ranges["elevation"], model.spec.ranges["elevation"]
    assert (known.low, known.high) == (basins.elevation.min(), basins.elevation.max())
    assert (mine.low, mine.high) == (min(known.low, 1000), max(known.high, 1700))
    assert [getattr(model.spec.ranges["catchment_area"], k) for k in ("low", "high")] == area
    assert set(model.spec.ranges) == set(model.spec.tokens)
    how = {"encoder": "scratch", "holdout": RandomSites(0.5), **FAST}
    scratch = high.stefa.finetune("streamflow", model=foundation, **how)
    trained = scratch.spec.provenance["datasets"]["data"]["trained"]
    own = high.elevation.sel(site=trained)
    mine = scratch.spec.ranges["elevation"]
    assert (mine.low, mine.high) == (own.min(), own.max())


def test_leaves_the_callers_random_numbers_alone(basins, foundation):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    basins.stefa.finetune("streamflow", model=foundation, **FAST)
    assert torch.equal(torch.rand(3), expected)


def test_chunks_and_order_do_not_matter(basins, foundation):
    whole = basins.stefa.finetune("streamflow", model=foundation, **FAST)
    chunked = basins.chunk(site=3, time=70).transpose("time", "site")
    with dask.config.set(scheduler="synchronous"):
        assert chunked.stefa.finetune("streamflow", model=foundation, **FAST) == whole


def test_training_reads_what_prediction_reads(basins, foundation):
    """The same site and days give the same number in a training window and in a prediction."""
    model = basins.stefa.finetune("streamflow", model=foundation, **FAST)
    binding = bind(basins, model.schema)
    record = Record.from_binding(binding, ids=list(basins.site.values))
    start = next(
        int(WINDOWS.start(k, first=record.first_day, last=record.first_day + 199))
        for k in WINDOWS.over(binding.layout.days)
        if WINDOWS.start(k, first=record.first_day, last=record.first_day + 199) > record.first_day
    )
    windows = Windows.find(
        [record.standardised(model.spec.scaler)], length=40, spin_up=10, strides=[1]
    )
    pick = np.flatnonzero(windows.places[0] == 2 * 200 + start - record.first_day)
    batch = Feed(windows, Runner())([pick])
    with torch.inference_mode():
        in_training = model.network()(batch.forcing, batch.static)[0].numpy()
    predicted = basins.stefa.predict(model).isel(site=2).values
    # In the middle of a window no neighbour has a say.
    alone = slice(WINDOWS.spin_up + WINDOWS.blend, WINDOWS.length - WINDOWS.blend)
    days = np.arange(start, start + WINDOWS.length) - record.first_day
    np.testing.assert_allclose(predicted[days][alone], in_training[alone], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in VARIANTS if n not in ("direct", *STATIC)])
def test_every_variant_by_name(name, basins, foundation):
    model = basins.stefa.finetune("streamflow", model=foundation, head=name, steps=1, batch_size=2)
    assert model.spec.architecture.heads[0].kind == VARIANTS[name].head
    assert np.isfinite(model.spec.provenance["learning_curve"]["training"]).all()
    encoder, use = model.network().encoder, VARIANTS[name].encoder
    assert (encoder is None) == (use == "none")
    if encoder is not None:
        pretrained = foundation.network().encoder.state_dict()
        same = all(torch.equal(v, pretrained[k]) for k, v in encoder.state_dict().items())
        assert same == (use == "frozen")


def test_target_as_input(basins, foundation):
    schema = foundation.schema
    knowing = xstefa.pretrain(
        basins,
        with_target_as_input(schema, schema.target("streamflow")),
        size=ENCODER,
        windows=WINDOWS,
        steps=1,
        batch_size=4,
    )
    model = basins.stefa.finetune("streamflow", model=knowing, head="direct", steps=1, batch_size=2)
    # What it learned is not what it is told: without observations the answer is the same.
    xr.testing.assert_equal(
        basins.stefa.predict(model), basins.drop_vars("qobs").stefa.predict(model)
    )
    with pytest.raises(xstefa.XstefaError):
        basins.stefa.finetune("streamflow", model=foundation, head="direct", steps=1)


def test_link_and_scale_follow_from_the_target(basins, foundation):
    model = basins.stefa.finetune("streamflow", model=foundation, steps=1, batch_size=2)
    (head,) = model.spec.architecture.heads
    assert head.link == "softplus"
    assert head.scale == pytest.approx(float(np.nanstd(basins.qobs)), rel=1e-6)
    wet = basins.rename(qobs="swc").assign(swc=basins.qobs / 100)
    wet.swc.attrs = {"units": "m3 m-3"}
    model = wet.stefa.finetune("soil_moisture", model=foundation, steps=1, batch_size=2)
    assert model.spec.architecture.heads[0].link == "logistic"


def test_a_target_of_ones_own(basins, foundation):
    level = Target(
        name="level",
        units="m",
        long_name="water level above a datum",
        cell_methods="time: mean",
        valid_range=(-10, 10),
        aliases=(Alias(name="stage", source="own"),),
    )
    ds = basins.rename(qobs="stage")
    ds.stage.attrs = {"units": "cm"}
    model = ds.stefa.finetune(level, model=foundation, steps=2, batch_size=4)
    assert replace(model.target, aliases=level.aliases) == level
    assert [alias.name for alias in model.target.aliases] == ["stage", "level"]
    assert model.spec.architecture.heads[0].link == "identity"
    assert ds.stefa.predict(model).attrs["units"] == "m"


def test_holdout_sites_are_not_learned_from(basins, foundation):
    holdout = RandomSites(0.25, seed=2)
    model = basins.stefa.finetune("streamflow", model=foundation, holdout=holdout, **FAST)
    trained = model.spec.provenance["datasets"]["data"]["trained"]
    assert len(trained) == 6
    spoiled = basins.copy(deep=True)
    out = ~basins.site.isin(trained)
    spoiled["qobs"] = xr.where(out, 99.0, basins.qobs).transpose(*basins.qobs.dims)
    spoiled.qobs.attrs = basins.qobs.attrs
    again = spoiled.stefa.finetune("streamflow", model=foundation, holdout=holdout, **FAST)
    assert weights_equal(model, again)


def test_held_out_days_are_not_learned_from(basins, foundation):
    holdout = Period("2001-05-01", "2001-07-19")
    model = basins.stefa.finetune("streamflow", model=foundation, holdout=holdout, **FAST)
    spoiled = basins.copy(deep=True)
    spoiled["qobs"] = basins.qobs.where(basins.time < np.datetime64("2001-05-01"), 99.0)
    spoiled.qobs.attrs = basins.qobs.attrs
    again = spoiled.stefa.finetune("streamflow", model=foundation, holdout=holdout, **FAST)
    assert weights_equal(model, again)
    # Nor are they watched.
    how = {"model": foundation, "holdout": holdout, "validation": RandomSites(0.25), **FAST}
    curves = [
        ds.stefa.finetune("streamflow", **how).spec.provenance["learning_curve"]["validation"]
        for ds in (basins, spoiled)
    ]
    assert curves[0] == curves[1]


def test_pretraining_leaves_out_days(basins):
    holdout = Period("2001-05-01", "2001-07-19")
    how = {"size": ENCODER, "windows": WINDOWS, "steps": 2, "batch_size": 4, "holdout": holdout}
    later = basins.time >= np.datetime64("2001-05-01")
    spoiled = basins.assign(pr=basins.pr.where(~later, 55.0), tas=basins.tas.where(~later, 0.0))
    for name in ("pr", "tas"):
        spoiled[name].attrs = basins[name].attrs
    assert weights_equal(xstefa.pretrain(basins, **how), xstefa.pretrain(spoiled, **how))


def weights_equal(one: xstefa.Model, two: xstefa.Model) -> bool:
    a, b = one.network().state_dict(), two.network().state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_one_model_one_fold(basins, foundation):
    with pytest.raises(TrainingError, match=r"3 folds.*fold\(0\)"):
        basins.stefa.finetune("streamflow", model=foundation, holdout=RandomGroups(3), **FAST)
    assert basins.stefa.finetune(
        "streamflow", model=foundation, holdout=RandomGroups(3).fold(1), **FAST
    )


def test_early_stopping_keeps_the_best(basins, foundation):
    how = dict(FAST, steps=30, learning_rate=1.0)  # far too fast: the first looks are the best
    model = basins.stefa.finetune(
        "streamflow", model=foundation, validation=RandomSites(0.25), patience=3, **how
    )
    curve = model.spec.provenance["learning_curve"]
    looks = {step: loss for step, loss in curve["validation"]}
    assert curve["best_step"] == min(looks, key=looks.get)
    assert len(looks) < 30
    assert len(model.spec.provenance["datasets"]["data"]["validated"]) == 2
    with pytest.raises(OptionError, match="validation="):
        basins.stefa.finetune("streamflow", model=foundation, patience=3, **FAST)


def test_heads_are_trained_on(basins, foundation):
    first = basins.stefa.finetune("streamflow", model=foundation, **FAST)
    second = basins.stefa.finetune(
        "streamflow", model=first, head=None, steps=1, batch_size=4, learning_rate=1e-9
    )
    for key, value in first.network().heads.state_dict().items():
        torch.testing.assert_close(second.network().heads.state_dict()[key], value)
    assert second.spec.provenance["foundation"]["sha256"] == first.content_hash
    with pytest.raises(ModelError, match="head="):
        basins.stefa.finetune("streamflow", model=foundation, head=None, steps=1)


@pytest.mark.parametrize("kind", ["lstm", "reservoirs"])
def test_what_reads_the_inputs_only_needs_no_encoder(basins, foundation, kind):
    how = {"head": HeadSize(kind=kind, hidden=8, link="softplus"), "steps": 1, "batch_size": 4}
    model = basins.stefa.finetune("streamflow", model=foundation, **how)
    assert model.spec.architecture.encoder is None


def test_a_baseline_has_no_encoder_to_keep(basins, foundation):
    how = {"steps": 1, "batch_size": 4}
    baseline = basins.stefa.finetune("streamflow", model=foundation, head="lstm", **how)
    for head in ("resconn", "released"):
        with pytest.raises(ModelError, match="without an encoder"):
            basins.stefa.finetune("streamflow", model=baseline, head=head, **how)
    assert basins.stefa.finetune("streamflow", model=baseline, head="lstm", **how)


def test_several_datasets(basins, foundation):
    parts = {"a": basins.isel(site=slice(5)), "b": basins.isel(site=slice(5, 8), time=slice(120))}
    model = finetune(parts, "streamflow", model=foundation, shares={"a": 3, "b": 1}, **FAST)
    assert set(model.spec.provenance["datasets"]) == {"a", "b"}
    with pytest.raises(TrainingError, match="one for each dataset: a, b"):
        finetune(parts, "streamflow", model=foundation, shares={"a": 1.0}, **FAST)


def test_short_records_train_and_predict(foundation):
    short = make_basins(days=30)
    model = short.stefa.finetune("streamflow", model=foundation, **FAST)
    predicted = short.stefa.predict(model)
    assert bool((predicted.notnull() == (np.arange(30) >= 5)).all())


def test_tokens_the_foundation_never_saw_stay_hidden(basins, foundation):
    more = basins.assign(slope=("site", np.arange(8.0) / 100, {"units": "m m-1"}))
    plain = basins.stefa.finetune("streamflow", model=foundation, **FAST)
    frozen = more.stefa.finetune("streamflow", model=foundation, **FAST)
    assert weights_equal(plain, frozen)
    assert "slope" not in frozen.spec.tokens
    tuned = more.stefa.finetune("streamflow", model=foundation, encoder="tuned", **FAST)
    assert "slope" in tuned.spec.tokens


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"holdout": "region"}, "'holdout'.*Period"),
        ({"validation": [RandomSites(0.2)]}, "'validation'.*RandomSites"),
        ({"validation": Period("2001-03-01", "2001-04-01")}, "watched at sites"),
        ({"validation": RandomGroups(4)}, "watched at sites.*one fold"),
        ({"validation": RandomSites(0.25), "patience": 0}, "'patience'.*above 0"),
        ({"head": ()}, "'head'.*one head or several"),
        ({"encoder": "thawed"}, "'encoder'.*frozen"),
        ({"seed": -1}, "'seed'.*0 or more"),
        ({"memory": "1%"}, "'memory'.*4 GiB"),
        ({"steps": 2.5}, "'steps'.*whole number"),
        ({"learning_rate": -1.0}, "'learning_rate'.*above 0"),
        ({"schedule": Schedule(steps=2), "steps": 3}, "'steps'.*one of them"),
        ({"schedule": Schedule(steps=2), "seed": 1}, r"'seed'.*replace\(schedule, seed"),
    ],
)
def test_arguments_that_make_no_sense(basins, foundation, how, what):
    with pytest.raises(XstefaError, match=what):
        basins.stefa.finetune(
            "streamflow", model=foundation, **{"head": HEAD, "batch_size": 4, **how}
        )


@pytest.mark.parametrize(
    "how", [{"loss": "kge"}, {"scale": 0}, {"centred": 2}, {"stride": 0}, {"encoding": "fp16"}]
)
def test_recipes_that_make_no_sense(how):
    with pytest.raises(OptionError, match=next(iter(how))):
        HeadRecipe(**how)


@pytest.mark.parametrize("how", [{"batch_size": 0}, {"precision": "fp16"}, {"clip": -1}])
def test_schedules_that_make_no_sense(how):
    with pytest.raises(OptionError, match=next(iter(how))):
        Schedule(**{"steps": 2, **how})


def test_teaching_errors(basins, foundation):
    with pytest.raises(TrainingError, match="no variable of the dataset that observes it"):
        basins.drop_vars("qobs").stefa.finetune("streamflow", model=foundation, **FAST)
    with pytest.raises(OptionError, match="resconn"):
        basins.stefa.finetune("streamflow", model=foundation, head="resnet", steps=1)
    with pytest.raises(OptionError, match="one of them"):
        basins.stefa.finetune("streamflow", model=foundation, steps=1, epochs=1)
    never = basins.assign(qobs=basins.qobs * np.nan)
    never.qobs.attrs = basins.qobs.attrs
    with pytest.raises(TrainingError, match="'streamflow': nothing to learn from"):
        never.stefa.finetune("streamflow", model=foundation, **FAST)
    twice = basins.assign_coords(site=["a"] * 8)
    with pytest.raises(TrainingError, match="names of their own"):
        twice.stefa.finetune("streamflow", model=foundation, **FAST)
    with pytest.raises(TrainingError, match="not finite"):
        basins.stefa.finetune(
            "streamflow", model=foundation, recipe=HeadRecipe(loss="mse", scale=1e-30), **FAST
        )


def test_grid(foundation):
    flat = make_basins(sites=6)
    index = {"lat": [50.0, 51.0], "lon": [3.0, 4.0, 5.0]}
    grid = xr.Dataset(
        {
            name: (("time", "lat", "lon") if "time" in v.dims else ("lat", "lon"),
                   v.transpose(..., "site").values.reshape(*v.shape[1:], 2, 3), v.attrs)
            for name, v in flat.data_vars.items()
        },
        coords={"time": flat.time, **index},
    )  # fmt: skip
    grid = grid.where((grid.lat < 51) | (grid.lon > 3))  # one cell of water
    model = grid.stefa.finetune("streamflow", model=foundation, **FAST)
    assert model.spec.support == "grid"
    assert "51.0,3.0" not in model.spec.provenance["datasets"]["data"]["trained"]
    found = grid.stefa.cross_validate(
        "streamflow", model=foundation, holdout=RandomGroups(2), scores=["nse"], **FAST
    )
    assert found.nse.dims == ("lat", "lon")
    assert int(found.nse.isnull().sum()) == 1
    assert set(np.unique(found.fold)) == {-1, 0, 1}


def test_schedule_by_epochs():
    found = [
        RunOptions(steps=s, epochs=e).schedule_for(days=6400, length=10).steps
        for s, e in ((7, None), (None, 2), (None, None))
    ]
    assert found == [7, 20, 500]
    schedule = Schedule(steps=100)
    assert 0 <= schedule.rate(99) < schedule.rate(0) < schedule.rate(4) == pytest.approx(1e-3)


def test_learning_curve_is_a_picture(basins, foundation, tmp_path):
    model = basins.stefa.finetune(
        "streamflow", model=foundation, validation=RandomSites(0.25), **FAST
    )
    plot_learning(model).savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    bare = replace(model.spec, provenance={})
    with pytest.raises(ModelError, match="learning curve"):
        plot_learning(create_model(bare, model.network().state_dict()))


def test_pretraining(basins, tmp_path):
    how = {"size": ENCODER, "windows": WINDOWS, "steps": 4, "batch_size": 4}
    model = xstefa.pretrain(
        {"all": basins, "few": basins.isel(site=slice(3))},
        holdout=HashedSites(0.4),
        validation=RandomSites(0.3),
        patience=3,
        **how,
    )
    assert model.target is None
    assert {"precipitation", "temperature_mean", "elevation"} <= set(model.spec.tokens)
    content = model.spec.provenance["datasets"]["all"]
    assert set(content["trained"]).isdisjoint(content["validated"])
    assert model == xstefa.pretrain(
        {"all": basins, "few": basins.isel(site=slice(3))},
        holdout=HashedSites(0.4),
        validation=RandomSites(0.3),
        patience=3,
        **how,
    )
    with pytest.raises(TrainingError, match="at least one dataset"):
        xstefa.pretrain({}, **how)


def test_windows_of_a_fold_keep_their_numbers(basins, foundation):
    record = Record.from_binding(
        bind(basins, foundation.schema), ids=list(basins.site.values), target="streamflow"
    )
    record = record.standardised(fit_scaler(foundation.schema, [record]))
    whole = Windows.find([record], length=40, spin_up=10, strides=[7], seed=5)
    kept = np.arange(8) % 2 == 0
    part = whole.restricted([kept])
    assert kept[part.places[0][part.drawn[0]] // 200].all()
    (picks,) = part.in_order(batch_size=len(part))
    batch, every = Feed(part, Runner())(picks), Feed(whole, Runner())([part.drawn[0]])
    assert torch.equal(batch.number, torch.from_numpy(part.drawn[0]))
    assert torch.equal(batch.number, every.number)
    torch.testing.assert_close(batch.target, every.target, equal_nan=True)


def test_physics_says_what_it_needs(foundation) -> None:
    size, tokens = HeadSize(kind="hbv"), foundation.schema.forcing_names
    fewer = set(tokens) - {"potential_evapotranspiration"}
    with pytest.raises(ModelError, match=r"potential_evapotranspiration.*head=.resconn"):
        driven_size(size, spec=foundation.spec, tokens=fewer, target="streamflow")
    schema = foundation.schema
    level = replace(
        schema.target("streamflow"), name="level", hidden=("potential_evapotranspiration",)
    )
    spec = replace(foundation.spec, schema=schema.with_targets(level))
    with pytest.raises(ModelError, match=r"'level', which hides it.*out of `hidden`"):
        driven_size(size, spec=spec, tokens=fewer, target="level")
    with pytest.raises(ModelError, match=r"soil_moisture.*does not predict.*streamflow"):
        driven_size(size, spec=foundation.spec, tokens=tokens, target="soil_moisture")


def test_windows_of_the_head_are_those_of_prediction(basins, foundation):
    windows = WindowPolicy(length=30, spin_up=8, blend=2)
    model = basins.stefa.finetune(
        "streamflow", model=foundation, recipe=HeadRecipe(windows=windows), **FAST
    )
    assert model.spec.windows == windows
    with pytest.raises(OptionError, match="windows"):
        basins.stefa.finetune(
            "streamflow", model=foundation, recipe=HeadRecipe(windows=SegmentPolicy()), **FAST
        )


def test_an_encoder_that_looks_back_only_from_pretraining_to_prediction(basins, tmp_path):
    encoder = EncoderSize(
        attention="causal", band=64, width=16, layers=1, heads=2, feedforward=16, hidden=8
    )
    windows = SegmentPolicy(length=60, spin_up=20)
    foundation = xstefa.pretrain(basins, size=encoder, windows=windows, steps=3, batch_size=4)
    filled = basins.stefa.reconstruct(["elevation"], only_missing=False, model=foundation)
    assert filled.elevation.notnull().all()

    found = []
    for cache in (True, False):  # the windows encoded before training, or at each step
        recipe = HeadRecipe(cache=cache, encoding="fp32")
        model = basins.stefa.finetune("streamflow", model=foundation, recipe=recipe, **FAST)
        found.append(basins.stefa.predict(model))
    np.testing.assert_allclose(*found, rtol=1e-4)
    model = model.save(tmp_path / "model")
    assert model.spec.windows == windows
    assert basins.stefa.predict(model).equals(found[1])
    # Half of the spin-up has no answer, all else has one.
    assert found[0].isnull().sum("time").values.tolist() == [10] * 8


@pytest.mark.parametrize("days", [40, 43])
def test_a_record_as_short_as_a_window_has_one(days):
    material = bind(make_basins(days=days), xstefa.load_schema())
    record = Record.from_binding(
        material, ids=[f"gauge {i}" for i in range(8)], target="streamflow"
    )
    for seed in range(5):
        found = Windows.find([record], length=40, spin_up=10, strides=[26], seed=seed)
        assert (found.places[0] // days).tolist() == list(range(8))


def test_a_record_that_no_answer_would_follow_from_is_refused(foundation):
    basins = make_basins(days=50)
    recipe = HeadRecipe(windows=WindowPolicy(length=40, spin_up=30, blend=0))
    assert basins.stefa.finetune("streamflow", model=foundation, recipe=recipe, **FAST)
    with pytest.raises(TrainingError, match=r"15 days.*at least 16.*HeadRecipe\(windows"):
        make_basins(days=15).assign(qobs=basins.qobs.isel(time=slice(15))).stefa.finetune(
            "streamflow", model=foundation, recipe=recipe, **FAST
        )
