"""What is left of skill where the weather is forecast, and what an observation adds, by lead time.

    python examples/forecasts.py DATA OUT

DATA holds camels_us.nc. At the basins of validation, forecasts of 14 days begin every ten days.
Their weather is the analysis ("known weather"): scores of hindcasts are of that. Or it is right up
to a day drawn evenly from the first seven, and then that of another year ("forecast weather"):
forecasts of precipitation and temperature are skilful up to days 5 to 7 (Pappenberger et al. 2009,
doi:10.1175/2008WAF2222120.1). Each once more with the flow observed up to the day before. OUT gets
leads.csv and leads.png: medians of NSE over basins, beside persistence and climatology.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr
from train_release import SCHEMA, aligned, held_out_sites

from xstefa.binding import bind
from xstefa.evaluation.leads import compare_by_lead
from xstefa.plotting.scores import plot_leads

LEADS = 14
EVERY = 10
PERIOD = slice("1990-10-01", "1995-09-30")
SPUN_UP = slice("1987-10-01", "1995-09-30")
RIGHT = 7
"""Days by the end of which the weather of a forecast is that of another year."""


def forecasts(weather: xr.Dataset, *, right: bool, seed: int = 0) -> xr.Dataset:
    """Make forecasts of a record: (init_time, lead_time, ...)."""
    random = np.random.default_rng(seed)
    series = weather[[name for name, v in weather.data_vars.items() if "time" in v.dims]]
    steps = series.indexes["time"]
    lead = pd.to_timedelta(range(LEADS), unit="D")
    found = []
    for start in pd.date_range(PERIOD.start, PERIOD.stop, freq=f"{EVERY}D")[:-2]:
        first = steps.get_loc(start)
        days = first + np.arange(LEADS)
        if not right:
            year = 365 * random.choice([-2, -1, 1])
            days = np.where(np.arange(LEADS) < random.uniform(0, RIGHT), days, days + year)
        one = series.isel(time=days.clip(0, len(steps) - 1)).drop_vars("time")
        found.append(one.rename(time="lead_time").assign_coords(init_time=start, lead_time=lead))
    return xr.concat(found, dim="init_time")


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--threads", type=int)
def main(data, out, threads):
    """Predict and score."""
    if threads:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    weather = held_out_sites(aligned(data, "camels"), "camels").sel(time=SPUN_UP).load()
    observed = bind(weather, SCHEMA).observed("streamflow")
    found = {}
    for name, right in (("known weather", True), ("forecast weather", False)):
        ahead = forecasts(weather, right=right)
        for label, known in ((name, None), (f"{name}, and flow", observed)):
            found[label] = ahead.stefa.predict("streamflow", history=weather, observed=known)
    compared = compare_by_lead(found, observed, scores="nse")
    table = compared["nse"].median("basin").to_pandas().T.round(3)
    table.index = [f"day {lead.days + 1}" for lead in table.index]
    table.to_csv(out / "leads.csv")
    plot_leads(compared).savefig(out / "leads.png", dpi=110)
    print(table.iloc[[0, 2, 6, 13]].to_string())


if __name__ == "__main__":
    main()
