from dataclasses import replace
from html.parser import HTMLParser

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import TokenRow, TokenTable, plan

TABLE = TokenTable(
    schema="small",
    rows=(
        TokenRow(
            token="precipitation",
            kind="forcing",
            units="mm d-1",
            variables=("pr",),
            rule="standard_name",
            units_found="kg m-2 s-1",
            required=True,
        ),
        TokenRow(
            token="temperature_mean",
            kind="forcing",
            units="degC",
            required=True,
            advice="call it tas",
        ),
        TokenRow(
            token="elevation",
            kind="static",
            units="m",
            variables=("<b>&z",),
            rule="alias (a & b)",
            units_found="m",
        ),
    ),
    unused={"<i>": "no token", "other": "no token"},
    layout="grid (time, lat, lon), 4 days",
    problems=(
        "'temperature_mean': missing Fix: rename={'t': 'temperature_mean'}",
        "<script>alert(1)</script>",
    ),
)

TEXT = """\
<xstefa.TokenTable> schema 'small', grid (time, lat, lon), 4 days
Problems: 2
    'temperature_mean': missing
        Fix: rename={'t': 'temperature_mean'}
    <script>alert(1)</script>
Missing and required: temperature_mean
    temperature_mean: call it tas
Forcings: 1 of 2 tokens
    precipitation  pr  kg m-2 s-1 → mm d-1  standard_name
    missing: temperature_mean (required)
Statics: 1 of 1 tokens
    elevation  <b>&z  m  alias (a & b)
Unused: 2 variables
    no token: <i>, other
Values: not read; ds.stefa.tokens(check=True) reads a few days and tells coverage and range"""


def test_text():
    assert repr(TABLE) == TEXT


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open += [tag] if tag not in ("br", "wbr") else []
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_collapsible_and_escaped():
    html = TABLE._repr_html_()
    parser = _Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.seen.count("details") == 6
    assert "script" not in parser.seen
    assert "b" not in parser.seen
    assert "&lt;b&gt;&amp;z" in html


def test_html_begins_with_what_is_wrong_in_colour():
    html = TABLE._repr_html_().partition("</pre>")[2]
    order = ["Problems", "alert(1)", "Missing and required", "call it tas", "Forcings"]
    places = [html.index(text) for text in order]
    assert places == sorted(places)
    assert html.count("style='border-left: 4px solid #dc3b3b") == 2
    fine = replace(TABLE, rows=TABLE.rows[::2], problems=())._repr_html_()
    assert "border-left" not in fine.partition("</pre>")[2]


def test_html_lines_end_within_names_but_not_within_units():
    html = TABLE._repr_html_().partition("</pre>")[2]
    assert "temperature_<wbr>mean" in html
    assert "kg <span class='xstefa-unit'>m-2</span> <span class='xstefa-unit'>s-1</span> →" in html


def test_long_lists_are_wrapped(basins, schema):
    text = repr(plan(basins, schema).table)
    assert max(map(len, text.splitlines())) <= 120
    text = repr(basins.stefa.tokens())
    assert max(map(len, text.splitlines())) <= 140


# ---- coverage and ranges


def test_values_in_memory_are_looked_at(basins):
    basins["hot"][0] = np.nan
    table = basins.stefa.tokens()
    assert table["temperature_max"].known == pytest.approx(2 / 3)
    assert table["temperature_mean"].known == pytest.approx(2 / 3)  # derived
    assert table["elevation"].low == 10.0
    assert table["elevation"].high == 3000.0
    assert table["ndvi"].known is None
    assert table.looked_at == "10 of 10 days, 3 of 3 site"
    assert "66.7 %" in repr(table)
    assert "10 to 3000" in repr(table)
    frame = table.to_pandas()
    assert frame.loc["elevation", "high"] == 3000.0


def test_values_in_files_and_graphs_are_looked_at_only_when_asked(basins, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("data was read")

    chunked = basins.chunk()
    with dask.config.set(scheduler=refuse):
        assert chunked.stefa.tokens().looked_at == ""
    assert chunked.stefa.tokens(check=True)["precipitation"].known == 1.0
    assert basins.stefa.tokens(check=False).looked_at == ""
    basins.to_netcdf(tmp_path / "basins.nc")
    with xr.open_dataset(tmp_path / "basins.nc") as ds:
        assert "not read" in repr(ds.stefa)
        assert not any(ds[name].variable._in_memory for name in ds.data_vars)


def test_values_that_do_not_fit_their_units_are_problems(basins):
    basins["hot"] = (basins["hot"] + 273.15).assign_attrs(basins["hot"].attrs)
    table = basins.stefa.tokens()
    assert any("look like K" in problem for problem in table.problems)
    # The mean is derived from it.
    assert [row.token for row in table.rows if row.wrong][:2] == [
        "temperature_max",
        "temperature_mean",
    ]
    assert "(!)" in repr(table)
    assert "<td class='xstefa-wrong'>" in table._repr_html_()


def test_large_maps_are_thinned():
    days = pd.date_range("2001-01-01", periods=400)
    ds = xr.Dataset(
        {"pr": (("time", "lat", "lon"), np.ones((400, 200, 3), np.float32), {"units": "mm d-1"})},
        coords={"time": days, "lat": np.linspace(-60, 60, 200), "lon": [0.0, 1.0, 2.0]},
    )
    assert ds.stefa.tokens().looked_at == "16 of 400 days, 64 of 200 lat, 3 of 3 lon"


def test_every_token_says_how_to_provide_it(schema):
    table = plan(xr.Dataset(), schema).table
    for row in table.rows:
        assert f"rename={{'<variable>': '{row.token}'}}" in row.advice
        assert row.units in row.advice
    assert "vapour_pressure and temperature_mean" in table["relative_humidity"].advice
    assert "\n    precipitation: in units like mm d-1: " in repr(table)


def test_lookups_and_frame():
    assert TABLE.matched == ("precipitation", "elevation")
    assert TABLE.missing == ("temperature_mean",)
    assert TABLE["elevation"].matched
    with pytest.raises(KeyError):
        TABLE["rain"]
    frame = TABLE.to_pandas()
    assert frame.loc["precipitation", "variable"] == "pr"
    assert list(frame.index) == ["precipitation", "temperature_mean", "elevation"]
