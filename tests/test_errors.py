import importlib
import pickle
import pkgutil
import re
from pathlib import Path

import pytest

import xstefa
from xstefa.errors import (
    BindingErrors,
    MissingTokenError,
    UnitsError,
    XstefaError,
    XstefaWarning,
    raise_problems,
)

UNITS = UnitsError("no units", variable="tp", found="none", expected="mm d-1", fix="set them")


def test_the_message_has_every_part():
    assert str(UNITS) == "'tp': no units. Found none. Expected mm d-1. Fix: set them"


def test_errors_are_the_builtins_that_callers_expect():
    assert isinstance(UNITS, ValueError)
    assert isinstance(MissingTokenError("gone"), LookupError)
    assert isinstance(UNITS, XstefaError)


@pytest.mark.parametrize("error", [UNITS, BindingErrors([UNITS, MissingTokenError("gone")])])
def test_errors_travel_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_one_problem_is_raised_as_itself_and_several_together():
    raise_problems([])
    with pytest.raises(UnitsError):
        raise_problems([UNITS])
    with pytest.raises(BindingErrors, match=r"2 problems[\s\S]*UnitsError[\s\S]*gone") as caught:
        raise_problems([UNITS, MissingTokenError("gone")])
    assert len(caught.value.problems) == 2


def test_all_warnings_have_one_base():
    for module in pkgutil.walk_packages(xstefa.__path__, "xstefa."):
        importlib.import_module(module.name)
    found = {kind.__name__ for kind in XstefaWarning.__subclasses__()}
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
    assert found == set(re.findall(r"`(\w+Warning)` \|", page))
