"""Values and annotations: what fits, and dataclasses made of parsed text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr

from xstefa.errors import OptionError
from xstefa.typed import Count, Positive, Share, build, fits, plain

FITS = [
    (1, float),
    (np.float32(1), float),
    (np.int64(1), int),
    (None, int | None),
    ("a", Literal["a", "b"]),
    ((1, 2), tuple[float, ...]),
    ((1, "a"), tuple[float, str]),
    ({"a": 1}, Mapping[str, float]),
    (["a"], Sequence[str]),
    (Path("a"), str | PathLike[str]),
    (len, Callable[[Any], int]),
    (xr.Dataset(), xr.Dataset | Mapping[str, xr.Dataset]),
    (iter("ab"), Iterable[str]),
    (0.5, Share),
    (3, Count | None),
    (object(), Any),
]
MISFITS = [
    (True, int),
    (True, float),
    (1.0, int),
    ("1", float),
    (None, int),
    (1, Literal[True]),
    ("c", Literal["a", "b"]),
    ([1, 2], tuple[float, ...]),
    ((1, 2, 3), tuple[float, float]),
    ({"a": "1"}, Mapping[str, float]),
    ("abc", Sequence[str]),
    ([1], Sequence[str]),
    (3, str | PathLike[str]),
    (3, Callable[[Any], int]),
    (float("nan"), Positive),
    (float("inf"), Positive),
    (0, Count),
]


@pytest.mark.parametrize(("value", "annotation"), FITS)
def test_what_fits(value, annotation):
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), MISFITS)
def test_what_does_not_fit(value, annotation):
    assert not fits(value, annotation)


@dataclass(frozen=True, kw_only=True)
class Gauge:
    name: str
    area: Positive
    kind: Literal["stage", "weir"] = "weir"

    def __post_init__(self) -> None:
        if self.name == "nowhere":
            raise ValueError("no gauge is called nowhere")


@dataclass(frozen=True, kw_only=True)
class Network:
    gauges: tuple[Gauge, ...] = field(metadata={"key": "gauge"})
    outlet: Gauge | None = None
    limits: tuple[float, float] = (0, 1)
    weights: Mapping[str, Share] = field(default_factory=dict)


NETWORK = Network(
    gauges=(Gauge(name="a", area=3.0), Gauge(name="b", area=1.0, kind="stage")),
    outlet=Gauge(name="c", area=2.0),
    weights={"a": 0.25},
)


def read(content: object) -> Network:
    return build(Network, content, error=OptionError, fix="write it anew")


def test_what_was_plain_is_built_again():
    content = json.loads(json.dumps(plain(NETWORK)))
    assert content["gauge"][1] == {"name": "b", "area": 1.0, "kind": "stage"}
    assert read(content) == NETWORK
    assert isinstance(read({"gauge": [{"name": "a", "area": 3}]}).gauges[0].area, float)


@pytest.mark.parametrize(
    ("change", "variable", "text"),
    [
        ({"gauge": 3}, "gauge", "an array of the fields of Gauge"),
        ({"gauge": [3]}, "gauge[0]", "the fields of Gauge"),
        ({"gauge": [{"name": "a"}]}, "gauge[0].area", "finite number above 0"),
        ({"gauge": [{"name": "a", "area": -1}]}, "gauge[0].area", "-1"),
        ({"gauge": [{"name": "nowhere", "area": 1}]}, "gauge[0]", "called nowhere"),
        ({"gauge": [{"name": "a", "area": 1, "kind": "x"}]}, "gauge[0].kind", "'stage' or"),
        ({"outlet": {"name": 1, "area": 1}}, "outlet.name", "text"),
        ({"limits": [1]}, "limits", "array of 2"),
        ({"weights": {"a": 2}}, "weights.a", "from 0 to 1"),
        ({"outlets": None}, "outlets", "did you mean 'outlet'"),
    ],
)
def test_what_does_not_fit_is_named(change, variable, text):
    with pytest.raises(OptionError) as caught:
        read(plain(NETWORK) | change)
    assert caught.value.variable == variable
    assert text in str(caught.value)
