"""Figures of predictions: map sequences, hydrographs, series at a site.

Every function takes arrays with CF attributes, whatever their dimensions are called, and returns
the matplotlib figure. Matplotlib is imported when a figure is made.
"""

from xstefa.plotting.contributions import contributions
from xstefa.plotting.maps import soil_moisture_maps
from xstefa.plotting.sites import hydrograph, series

__all__ = ["contributions", "hydrograph", "series", "soil_moisture_maps"]
