"""
Where the water went
====================

The model ``water-balance`` has a hydrological model inside: rain becomes evapotranspiration, flow,
or is still there. Its parameters are set by the encoder; its balance closes.
"""

import matplotlib.pyplot as plt

import xstefa

ds = xstefa.open_sample("camels_us").sel(time=slice("1992-10-01", "1996-09-30"))
water = ds.stefa.predict(
    [
        "streamflow",
        "evapotranspiration",
        "snow_water_equivalent",
        "soil_water_storage",
        "groundwater_storage",
    ]
)
water

# %%
# Precipitation less what left is what the stores gained, at each basin and over any period.

period = slice("1993-10-01", "1996-09-30")
stores = water["snow_water_equivalent"] + water["soil_water_storage"] + water["groundwater_storage"]
rain = ds["prcp"].sel(time=period).sum("time")
left = (water["streamflow"] + water["evapotranspiration"]).sel(time=period).sum("time")
gained = stores.sel(time="1996-09-30").squeeze() - stores.sel(time="1993-09-30").squeeze()
print(f"largest gap of three years: {float(abs(rain - left - gained).max()):.3f} mm")

# %%
# A basin with snow: it waits in the snow all winter, and passes soil and groundwater in spring.

snowy = int(ds["frac_snow"].argmax())
site = water.isel(basin=snowy).sel(time=slice("1994-10-01", "1996-09-30"))
figure, axes = plt.subplots(3, figsize=(8, 6), sharex=True, layout="constrained")
ds["prcp"].isel(basin=snowy).sel(time=site["time"]).plot(
    ax=axes[0], color="tab:blue", linewidth=0.7
)
axes[0].set(ylabel="rain and snow\n[mm d-1]", title=str(ds["gauge_name"].values[snowy]))
axes[1].stackplot(
    site["time"],
    [site[name] for name in ("groundwater_storage", "soil_water_storage", "snow_water_equivalent")],
    labels=["groundwater", "soil", "snow"],
    colors=["#35618f", "#a8764a", "#c7dcef"],
)
axes[1].legend(loc="upper left", ncols=3, fontsize=8)
axes[1].set(ylabel="stored [mm]", title="", xlabel="")
axes[2].plot(site["time"], site["streamflow"], color="tab:blue", label="streamflow")
axes[2].plot(
    site["time"], site["evapotranspiration"], color="tab:green", label="evapotranspiration"
)
axes[2].legend(loc="upper left", ncols=2, fontsize=8)
_ = axes[2].set(ylabel="leaving\n[mm d-1]", title="")
