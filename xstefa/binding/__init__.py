"""From any dataset to model tokens.

`plan` matches a dataset to a schema by its metadata; `bind` refuses one that cannot work. Neither
reads data: a `Binding` converts and derives a token when it is asked for it, lazily where the input
is a dask array.
"""

from xstefa.binding.binding import Binding
from xstefa.binding.layout import Layout
from xstefa.binding.matching import bind, plan
from xstefa.binding.table import TokenRow, TokenTable

__all__ = ["Binding", "Layout", "TokenRow", "TokenTable", "bind", "plan"]
