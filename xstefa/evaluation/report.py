"""Models side by side: scores on identical sites and days, intervals, paired tests, files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xstefa.errors import LayoutError, OptionError
from xstefa.evaluation.evaluate import SCORES, score
from xstefa.evaluation.intervals import median_interval, paired_difference
from xstefa.evaluation.metrics import check_labels

LOWER_IS_BETTER = ("rmse", "ubrmse", "mae", "fdc_rmse", "peak_timing", "missed_peaks")
HIGHER_IS_BETTER = ("nse", "kge", "correlation", "annual_nse")


def compare(
    predictions: Mapping[str, xr.DataArray],
    observed: xr.DataArray,
    *,
    scores: str | Sequence[str] | None = None,
    dim: str = "time",
) -> xr.Dataset:
    """Score several predictions on the sites and days that all of them, and the observation, have.

    Parameters
    ----------
    predictions : mapping of str to DataArray
        By the name of the model, on the labels of `observed`.
    observed : DataArray
    scores : str or sequence of str, optional
        Names of `SCORES`; by default all of `METRICS`.
    dim : str

    Returns
    -------
    Dataset
        As `score` gives it, along a new first dimension ``model``.

    Raises
    ------
    LayoutError
        If the labels differ, or nothing is common.
    """
    if not predictions:
        raise OptionError(variable="predictions", found="none", expected="at least one")
    arrays = list(predictions.values())
    check_labels(*arrays, observed)
    everywhere = observed.notnull()
    for array in arrays:
        everywhere &= array.notnull()
    if not bool(everywhere.any()):
        raise LayoutError(
            "no day of any site has all predictions and an observation",
            found=", ".join(predictions),
            expected="predictions of the same sites and days",
        )
    found = [
        score(array.where(everywhere), observed.where(everywhere), scores=scores, dim=dim)
        for array in arrays
    ]
    return xr.concat(found, pd.Index(list(predictions), name="model"), combine_attrs="override")


def table(compared: xr.Dataset, *, reference: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Return medians over sites with bootstrap intervals, and differences from one model.

    Parameters
    ----------
    compared : Dataset
        What `compare` returns.
    reference : str, optional
        Model that the others are compared with, pair by pair; by default the first.
    seed : int
        Of the resampling.

    Returns
    -------
    DataFrame
        A row for each score and model: ``median``, ``low``, ``high`` (95 %), ``sites``; and, but
        for the reference, ``difference`` (median over sites, better is positive),
        ``difference_low``, ``difference_high``, ``better`` (share of sites) and ``p_value``
        (Wilcoxon's signed ranks).

    Raises
    ------
    OptionError
        If there is no model of that name.
    """
    models = [str(name) for name in compared["model"].values]
    reference = models[0] if reference is None else reference
    if reference not in models:
        raise OptionError(variable="reference", found=repr(reference), expected=", ".join(models))
    rows = []
    for name in (str(key) for key in compared.data_vars if key in SCORES):
        good = _goodness(name, compared[name])
        for model in models:
            interval = median_interval(compared[name].sel(model=model).values, seed=seed)
            row: dict[str, Any] = {"score": name, "model": model, **asdict(interval)}
            if model != reference:
                difference = paired_difference(
                    good.sel(model=model).values, good.sel(model=reference).values, seed=seed
                )
                row |= {
                    "difference": difference.median.median,
                    "difference_low": difference.median.low,
                    "difference_high": difference.median.high,
                    "better": difference.better,
                    "p_value": difference.p_value,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def _goodness(name: str, values: xr.DataArray) -> xr.DataArray:
    """Turn a score so that more is better."""
    if name in LOWER_IS_BETTER:
        return -values
    return values if name in HIGHER_IS_BETTER else -abs(values)


def write_report(
    folder: Path, compared: xr.Dataset, *, about: Mapping[str, Any], reference: str | None = None
) -> pd.DataFrame:
    """Write a comparison as files that can be read again, by people and programs.

    ``sites.csv`` has the scores of each site and model, ``medians.csv`` what `table` returns,
    ``report.json`` the same with `about`.

    Parameters
    ----------
    folder : Path
        Is made if need be.
    compared : Dataset
        What `compare` returns.
    about : mapping
        JSON-able: protocol, seeds, hashes, versions.
    reference : str, optional
        As for `table`.

    Returns
    -------
    DataFrame
        What `table` returns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    medians = table(compared, reference=reference)
    plain = compared.drop_vars([name for name in compared.coords if compared[name].ndim > 1])
    plain.to_dataframe().to_csv(folder / "sites.csv", float_format="%.6g")
    medians.to_csv(folder / "medians.csv", index=False, float_format="%.6g")
    rows = medians.replace({np.nan: None}).to_dict(orient="records")
    (folder / "report.json").write_text(json.dumps({**about, "medians": rows}, indent=1))
    return medians
