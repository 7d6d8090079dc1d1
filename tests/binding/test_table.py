from html.parser import HTMLParser

import pytest

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
        TokenRow(token="temperature_mean", kind="forcing", units="degC", required=True),
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
    problems=("'temperature_mean': missing", "<script>alert(1)</script>"),
)

TEXT = """\
<xstefa.TokenTable> schema 'small', grid (time, lat, lon), 4 days
Forcings: 1 of 2 tokens
    precipitation  pr  kg m-2 s-1 → mm d-1  standard_name
    missing: temperature_mean (required)
Statics: 1 of 1 tokens
    elevation  <b>&z  m  alias (a & b)
Problems: 2
    'temperature_mean': missing
    <script>alert(1)</script>
Unused: 2 variables
    no token: <i>, other"""


def test_text():
    assert repr(TABLE) == TEXT


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_collapsible_and_escaped():
    html = TABLE._repr_html_()
    parser = _Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.seen.count("details") == 4
    assert "script" not in parser.seen
    assert "b" not in parser.seen
    assert "&lt;b&gt;&amp;z" in html


def test_long_lists_are_wrapped(basins, schema):
    text = repr(plan(basins, schema).table)
    assert max(map(len, text.splitlines())) <= 120


def test_lookups_and_frame():
    assert TABLE.matched == ("precipitation", "elevation")
    assert TABLE.missing == ("temperature_mean",)
    assert TABLE["elevation"].matched
    with pytest.raises(KeyError):
        TABLE["rain"]
    frame = TABLE.to_pandas()
    assert frame.loc["precipitation", "variable"] == "pr"
    assert list(frame.index) == ["precipitation", "temperature_mean", "elevation"]
