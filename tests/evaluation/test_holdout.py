"""Holdouts: disjoint, complete, the same for any order of sites, and data."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xstefa
from tests.training.conftest import make_basins
from xstefa.binding import bind
from xstefa.errors import LayoutError, MissingTokenError, OptionError, TrainingError
from xstefa.splits.holdout import (
    HUC02_REGIONS,
    PUB,
    PUR,
    TEST_SALT,
    AllTests,
    BlocksOfSpace,
    FewSites,
    Fold,
    HashedSites,
    Holdout,
    NamedSites,
    Period,
    RandomGroups,
    RandomSites,
    Regions,
    TimeBlocks,
    held_out,
)
from xstefa.splits.sites import Sites, only_sites
from xstefa.splits.spelling import holdout_from

names = st.lists(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8),
    min_size=6,
    max_size=30,
    unique=True,
)
spatial = st.one_of(
    st.builds(RandomGroups, st.integers(2, 6), st.integers(0, 3)),
    st.builds(RandomSites, st.floats(0.1, 0.9), st.integers(0, 3)),
)
temporal = st.one_of(
    st.builds(TimeBlocks, st.integers(2, 6), st.integers(0, 5)),
    st.just(Period("2001-02-01", "2001-02-20", 3)),
)
holdouts = st.one_of(
    spatial,
    temporal,
    st.builds(lambda a, b: a & b, spatial, temporal),
    st.builds(lambda a, b: a & b, spatial, spatial),
    st.builds(FewSites, spatial, st.just(1)),
    st.builds(lambda a, b: AllTests((a.fold(0), b.fold(0))), spatial, spatial),
)


def sites_of(ids: list[str], days: int = 90) -> Sites:
    first = int(np.datetime64("2001-01-01").astype(int))
    return Sites(ids=np.array(ids), days=first + np.arange(days), shape=(len(ids),))


def folds_of(holdout: Holdout, sites: Sites) -> tuple[Fold, ...]:
    try:
        return holdout.folds(sites)
    except TrainingError:
        return ()  # two holdouts of few sites may have nothing in common


@given(names, holdouts)
def test_no_cell_trains_and_tests(ids, holdout):
    for fold in folds_of(holdout, sites_of(ids)):
        train = fold.train_sites[:, None] & fold.train_days
        test = fold.test_sites[:, None] & fold.test_days
        assert train.any()
        assert test.any()
        assert not (train & test).any()


@given(names, st.one_of(st.builds(RandomGroups, st.integers(2, 6)),
                        st.builds(TimeBlocks, st.integers(2, 6)),
                        st.builds(lambda a, b: RandomGroups(a) & TimeBlocks(b),
                                  st.integers(2, 3), st.integers(2, 3))))  # fmt: skip
def test_every_cell_is_tested_once(ids, holdout):
    tested = sum(
        (f.test_sites[:, None] & f.test_days).astype(int) for f in holdout.folds(sites_of(ids))
    )
    assert (tested == 1).all()


@given(names, holdouts, st.randoms(use_true_random=False))
def test_order_of_sites_does_not_matter(ids, holdout, random):
    shuffled = ids.copy()
    random.shuffle(shuffled)
    places = [shuffled.index(i) for i in ids]
    one, two = folds_of(holdout, sites_of(ids)), folds_of(holdout, sites_of(shuffled))
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.train_sites, b.train_sites[places])
        np.testing.assert_array_equal(a.test_sites, b.test_sites[places])


@given(holdouts)
def test_holdouts_are_data(holdout):
    assert Holdout.from_dict(json.loads(json.dumps(holdout.to_dict()))) == holdout
    assert eval(repr(holdout), vars(__import__("xstefa.splits.holdout", fromlist=["x"]))) == (
        holdout
    )
    assert hash(holdout) == hash(Holdout.from_dict(holdout.to_dict()))


def test_groups_are_balanced_and_depend_on_the_seed():
    sites = sites_of([f"{i:08d}" for i in range(103)])
    sizes = [int(fold.test_sites.sum()) for fold in RandomGroups(10).folds(sites)]
    assert sorted(set(sizes)) == [10, 11]
    assert len(RandomGroups(10).folds(sites)) == len(PUB.folds(sites)) == 10
    first = [RandomGroups(10, seed).folds(sites)[0].test_sites for seed in (0, 0, 1)]
    assert (first[0] == first[1]).all()
    assert (first[0] != first[2]).any()


def test_gap_lies_between_train_and_test():
    fold = Period("2001-02-01", "2001-02-10", gap=5).folds(sites_of(list("abc")))[0]
    days = np.flatnonzero(fold.test_days)
    assert len(days) == 10
    assert not fold.train_days[days[0] - 5 : days[-1] + 6].any()
    assert fold.train_days.sum() == 90 - 20


def test_fewer_sites_are_a_subset_of_more():
    sites = sites_of([f"{i}" for i in range(40)])
    folds = [FewSites(RandomGroups(4), n).folds(sites) for n in (5, 10, 30)]
    for few, some, many in zip(*folds, strict=True):
        assert [f.train_sites.sum() for f in (few, some, many)] == [5, 10, 30]
        assert (few.train_sites <= some.train_sites).all()
        assert (some.train_sites <= many.train_sites).all()
        assert (few.test_sites == many.test_sites).all()


def test_all_tests_leave_nothing_that_is_tested():
    sites = sites_of([f"{i}" for i in range(40)])
    parts = (RandomGroups(10).fold(2), RandomSites(0.2, seed=1))
    (fold,) = AllTests(parts).folds(sites)
    tested = [f.test_sites for part in parts for f in part.folds(sites)]
    assert (fold.test_sites == np.any(tested, axis=0)).all()
    assert (fold.train_sites == ~fold.test_sites).all()


def test_sites_held_out_by_name_and_by_several_rules():
    sites = sites_of([f"{i}" for i in range(40)])
    rule = AllTests((NamedSites(("3", "elsewhere")), HashedSites(), HashedSites(salt=TEST_SALT)))
    (fold,) = rule.folds(sites)
    expected = held_out(sites.ids) | held_out(sites.ids, salt=TEST_SALT) | (sites.ids == "3")
    assert (fold.test_sites == expected).all()
    assert 3 < expected.sum() < 40
    assert (
        Holdout.from_dict(json.loads(json.dumps(rule.to_dict()))).named(sites.ids) == expected
    ).all()
    assert not AllTests((NamedSites(("x",)),)).folds(sites)[0].test_sites.any()
    assert not RandomSites().named(sites.ids).any()  # depends on what other sites there are


def test_names_of_sites_as_they_are_typed():
    for names in (("7", "12"), ["7", "12"], (7, 12), np.array(["7", "12"])):
        assert NamedSites(names) == NamedSites(("7", "12"))
    for wrong in ("01013500", (), 7.5, (("7", "12"),)):
        with pytest.raises(OptionError, match="names"):
            NamedSites(wrong)
    rule = FewSites(AllTests((NamedSites(("1",)), RandomGroups(3))) & NamedSites(("2",)), 4)
    assert rule.named_alone() == {"1", "2"}
    assert not PUB.named_alone()


def test_regions_of_the_paper():
    assert sorted(int(h) for group in HUC02_REGIONS for h in group) == list(range(1, 19))
    basins = make_basins(sites=18)
    for codes in ([f"{i:02d}" for i in range(1, 19)], np.arange(1, 19), np.arange(1.0, 19)):
        dataset = basins.assign(huc_02=("site", codes))
        sites = Sites.of(dataset, bind(dataset, xstefa.load_schema()).layout)
        folds = PUR.folds(sites)
        assert [int(f.test_sites.sum()) for f in folds] == [2, 2, 3, 2, 4, 4, 1]
    few = sites.select(np.arange(18) < 4)
    assert [f.name for f in PUR.folds(few)] == ["huc_02 1+2", "huc_02 3+6", "huc_02 4+5+7"]


def test_errors_teach(basins):
    sites = Sites.of(basins, bind(basins, xstefa.load_schema()).layout)
    with pytest.raises(MissingTokenError, match="huc_02"):
        PUR.folds(sites)
    with pytest.raises(TrainingError, match=r"in no region.*2 sites with values '3'"):
        Regions("region", (("0", "1", "2"),)).folds(sites)
    with pytest.raises(TrainingError, match="100 groups of 8 sites"):
        RandomGroups(100).folds(sites)
    with pytest.raises(TrainingError, match="no days to test"):
        Period("1990-01-01", "1990-12-31").folds(sites)
    with pytest.raises(TrainingError, match="no days to train"):
        Period("1990-01-01", "2020-12-31").folds(sites)
    with pytest.raises(TrainingError, match="fraction"):
        RandomSites(1.5).folds(sites)
    with pytest.raises(TrainingError, match="one of 0, 1, 2"):
        RandomGroups(3).fold(3).folds(sites)
    with pytest.raises(TrainingError, match="between 1 and 6"):
        FewSites(RandomGroups(4), 7).folds(sites)
    with pytest.raises(TrainingError, match="kind of holdout"):
        Holdout.from_dict({"kind": "Astrology"})


def test_release_rule():
    ids = [f"{i:08d}" for i in range(2000)]
    out = held_out(ids)
    assert out.mean() == pytest.approx(0.1, abs=0.02)
    assert (out[:50] == held_out(ids[:50])).all()
    assert (HashedSites().folds(sites_of(ids))[0].test_sites == out).all()
    assert held_out(["01054200", "02231000"]).tolist() == [True, False]


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_dates_of_other_calendars(calendar):
    basins = make_basins()
    time = xr.date_range("2001-01-01", periods=200, calendar=calendar, use_cftime=True)
    basins = basins.assign_coords(time=time)
    sites = Sites.of(basins, bind(basins, xstefa.load_schema()).layout)
    fold = Period("2001-03-01", "2001-03-30").folds(sites)[0]
    tested = basins.time.values[fold.test_days]
    assert (tested[0].month, tested[0].day, len(tested)) == (3, 1, 30)


@pytest.mark.parametrize("date", ["1995", "1995-02-30", "May 1995"])
def test_dates_that_are_none(date):
    basins = make_basins()
    sites = Sites.of(basins, bind(basins, xstefa.load_schema()).layout)
    with pytest.raises(TrainingError, match=r"no day.*1995-09-30"):
        Period(date, "2001-03-30").folds(sites)


def test_sites_without_a_region():
    basins = make_basins()
    basins["region"] = basins.region.where(basins.region != 2)
    sites = Sites.of(basins, bind(basins, xstefa.load_schema()).layout)
    with pytest.raises(TrainingError, match="2 sites with values 'nan'"):
        Regions("region").folds(sites)


def test_a_region_keeps_its_number():
    """Where others have no sites: fold 2 of one dataset is fold 2 of another."""
    basins = make_basins()
    layout = bind(basins, xstefa.load_schema()).layout
    rule = Regions("region", (("0",), ("7",), ("1", "2"), ("3",)))
    for holdout in (rule, rule & Period("2001-03-01", "2001-03-30"), FewSites(rule, 2)):
        fold = holdout.fold(2).folds(Sites.of(basins, layout))[0]
        assert basins.site.values[fold.test_sites].tolist() == [f"gauge {i}" for i in (2, 3, 4, 5)]
        with pytest.raises(TrainingError, match="one of 0, 2, 3"):
            holdout.fold(1).folds(Sites.of(basins, layout))


def test_regions_in_any_notation():
    assert Regions("huc_02", [[1, "02"], [3.0]]) == Regions("huc_02", (("1", "2"), ("3",)))
    assert Holdout.from_dict(json.loads(json.dumps(PUR.to_dict()))) == PUR


def test_names_of_sites():
    basins = make_basins()
    layout = bind(basins, xstefa.load_schema()).layout
    assert list(Sites.of(basins, layout).ids[:2]) == ["gauge 0", "gauge 1"]
    numbered = basins.assign(code=("site", np.arange(8)))
    assert list(Sites.of(numbered, layout, name="code").ids[:2]) == ["0", "1"]
    with pytest.raises(MissingTokenError):
        Sites.of(basins, layout, name="code")
    with pytest.raises(LayoutError, match=r"'pr'.*a variable on \(site\)"):
        Sites.of(basins, layout).values("pr")
    one = basins.isel(site=0)
    layout = bind(one, xstefa.load_schema()).layout
    assert len(Sites.of(one, layout)) == 1
    keep = np.array([True])
    assert only_sites(one, Sites.of(one, layout), keep) is one


def test_tests_that_leave_no_site_to_learn_from_are_refused():
    sites = sites_of(["a", "b", "c"])
    parts = NamedSites(("a", "b")), NamedSites(("c", "other"))
    with pytest.raises(TrainingError, match="no sites to train on"):
        AllTests(parts).folds(sites)
    # None to test may be: another dataset has them.
    assert not AllTests((NamedSites(("other",)),)).folds(sites)[0].test_sites.any()


def test_holdouts_are_spelled_as_in_python():
    blocks = BlocksOfSpace(degrees=10.0)
    for text, expected in {
        "PUB": PUB,
        "RandomGroups(5)": RandomGroups(5),
        " BlocksOfSpace( degrees = 10 ) ": blocks,
        "BlocksOfSpace(10.0).fold(2)": blocks.fold(2),
        "PUR & Period('1990-10-01', '1995-09-30')": PUR & Period("1990-10-01", "1995-09-30"),
        "NamedSites(('a', 'b'))": NamedSites(("a", "b")),
    }.items():
        assert holdout_from(text) == expected
        assert holdout_from(repr(expected)) == expected
    for wrong in (
        "",
        "5",
        "Random(5)",
        "RandomGroups(many=5)",
        "RandomGroups(",
        "open('x')",
        "a.b(1)",
        "(1).fold(0)",
        "3 & 5",
        "RandomGroups(5) & 3",
        "RandomGroups([1])",
        "OneFold(3, 1)",
        "AllTests(RandomGroups(2))",
        "-" * 5000 + "1",
        "PUB" + "&PUB" * 5000,
    ):
        with pytest.raises(OptionError, match="no holdout is spelled so") as caught:
            holdout_from(wrong)
        assert "object at 0x" not in str(caught.value)


def test_a_number_of_folds_that_cannot_be_says_what_can():
    alone = Sites(ids=np.array(["a"]), days=np.array([], dtype=np.int64), shape=(1,))
    with pytest.raises(TrainingError, match="2 sites or more") as caught:
        RandomGroups(2).numbered(alone)
    assert caught.value.fix == "a dataset of more sites"
    with pytest.raises(TrainingError, match="2 days or more") as caught:
        TimeBlocks(2).numbered(alone)
    assert "RandomGroups" in caught.value.fix
