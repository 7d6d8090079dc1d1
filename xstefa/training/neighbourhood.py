"""What a model keeps of its training sites, so that another can be compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from xstefa.binding import plan
from xstefa.errors import TrainingError
from xstefa.inference.trust import signatures
from xstefa.model.checkpoint import Model
from xstefa.model.neighbourhood import Neighbourhood, signature
from xstefa.model.network import StefaLand
from xstefa.splits.leakage import SEEN, roles
from xstefa.splits.sites import Mask, Sites
from xstefa.training.data import Datasets
from xstefa.training.records import Record


def around(network: StefaLand, records: Sequence[Record], trained: Sequence[Mask]) -> Neighbourhood:
    """Return the neighbourhood of the training sites, in records as the network reads them."""
    ids = np.concatenate([r.ids[sites] for r, sites in zip(records, trained, strict=True)])
    static = np.concatenate([r.static[sites] for r, sites in zip(records, trained, strict=True)])
    training = network.training
    device = next(network.parameters()).device
    with torch.inference_mode():
        found = signature(network.eval(), torch.from_numpy(static).to(device))
    network.train(training)
    return Neighbourhood.of(ids, found.cpu().numpy())


def acquainted(
    datasets: Datasets,
    model: Model,
    *,
    rename: Mapping[str, str] | None = None,
    sites: str | Mapping[str, str] | None = None,
) -> Model:
    """Return a model that knows its training sites: for one of before models kept them.

    What skill to expect it learns by `calibrate`, after this.

    Parameters
    ----------
    datasets : Dataset or mapping of str to Dataset
        What it was trained on. Sites that it did not learn from, by its provenance, are left out.
    model : Model
    rename : mapping of str to str, optional
        Applies to the datasets that have the variables.
    sites : str or mapping of str to str, optional
        Variable that names the sites, or one for each dataset.

    Raises
    ------
    TrainingError
        If the model learned from none of the sites.
    """
    named = {"data": datasets} if isinstance(datasets, xr.Dataset) else datasets
    spec, ids, found = model.spec, [], []
    for key, dataset in named.items():
        given = {k: v for k, v in (rename or {}).items() if k in dataset.variables}
        binding = plan(dataset, model.schema, rename=given, needs=spec.needs)
        places = Sites.of(
            dataset, binding.layout, name=sites.get(key) if isinstance(sites, Mapping) else sites
        )
        seen = roles(spec.provenance, places.ids, named=places.named) == SEEN
        ids.append(places.ids[seen])
        found.append(signatures(model, binding.read().statics()[seen]))
    if not sum(map(len, ids)):
        raise TrainingError(
            "none of these sites is one that the model learned from",
            variable=model.name,
            found=f"sites of {', '.join(named)}",
            expected="the training data, with the names that sites had",
            fix="sites=<variable with the names>; those of training are in "
            "model.spec.provenance['datasets']",
        )
    neighbourhood = Neighbourhood.of(np.concatenate(ids), np.concatenate(found))
    return model.described(replace(spec, neighbourhood=neighbourhood))
