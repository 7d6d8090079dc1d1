"""From any dataset to model tokens.

`plan` looks at metadata only and says what it understood; `bind` is `plan` plus the decision
that it is good enough. Neither reads data: a `Binding` converts and derives a token when it is
asked for it, lazily where the input is a dask array.
"""

from xstefa.binding.bound import Binding, bind
from xstefa.binding.layout import Layout
from xstefa.binding.planning import Plan, plan
from xstefa.binding.table import TokenRow, TokenTable

__all__ = ["Binding", "Layout", "Plan", "TokenRow", "TokenTable", "bind", "plan"]
