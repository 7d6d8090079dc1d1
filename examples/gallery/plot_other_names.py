"""
Files with their own names, units and calendar
==============================================

Nothing has to be renamed or converted. What is not clear is asked for, and what is wrong is said,
with what to do about it.
"""

import matplotlib.pyplot as plt
import xarray as xr

import xstefa

sample = xstefa.open_sample("camels_us").isel(basin=slice(0, 3), time=slice(0, 800)).load()

# %%
# A file as a climate model writes it: kelvin, kg m-2 s-1, CF standard names, stations last.

cmip = xr.Dataset(
    {
        "pr": (sample["prcp"] / 86400).assign_attrs(
            units="kg m-2 s-1", standard_name="precipitation_flux", cell_methods="time: mean"
        ),
        "tasmax": (sample["tmax"] + 273.15).assign_attrs(
            units="K", standard_name="air_temperature", cell_methods="time: maximum"
        ),
        "tasmin": (sample["tmin"] + 273.15).assign_attrs(
            units="K", standard_name="air_temperature", cell_methods="time: minimum"
        ),
        "orog": sample["elev_mean"].assign_attrs(units="m", standard_name="surface_altitude"),
    }
).transpose("time", "basin")
cmip.stefa

# %%
# Units that cannot be meant are an error, before anything is computed.

wrong = cmip.assign(tasmax=cmip["tasmax"].assign_attrs(units="degC"))
try:
    wrong.stefa.predict("streamflow")
except xstefa.XstefaError as error:
    print(type(error).__name__, error, sep="\n")

# %%
# The answer is that of the sample, where both know the same.

same = sample[["prcp", "tmax", "tmin", "elev_mean"]].stefa.predict("streamflow")
flow = cmip.stefa.predict("streamflow")
figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
axis.plot([0.01, 20], [0.01, 20], color="0.6", linewidth=0.8)
axis.plot(same.transpose(*flow.dims), flow, ".", markersize=3)
_ = axis.set(
    xscale="log",
    yscale="log",
    xlabel="from the sample [mm d-1]",
    ylabel="from the other file [mm d-1]",
)
