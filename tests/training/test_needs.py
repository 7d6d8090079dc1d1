"""A model is taught what it needs: one of each group, at the sites that it learns from too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.conftest import HEAD
from xstefa.errors import MissingTokenError, OptionError, TrainingError
from xstefa.splits.holdout import RandomSites
from xstefa.training.dropout import TokenDropout
from xstefa.training.finetune import HeadRecipe, finetune
from xstefa.training.sampling import Batch

P, T, PET = "precipitation", "temperature_mean", "potential_evapotranspiration"
NEEDS = ((P,), (T, PET))
HOW = {"steps": 2, "batch_size": 4, "head": HEAD}


@pytest.fixture(scope="module")
def both(basins):
    """Basins of one country with temperature, of another with potential evapotranspiration."""
    pet = basins["tas"].copy(data=np.full(basins["tas"].shape, 3, dtype="f4"))
    pet.attrs = {"standard_name": "water_potential_evaporation_flux", "units": "mm d-1"}
    warm, dry = basins.isel(site=slice(4)), basins.assign(e0=pet).isel(site=slice(4, None))
    return {"warm": warm, "dry": dry.drop_vars("tas")}


def test_a_model_of_two_countries(both, foundation):
    recipe = HeadRecipe(needs=NEEDS, token_dropout=0.3)
    with pytest.raises(MissingTokenError) as caught:
        finetune(both, "streamflow", model=foundation, **HOW)
    assert caught.value.variable == T
    model = finetune(both, "streamflow", model=foundation, recipe=recipe, **HOW)
    assert model.spec.needs == NEEDS
    assert f"needs: {P}, {T} or {PET}" in model.card
    for ds in both.values():
        assert np.isfinite(ds.stefa.predict(model).isel(time=slice(5, None))).all()
    with pytest.raises(MissingTokenError, match=f"{T} or {PET}"):
        both["warm"].drop_vars("tas").stefa.predict(model)
    assert both["dry"].stefa.evaluate(model, scores="rmse")["rmse"].notnull().all()
    further = finetune(both, "streamflow", model=model, **HOW | {"head": None})
    assert further.spec.needs == NEEDS


def test_physics_needs_each_of_its_drivers(basins, foundation):
    model = basins.stefa.finetune("streamflow", model=foundation, **HOW | {"head": "hbv"})
    assert model.spec.needs == ((P,), (T,), (PET,))
    for needs in (NEEDS, ((P,), (T,))):
        how = HOW | {"head": "hbv", "recipe": HeadRecipe(needs=needs)}
        with pytest.raises(TrainingError, match=f"{P}, {T}, {PET}"):
            basins.stefa.finetune("streamflow", model=foundation, **how)
    nowhere = basins.drop_vars("lat")  # potential evapotranspiration is derived from temperature
    with pytest.raises(MissingTokenError, match=PET):
        nowhere.stefa.predict(model)


def test_sites_without_either_are_not_learned_from(both, foundation):
    dry = both["dry"].copy(deep=True)
    dry["e0"][1] = np.nan
    recipe = HeadRecipe(needs=NEEDS)
    model = finetune(both | {"dry": dry}, "streamflow", model=foundation, recipe=recipe, **HOW)
    assert model.spec.provenance["datasets"]["dry"]["trained"] == ["gauge 4", "gauge 6", "gauge 7"]
    how = HOW | {"model": foundation, "recipe": HeadRecipe(needs=((P,), (PET,)))}
    scores = dry.stefa.cross_validate("streamflow", holdout=RandomSites(0.5), **how)
    assert (scores["fold"].values == -1).tolist()[1]


def test_no_model_needs_what_it_has_not_learned(both, foundation):
    how = HOW | {"model": foundation}
    windy = HeadRecipe(needs=((P,), (T, "wind_speed")))
    with pytest.raises(TrainingError, match="has not learned") as caught:
        finetune(both["warm"], "streamflow", recipe=windy, **how)
    assert caught.value.found == f"{P}, {T} or wind_speed"
    misspelt = HeadRecipe(needs=((P,), ("temperature_men",)))
    with pytest.raises(OptionError, match="did you mean 'temperature_mean'"):
        finetune(both["warm"], "streamflow", recipe=misspelt, **how)
    for wrong in ((P, T), [P], P, ((P, 1),), ()):
        with pytest.raises(OptionError, match="needs"):
            HeadRecipe(needs=wrong)
    assert foundation.spec.needs == ((P,), (T,))


def test_the_last_of_a_group_is_never_hidden(foundation):
    schema = foundation.schema
    dropout = TokenDropout(schema, probability=0.5, seed=0, needs=NEEDS)
    p, t, pet = (schema.forcing_names.index(name) for name in (P, T, PET))
    number = torch.arange(4000)
    forcing = torch.zeros(4000, 10, len(schema.forcings))
    forcing[1000:2000, :, t] = torch.nan
    forcing[2000:3000, :6, pet] = torch.nan
    static = torch.zeros(4000, len(schema.statics))
    batch = Batch(number, forcing, static, size=4000)
    hidden = dropout(batch)[0].isnan().all(dim=1)
    again = dropout(batch._replace(number=number[5:], forcing=forcing[5:], static=static[5:]))
    assert torch.equal(again[0].isnan().all(dim=1), hidden[5:])
    assert not hidden[:, p].any()
    assert not hidden[1000:2000, pet].any()
    assert hidden[1000:2000, t].all()
    assert not hidden[2000:3000, t].any()  # of the other less than half is known
    assert not (hidden[:, t] & hidden[:, pet]).any()
    for each in (t, pet):  # a quarter of the windows lack both by the draw, and keep both
        assert float(hidden[3000:, each].float().mean()) == pytest.approx(0.25, abs=0.05)
    assert torch.equal(TokenDropout(schema, probability=0.5, seed=0).static, dropout.static)
