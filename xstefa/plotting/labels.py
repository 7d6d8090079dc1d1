"""What stands on a figure in words: dates, units, names, numbers."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr


def day(time: xr.DataArray) -> str:
    """Date in words: 1 March 2012."""
    return f"{int(time.dt.day)} {time.dt.strftime('%B %Y').item()}"


def units(da: xr.DataArray) -> str:
    """Units as they are printed: m3 m-3 becomes m³ m⁻³."""
    text = str(da.attrs.get("units", ""))
    if text == "1":
        return ""
    text = re.sub(r"\bdegC\b", "°C", text)
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda power: power[0].translate(superscripts), text)


def label(da: xr.DataArray) -> str:
    """Name an axis: Streamflow (mm d⁻¹)."""
    name = sentence_case(str(da.name if da.name is not None else da.attrs.get("long_name", "")))
    return f"{name} ({units(da)})" if units(da) else name


def sentence_case(text: str) -> str:
    """Begin with a capital, words instead of underscores."""
    text = text.replace("_", " ")
    return text[:1].upper() + text[1:]


def number(value: float, form: str = ".2f") -> str:
    """Two decimals unless told otherwise, a real minus sign, a dash where there is no number."""
    return format(value, form).replace("-", "−") if np.isfinite(value) else "–"
