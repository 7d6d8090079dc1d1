"""Whether models of water know the days on which rain set off landslides.

    python examples/landslide_days.py DATA

DATA has ``world/landslide_glc_global.nc`` (NASA's Global Landslide Catalog: dated events, from
reports) and ``camels_us.nc``. Slides that rain triggered are given the nearest basin, if its gauge
is at most 15 km away and the place is known to 10 km. What was predicted there on the day, or the
day before, is ranked among the days of the same place and season of all years.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr

BY_RAIN = ("continuous_rain", "downpour", "monsoon", "rain", "tropical_cyclone")
NEAR, SURE = 15.0, 10.0  # km
YEARS = slice("2005-10-01", "2014-12-31")
FIRST = "2007-01-01"
SEASON, APART, DRAWS = 45, 10, 2000


def events_near(events: xr.Dataset, basins: xr.Dataset) -> pd.DataFrame:
    """Return basin and day of slides near a gauge, each pair once."""
    names = events.trigger.attrs["flag_meanings"].split()
    chosen = np.isin(events.trigger, [names.index(name) for name in BY_RAIN])
    chosen &= events.location_uncertainty.values <= SURE
    days = events.time.values.astype("M8[D]")
    chosen &= (days >= np.datetime64(FIRST)) & (days <= np.datetime64(YEARS.stop))
    there = events.isel(event=chosen)
    lat, lon = (np.deg2rad(there[n].values)[:, None] for n in ("lat", "lon"))
    lats, lons = (np.deg2rad(basins[n].values) for n in ("lat", "lon"))
    cosine = np.sin(lat) * np.sin(lats) + np.cos(lat) * np.cos(lats) * np.cos(lon - lons)
    away = 6371 * np.arccos(np.clip(cosine, -1, 1))
    pairs = pd.DataFrame(
        {
            "basin": away.argmin(axis=1),
            "day": there.time.values.astype("M8[D]"),
            "trigger": np.array(names)[there.trigger.values],
            "away": away.min(axis=1),
        }
    )
    return pairs[pairs.away <= NEAR].drop_duplicates(["basin", "day"])


def measures(basins: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what may tell of a slide, by basin and day."""
    rain = basins.prcp.fillna(0).load()
    found = {
        "rain of the day": rain,
        "rain of 3 days": rain.rolling(time=3).sum(),
        "rain of 10 days": rain.rolling(time=10).sum(),
        "rain of 30 days": rain.rolling(time=30).sum(),
        "streamflow, observed": basins.streamflow.load(),
        "streamflow, predicted": basins.stefa.predict("streamflow"),
        "soil moisture, predicted": basins.stefa.predict(
            "soil_moisture", model="soil-moisture-point"
        ),
    }
    return {k: v.transpose("basin", "time").reset_coords(drop=True) for k, v in found.items()}


def rank(series: np.ndarray, days: np.ndarray, day: np.datetime64) -> float:
    """Return the share of days of the season, of all years, that are below this or its eve."""
    two = np.fmax(series[1:], series[:-1])
    days, year = days[1:], pd.DatetimeIndex(days[1:]).dayofyear.values
    (at,) = np.flatnonzero(days == day)
    off = np.abs((year - year[at] + 182) % 365 - 182)
    others = (off <= SEASON) & (np.abs((days - day).astype(int)) > APART) & np.isfinite(two)
    if not others.any() or np.isnan(two[at]):
        return np.nan
    return float((two[others] < two[at]).mean() + 0.5 * (two[others] == two[at]).mean())


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(data: Path) -> None:
    """Rank the days, and print mean ranks with intervals over basins."""
    basins = xr.open_dataset(data / "camels_us.nc").sel(time=YEARS)
    pairs = events_near(xr.load_dataset(data / "world/landslide_glc_global.nc"), basins)
    places, which = np.unique(pairs.basin, return_inverse=True)
    basins = basins.isel(basin=places).load()
    print(f"{len(pairs)} days of slides at {len(places)} basins")
    days = basins.time.values.astype("M8[D]")
    found = measures(basins)
    ranks = pd.DataFrame(
        {
            name: [
                rank(values.values[i], days, np.datetime64(day, "D"))
                for i, day in zip(which, pairs.day, strict=True)
            ]
            for name, values in found.items()
        }
    )
    ranks["3 days and soil moisture"] = (
        ranks["rain of 3 days"] + ranks["soil moisture, predicted"]
    ) / 2
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(which == i) for i in range(len(places))]
    table = {}
    for name in ranks:
        values = ranks[name].values
        means = [
            np.nanmean(values[np.concatenate([members[i] for i in drawn])])
            for drawn in rng.integers(len(places), size=(DRAWS, len(places)))
        ]
        table[name] = {
            "mean rank": np.nanmean(values),
            "low": np.quantile(means, 0.05),
            "high": np.quantile(means, 0.95),
            "in the top 5 %": np.nanmean(values > 0.95),
            "days": np.isfinite(values).sum(),
        }
    print(pd.DataFrame(table).T.round(3).to_string())
    print(ranks.groupby(pairs.trigger.values).mean().round(2).T.to_string())
    print(pairs.trigger.value_counts().to_string())


if __name__ == "__main__":
    main()
