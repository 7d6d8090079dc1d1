"""A model file says the same after a round trip."""

from __future__ import annotations

from xstefa.inference.windows import WindowPolicy
from xstefa.model.architecture import Architecture
from xstefa.model.checkpoint import ModelSpec
from xstefa.model.scaler import Moments, Scaler
from xstefa.schema import load_schema


def test_moments_keep_the_order_of_the_schema() -> None:
    schema = load_schema()
    spec = ModelSpec(
        name="order",
        target=None,
        support="any",
        architecture=Architecture(forcings=len(schema.forcings), statics=len(schema.statics)),
        schema=schema,
        scaler=Scaler(
            forcings={
                v.name: Moments(mean=float(i), std=1.0) for i, v in enumerate(schema.forcings)
            },
            statics={v.name: Moments(mean=float(i), std=1.0) for i, v in enumerate(schema.statics)},
        ),
        windows=WindowPolicy(),
        tokens=(),
    )
    read = ModelSpec.from_json(spec.to_json())
    assert read == spec
    assert list(read.scaler.forcings) == list(schema.forcing_names)
    assert list(read.scaler.statics) == list(schema.static_names)
    assert [m.mean for m in read.scaler.forcings.values()] == list(range(len(schema.forcings)))
