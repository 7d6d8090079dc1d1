"""Pages: what stands on them, and how a browser takes them."""

from __future__ import annotations

import io
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from tqdm import tqdm

from xstefa.cli import main
from xstefa.errors import OptionError
from xstefa.report.markup import table
from xstefa.report.region import chosen_for_details


class Reader(HTMLParser):
    """Collects names, headings and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if "id" in given:
            self.names.append(str(given["id"]))


@pytest.fixture(scope="module")
def region(basins: xr.Dataset, predicted: xr.DataArray, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pages") / "region.html"
    return basins.stefa.report(place, predicted, details=2, model="streamflow")


@pytest.fixture(scope="module")
def site(basins: xr.Dataset, tmp_path_factory) -> Path:
    """The page of one site as it is by default, on a short record."""
    place = tmp_path_factory.mktemp("pages") / "site.html"
    return basins.stefa.report(place, site="01054200")


def test_a_page_about_a_site_says_all_there_is(site: Path) -> None:
    text = site.read_text(encoding="utf-8")
    for said in (
        "Streamflow: Wild River At Gilead, Maine (01054200)",
        "site held out of training",
        "Nash-Sutcliffe efficiency",
        "90 % interval",
        "nearest training sites",
        "What made it",
        "Shapley",
        "logarithmic axis",
        "Flow duration",
        "Means of the months",
        "xstefa-table",
        "Where it fails",
        "No answer on 182 of 730 days",
        "model hash",
        "CC-BY-4.0",
    ):
        assert said in text, said


def test_scores_are_those_of_evaluate(site: Path, basins: xr.Dataset) -> None:
    text = site.read_text(encoding="utf-8")
    one = basins.sel(basin=["01054200"])
    expected = float(one.stefa.evaluate("streamflow", scores="nse").nse[0])
    (shown,) = re.findall(
        r'Nash-Sutcliffe efficiency</th><td class="number" data-value="(.*?)"', text
    )
    assert float(shown) == pytest.approx(expected, abs=1e-4)


def test_a_page_needs_nothing_else_and_names_nothing_twice(site: Path, region: Path) -> None:
    for path in (site, region):
        text = path.read_text(encoding="utf-8")
        read = Reader(text)
        assert len(read.names) == len(set(read.names))
        for tag, given in read.tags:
            for key in ("src", "href", "xlink:href"):
                assert (given.get(key) or "#").startswith(("#", "data:")), (tag, given)
            if tag == "svg":
                assert given["role"] == "img"
                assert len(str(given["aria-label"])) > 20
        targets = re.findall(r'<a href="#([^"]*)"', text)
        assert set(targets) <= set(read.names)
        assert "url(http" not in text
        assert "@import" not in text
        levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert max(np.diff(levels)) <= 1


def test_a_page_about_a_region_has_all_sites_and_says_what_it_left_out(
    region: Path, basins: xr.Dataset
) -> None:
    text = region.read_text(encoding="utf-8")
    for name in basins.basin.values:
        assert f">{name}<" in text
    assert "Pictures of 2 of them" in text
    assert "Streamflow at 4 sites" in text
    assert text.count("The highest day") == 2


def test_sites_with_numbers_for_names_have_pages_of_their_own(
    basins: xr.Dataset, predicted: xr.DataArray, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("xstefa.report.region.TOGETHER", 3)
    numbers = {"basin": [7, 8, 9, 10]}
    few = basins.drop_vars("gauge_name").assign_coords(numbers)
    path = few.stefa.report(tmp_path / "a.html", predicted.assign_coords(numbers), details=4)
    text = path.read_text(encoding="utf-8")
    for number in numbers["basin"]:
        assert f">Basin {number}</h2>" in text
    # each with its own observations
    for i, peak in enumerate(basins.streamflow.max("time").values):
        body = text[text.index(f'<div id="site-{i}">') :]
        assert f"when {peak:.3g} mm" in body[: body.index("</svg>", body.index("when "))]


ODD = ['<script>alert("x")</script>', "a & b 'c' $x$ \\x", "  <b>x</b> </title> $css ${title} %s"]


def test_names_are_text_wherever_they_stand(
    open_page, basins: xr.Dataset, predicted: xr.DataArray, tmp_path: Path
) -> None:
    odd = basins.isel(basin=[0, 1, 2]).assign_coords(basin=ODD)
    odd["gauge_name"] = "basin", ["<img src=x onerror=alert(1)>", "</script> R&D", "$ \\1 \\g<0>"]
    given = predicted[:3].assign_coords(basin=ODD)
    path = odd.stefa.report(tmp_path / "a.html", given, details=3)
    page = open_page(path).page
    alerts = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.reload()
    assert page.locator("table.sortable tbody th").all_inner_texts() == [
        each.strip() for each in ODD
    ]
    headings = page.locator("h2").all_inner_texts()
    for name, code in zip(odd.gauge_name.values, ODD, strict=True):
        assert f"{name} ({code.strip()})" in headings
    assert page.locator("script").count() == 1
    assert page.locator("img, main b").count() == 0
    assert alerts == []


def test_a_page_does_without_observations_and_places(basins, predicted, tmp_path: Path) -> None:
    bare = basins.assign(streamflow=basins.streamflow * np.nan).drop_vars(["lat", "lon"])
    path = bare.stefa.report(tmp_path / "a.html", predicted.drop_vars(["lat", "lon"]), details=1)
    text = path.read_text(encoding="utf-8")
    assert "not known where they are" in text
    assert "730 days, none of them observed" in text
    assert "days without flow" not in text


def test_sites_without_a_place_are_not_on_the_map(basins, predicted, tmp_path: Path) -> None:
    lat = basins.lat.where(basins.basin != basins.basin[1])
    some, given = basins.assign_coords(lat=lat), predicted.assign_coords(lat=lat)
    text = some.stefa.report(tmp_path / "a.html", given, details=4).read_text(encoding="utf-8")
    assert "1 of 4 sites have no place" in text
    assert text.count("</svg>") == 1 + 4 * 4 + 3


def test_progress_names_what_is_done(basins, predicted, tmp_path: Path, monkeypatch) -> None:
    text = io.StringIO()
    screen = partial(tqdm, file=text, mininterval=0, miniters=1, ncols=80)
    monkeypatch.setattr(
        "xstefa.report.report.progress", lambda desc, **about: screen(desc=desc, **about)
    )
    nowhere = predicted.where(predicted.basin != predicted.basin[1])
    basins.stefa.report(tmp_path / "a.html", nowhere, details=4)
    said = text.getvalue().split("\r")
    phases = dict.fromkeys(re.findall(r"report, (\w+)", text.getvalue()))
    assert [*phases] == ["scores", "trust", "pictures", "tokens"]
    assert "report, pictures" in next(line for line in said if "5/8" in line)
    assert "8/8" in said[-1]


def test_details_are_from_the_best_to_the_worst() -> None:
    nse = xr.DataArray([0.5, np.nan, 0.9, -3.0, 0.7], dims="s")
    scored = xr.Dataset({"nse": nse, "mean": xr.ones_like(nse)})
    assert chosen_for_details(scored, 3) == [2, 0, 3] or chosen_for_details(scored, 3) == [2, 4, 3]
    assert chosen_for_details(scored, 2) == [2, 3]
    assert chosen_for_details(scored, 9) == [2, 4, 0, 3]
    assert chosen_for_details(scored, 0) == []


def test_what_a_cell_holds_is_text() -> None:
    text = table(("a", "b"), [("<b>", -1.234), ("x & y", float("nan"))], caption="c")
    assert "&lt;b&gt;" in text
    assert "x &amp; y" in text
    assert "−1.23" in text
    assert ">–<" in text


def test_maps_are_asked_for_a_place(tmp_path: Path) -> None:
    import xstefa

    grid = xstefa.open_sample("conus_grid")
    with pytest.raises(OptionError, match="latitude and longitude"):
        grid.stefa.report(tmp_path / "a.html", "soil_moisture")


def test_the_command_writes_a_page(tmp_path: Path, basins: xr.Dataset) -> None:
    basins.isel(basin=[0]).to_netcdf(tmp_path / "in.nc")
    place = tmp_path / "page.html"
    given = ["report", str(tmp_path / "in.nc"), str(place), "--no-explain"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert str(place) in done.output
    assert "Wild River" in place.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_browsers_show_a_page(open_page, site: Path, scheme: str, width: int) -> None:
    shown = open_page(site, scheme=scheme, width=width)
    page = shown.page
    assert shown.said == []
    assert [url for url in shown.asked if not url.startswith(("file:", "data:"))] == []
    wide, there = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= there
    back, ink, text = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.body).color,
                  getComputedStyle(document.querySelector('figure svg text')).fill]"""
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (back, ink, text)]
    assert (brightness[0] > 600) == (scheme == "light")
    for dark_or_light in brightness[1:]:
        assert abs(brightness[0] - dark_or_light) > 350
    assert page.locator("figure svg").count() >= 5


def test_a_click_sorts_sites_by_numbers(open_page, region: Path) -> None:
    page = open_page(region).page
    head = page.locator("table.sortable thead th").nth(1)

    def column() -> list[float]:
        cells = page.locator("table.sortable tbody tr td:nth-of-type(1)")
        return [float(cell.get_attribute("data-value")) for cell in cells.all()]

    before = column()
    head.locator("button").click()
    assert column() == sorted(before)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert column() == sorted(before, reverse=True)
