"""Let the released models state what their training data held of each token, and their skill.

    python examples/state_ranges.py DATA

DATA as for `train_release.py`. Weights stay as they are, bit for bit; the description gains ranges,
the skill that the card states and the schema's names of today. All released models were trained on
an encoder that saw every source; ranges are those of its training sites.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from release_weights import WEIGHTS, stated_skill
from safetensors.torch import load_file
from train_release import HOLDOUT, SCHEMA, SOURCES, opened

from xstefa.model.checkpoint import FORMAT, ModelSpec, create_model
from xstefa.model.ranges import Range, join_ranges
from xstefa.schema import Schema
from xstefa.training.material import Material
from xstefa.training.streaming import seen
from xstefa.typed import plain


def training_ranges(data: Path) -> dict[str, Range]:
    """Return the ranges of each token over the training sites of all sources."""
    found: dict[str, Range] = {}
    for name, source in SOURCES.items():
        material = Material.read(
            opened(data, name),
            name=name,
            schema=SCHEMA,
            target=None,
            length=1,
            rename=None,
            sites=source.ids,
        )
        split = material.split(material.fold(HOLDOUT), None)
        found = join_ranges(found, seen(SCHEMA, [material.record.select(split.train)]))
        print(name, int(split.train.sum()), "training sites", flush=True)
    return found


def state(path: Path, ranges: dict[str, Range]) -> None:
    """Rewrite the description of one model file, of this format or the one before."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    description = json.loads(header["__metadata__"]["xstefa"])
    schema = Schema.from_dict(description["schema"]).current()
    moments = description["scaler"]
    description |= {
        "format": FORMAT,
        "schema": plain(schema),
        "scaler": {
            "forcings": {name: moments["forcings"][name] for name in schema.forcing_names},
            "statics": {name: moments["statics"][name] for name in schema.static_names},
        },
        "ranges": {token: plain(ranges[token]) for token in description["tokens"]},
    }
    if skill := stated_skill(description["card"]):
        description["provenance"]["skill"] = skill
    before = load_file(path)
    model = create_model(ModelSpec.from_json(json.dumps(description)), before, half=True)
    for name, value in load_file(model.path).items():
        assert torch.equal(value.view(torch.int16), before.pop(name).view(torch.int16))
    assert not before
    print(model.save(path), model.summary(), flush=True)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--folder", type=click.Path(path_type=Path), default=WEIGHTS, show_default=True)
def main(data, folder):
    """Rewrite the descriptions of the models in FOLDER."""
    ranges = training_ranges(data)
    for path in sorted(folder.glob("*.safetensors")):
        state(path, ranges)


if __name__ == "__main__":
    main()
