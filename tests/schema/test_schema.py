import json
from dataclasses import replace

import pytest

from xstefa.binding.derive import DAY_OF_YEAR, DERIVATIONS, LATITUDE
from xstefa.binding.units import conversion, same_kind
from xstefa.errors import SchemaError
from xstefa.schema import Alias, Schema, Variable, load_schema, load_tokens

SCHEMA = load_schema()

MINIMAL = """
name = "small"
version = "1"
[[forcing]]
name = "precipitation"
units = "mm d-1"
long_name = "precipitation"
valid_range = [0, 2000]
"""


def test_tokens_come_in_the_order_models_stack_them():
    assert SCHEMA.forcing_names[:3] == ("precipitation", "temperature_max", "temperature_min")
    assert len(SCHEMA.forcings) == 13
    assert SCHEMA.static_names[0] == "elevation"
    assert [v.name for v in SCHEMA.forcings if v.required] == ["precipitation", "temperature_mean"]


def test_round_trip_through_json_keeps_content_and_fingerprint():
    again = Schema.from_dict(json.loads(json.dumps(SCHEMA.to_dict())))
    assert again == SCHEMA
    assert again.fingerprint == SCHEMA.fingerprint


def test_fingerprint_follows_content():
    content = SCHEMA.to_dict()
    content["version"] = "other"
    assert Schema.from_dict(content).fingerprint != SCHEMA.fingerprint


def told(alias):
    """Whether the dataset can show that the name is the one of this source."""
    return alias.beside is not None or alias.signed


@pytest.mark.parametrize("kind", ["forcing", "static"])
def test_a_name_that_two_tokens_have_is_told_by_its_source_or_its_units(kind):
    owners: dict[str, Variable] = {}
    for variable in (*SCHEMA.tokens, *SCHEMA.ingredients, *SCHEMA.others):
        for alias in variable.aliases if variable.kind == kind else ():
            if not told(alias):
                owner = owners.setdefault(alias.name, variable)
                assert owner is variable or not same_kind(owner.units, variable.units), alias.name


def test_every_alias_says_where_it_comes_from_and_converts():
    for variable in (*SCHEMA.tokens, *SCHEMA.ingredients, *SCHEMA.targets):
        for alias in variable.aliases:
            assert alias.source
            if alias.signed:
                assert alias.units is not None
                assert {*alias.source.split(", ")} <= SCHEMA.sources.keys()
            # Discharge becomes a depth over the area of each catchment.
            if alias.units is not None and alias.units != "m3 s-1":
                conversion(
                    alias.units, variable.units, variable=alias.name, time_method=alias.method
                )


def test_the_more_particular_of_two_aliases_comes_first():
    for variable in (*SCHEMA.tokens, *SCHEMA.ingredients):
        plain: set[str] = set()
        for alias in variable.aliases:
            assert alias.name not in plain, f"{alias.name} ({alias.source}) never counts"
            if not told(alias):
                plain.add(alias.name)


def test_derivations_use_what_the_schema_knows():
    for derivation in DERIVATIONS:
        for name in (derivation.token, *derivation.parts):
            assert name in SCHEMA or name in (LATITUDE, DAY_OF_YEAR)


@pytest.mark.parametrize(
    "name",
    ["aridity_index", "seasonality", "ssr", "pev", "Rainf_tavg", "q_mean", "runoff_ratio"],
)
def test_look_alikes_are_no_aliases(name):
    variables = (*SCHEMA.tokens, *SCHEMA.ingredients)
    assert name not in {alias.name for variable in variables for alias in variable.aliases}


def test_unknown_names_list_the_known_ones():
    with pytest.raises(SchemaError, match="precipitation"):
        SCHEMA["rain"]
    with pytest.raises(SchemaError, match="soil_moisture"):
        SCHEMA.target("snow")
    with pytest.raises(SchemaError, match="stefaland"):
        load_schema("stefasea")


def test_a_schema_is_read_from_a_path(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(MINIMAL)
    assert load_schema(path).forcing_names == ("precipitation",)
    assert load_schema(str(path)) == load_schema(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[forcing]]", "[[forcings]]"), "no such field"),
        (('version = "1"', ""), "version"),
        (('units = "mm d-1"', ""), "units"),
        (('units = "mm d-1"', 'units = "mm d-1"\ncolour = "blue"'), "colour"),
        (("[0, 2000]", "[0]"), "array of 2"),
        (("valid_range", 'transform = "sqrt"\nvalid_range'), "transform"),
        (("valid_range", 'kind = "dynamic"\nvalid_range'), "kind"),
        (("valid_range", 'aliases = "pr"\nvalid_range'), "array"),
        (("name = ", "name ="), None),
        (('name = "small"', "name = small"), "TOML"),
    ],
)
def test_a_malformed_schema_says_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "small.toml"
    path.write_text(MINIMAL.replace(*change))
    if message is None:
        load_schema(path)
        return
    with pytest.raises(SchemaError, match=message):
        load_schema(path)


def test_a_token_listed_twice_is_refused():
    content = SCHEMA.to_dict()
    content["static"] = [*content["static"], content["forcing"][0]]
    with pytest.raises(SchemaError, match="twice"):
        Schema.from_dict(content)


def test_models_of_an_older_schema_know_new_names_as_long_as_numbers_mean_the_same():
    first, *others = SCHEMA.forcings
    older = replace(SCHEMA, version="0", forcings=(replace(first, aliases=()), *others))
    assert older.current() == SCHEMA
    for change in ({"units": "m d-1"}, {"transform": "log1p"}, {"name": "rain"}):
        changed = replace(SCHEMA, forcings=(replace(first, **change), *others))
        assert changed.current() is changed
    observed, *rest = SCHEMA.targets
    renamed = replace(observed, aliases=(Alias(name="mine", source="own"),))
    added = replace(observed, name="another")
    own = replace(older, targets=(renamed, *rest, added)).current()
    assert own.forcings == SCHEMA.forcings
    assert own.target(observed.name).aliases == (*observed.aliases, *renamed.aliases)
    assert own.target("another") == added
    swapped = replace(SCHEMA, forcings=(*others, first))
    assert swapped.current() is swapped
    unknown = replace(SCHEMA, name="published")
    assert unknown.current() is unknown


def test_what_came_later_does_not_change_what_was_written_before():
    content = SCHEMA.to_dict()
    assert "extra" not in content
    assert not any("length" in entry for entry in content["static"])
    token = replace(SCHEMA.statics[0], name="patch", length=3, aliases=())
    schema = SCHEMA.with_extras([token])
    assert schema.fingerprint != SCHEMA.fingerprint
    assert Schema.from_dict(schema.to_dict()) == schema
    (known,) = schema.current().extras
    assert [alias.name for alias in known.aliases] == ["patch"]
    assert schema.with_extras([token]) == schema
    assert schema.current().statics == SCHEMA.statics
    assert [*schema.site_columns][-3:] == ["patch[0]", "patch[1]", "patch[2]"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"statics": (replace(SCHEMA.statics[0], length=2),)}, "vector"),
        ({"extras": (replace(SCHEMA.forcings[0], name="x"),)}, "attribute of the site"),
        ({"extras": (SCHEMA.statics[0],)}, "twice"),
    ],
)
def test_refuses_tokens_in_the_wrong_place(change, text):
    with pytest.raises(SchemaError, match=text):
        replace(SCHEMA, **change)


def test_tokens_by_name_by_file_and_by_description(tmp_path):
    (alphaearth,) = load_tokens("alphaearth")
    assert alphaearth.length == 64
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[static]]\nname = "curvature"\nunits = "m-1"\nlong_name = "curvature"\n'
        'valid_range = [-1, 1]\n[[target]]\nname = "mine"\n'
    )
    mine, other, tessera = load_tokens([file, alphaearth, "tessera"])
    assert (mine.name, mine.kind, mine.length) == ("curvature", "static", 1)
    assert (other, tessera.length) == (alphaearth, 128)
    assert load_tokens(str(file)) == (mine,)


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("[[static]]\nname = 'x'\n", "static[0].units"),
        ("[[forcing]]\nname = 'x'\n", "mine.toml"),
        ("", "mine.toml"),
        (
            "[[static]]\nname = 'x'\nunits = '1'\nlong_name = 'x'\nvalid_range = [0, 1]\n"
            "length = 0",
            "static[0].length",
        ),
    ],
)
def test_malformed_tokens_are_named(tmp_path, text, variable):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(SchemaError) as caught:
        load_tokens(file)
    assert str(caught.value.variable).endswith(variable)


def test_unknown_tokens_are_named():
    with pytest.raises(SchemaError, match="alphaearth"):
        load_tokens("alphaerth")
    with pytest.raises(SchemaError, match="no such file"):
        load_tokens("nowhere.toml")
