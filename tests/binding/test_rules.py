"""What binds in the real files stays as it is: released weights were trained on it.

`rules.json` holds, for each token of each file, the variables, the rule, the units found, and scale
and offset of the conversion. A change of it means that old models read other numbers than they
were trained on; a schema with a new name is needed then.
"""

import json
import re
from pathlib import Path

import pytest

import xstefa
from xstefa.binding import plan
from xstefa.binding.sources import Direct

RULES = json.loads(Path(__file__).with_name("rules.json").read_text(encoding="utf-8"))


def rules(ds, schema):
    found = {}
    for token, source in plan(ds, schema).sources.items():
        # Which source a name is known from may grow without changing what is read.
        rule = re.sub(r"alias \(.*?\)(?=;|$)", "alias", source.rule)
        found[token] = [", ".join(source.variables), rule]
        if isinstance(source, Direct):
            used = source.conversion
            found[token] += [used.found, used.scale, used.offset]
    return found


@pytest.mark.parametrize("name", [name for name in RULES if name.startswith("sample:")])
def test_rules_of_the_bundled_samples(schema, name):
    assert rules(xstefa.open_sample(name.removeprefix("sample:")), schema) == RULES[name]


@pytest.mark.parametrize("name", [name for name in RULES if not name.startswith("sample:")])
def test_rules_of_the_training_files(shared, schema, name):
    assert rules(shared(name), schema) == RULES[name]


def test_the_order_of_tokens_is_that_of_released_weights(schema):
    assert schema.forcing_names == (
        "precipitation", "temperature_max", "temperature_min", "temperature_mean",
        "shortwave_down", "relative_humidity", "potential_evapotranspiration", "longwave_down",
        "wind_speed", "surface_pressure", "ndvi", "lai", "fapar",
    )  # fmt: skip
    assert schema.static_names == (
        "elevation", "elevation_std", "slope", "topographic_index", "soil_depth",
        "depth_to_bedrock", "p_mean", "pet_mean", "aridity", "p_seasonality", "snow_fraction",
        "high_precip_freq", "high_precip_dur", "low_precip_freq", "low_precip_dur", "t_mean",
        "sand", "silt", "clay", "organic_fraction", "soil_porosity", "soil_conductivity",
        "max_water_content", "bulk_density", "root_zone_storage", "carbonate_fraction",
        "geol_porosity", "geol_permeability", "forest_fraction", "lai_max", "lai_diff", "gvf_max",
        "gvf_diff", "ndvi_mean", "root_depth_50", "canopy_height", "water_fraction",
        "catchment_area", "population_density", "gdp",
    )  # fmt: skip
