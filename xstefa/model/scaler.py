"""Standardisation: the numbers a network sees, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xstefa.schema import Schema, Transform
from xstefa.typed import Finite, Positive

Array = NDArray[np.float32]

# Strictly positive quantities over several orders of magnitude; the floor keeps log(0) away.
FORWARD: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "identity": lambda x: x,
    "log": lambda x: np.log(np.maximum(x, 1e-6)),
    "log1p": lambda x: np.log1p(np.maximum(x, 0)),
}
INVERSE: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "identity": lambda z: z,
    "log": np.exp,
    "log1p": np.expm1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Mean and standard deviation of one token after its transform."""

    mean: Finite
    std: Positive
    transform: Transform = "identity"

    @classmethod
    def fit(cls, values: Array, *, transform: Transform = "identity") -> Moments:
        """Fit to the known values; a token never seen, or constant, keeps mean 0 or std 1."""
        known = FORWARD[transform](values[np.isfinite(values)].astype(np.float64))
        if not known.size:
            return cls(mean=0.0, std=1.0, transform=transform)
        return cls(mean=float(known.mean()), std=float(known.std()) or 1.0, transform=transform)

    def standardise(self, values: Array) -> Array:
        """Return ``(transform(x) - mean) / std`` in single precision."""
        scaled = (FORWARD[self.transform](values) - np.float32(self.mean)) / np.float32(self.std)
        return np.asarray(scaled, dtype=np.float32)

    def restore(self, values: Array) -> Array:
        """Return physical values from standardised ones."""
        restored = INVERSE[self.transform](values * np.float32(self.std) + np.float32(self.mean))
        return np.asarray(restored, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """The moments of every token of a schema, in the order the network reads them.

    Of a vector each number has its own, under the names of `Variable.columns`.
    """

    forcings: Mapping[str, Moments]
    statics: Mapping[str, Moments]

    @classmethod
    def fit(cls, schema: Schema, forcing: Array, static: Array) -> Scaler:
        """Fit to training sites only.

        Parameters
        ----------
        forcing : ndarray, shape (site, day, C)
        static : ndarray, shape (site, S)
            Canonical units; NaN where missing.
        """
        return cls(
            forcings={
                v.name: Moments.fit(forcing[..., i], transform=v.transform)
                for i, v in enumerate(schema.forcings)
            },
            statics={
                name: Moments.fit(static[..., i], transform=v.transform)
                for i, (name, v) in enumerate(schema.site_columns.items())
            },
        )

    def standardise(self, forcing: Array, static: Array) -> tuple[Array, Array]:
        """Return forcings (..., C) and site attributes (..., S) as a network reads them."""
        found = np.empty_like(forcing), np.empty_like(static)
        kinds = (forcing, self.forcings), (static, self.statics)
        for scaled, (values, moments) in zip(found, kinds, strict=True):
            for i, each in enumerate(moments.values()):
                scaled[..., i] = each.standardise(values[..., i])
        return found
