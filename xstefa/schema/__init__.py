"""What a model reads and predicts: tokens, targets and how datasets name them.

A schema is data (one TOML file), not code. Adding a data source means adding aliases there.
"""

from xstefa.schema.extras import Targets, Tokens, load_targets, load_tokens
from xstefa.schema.schema import Schema, load_schema
from xstefa.schema.variables import (
    UNKNOWN_UNITS,
    Alias,
    Kind,
    Needs,
    StandardName,
    Target,
    Transform,
    Variable,
)

__all__ = [
    "UNKNOWN_UNITS", "Alias", "Kind", "Needs", "Schema", "StandardName", "Target", "Targets",
    "Tokens", "Transform", "Variable", "load_schema", "load_targets", "load_tokens",
]  # fmt: skip
