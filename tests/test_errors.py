import pickle

import pytest

from xstefa.errors import (
    BindingErrors,
    MissingTokenError,
    UnitsError,
    XstefaError,
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
