"""The look of all figures: colours and settings."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from xstefa.errors import need

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Dry sand to deep water. Lightness falls steadily from one end to the other, so the order of the
# colours survives a grey print and colour-blind eyes.
SOIL_MOISTURE_COLOURS = (
    "#f7ecd6",
    "#e6cf9f",
    "#c3bf85",
    "#86b096",
    "#4a97a5",
    "#29749f",
    "#1d4f87",
    "#152a58",
)
# Classes of drought monitors, D4 to D0, and the same of wetness.
PERCENTILE_BOUNDS = (0, 2, 5, 10, 20, 30, 70, 80, 90, 95, 98, 100)
PERCENTILE_COLOURS = (
    "#730000",
    "#d7191c",
    "#f58b28",
    "#fcd37f",
    "#fff7a8",
    "#fafafa",
    "#d3ebf5",
    "#9ecae1",
    "#5a9fd0",
    "#2a6cab",
    "#0b2f66",
)
INK = "#262626"
FAINT = "#8c8c8c"
LAND = "#ececec"
PREDICTED = "#d95f02"
OBSERVED = "#1b1b1b"
RAIN = "#5b8db8"


def pyplot() -> Any:
    """Return the module `matplotlib.pyplot`; MissingExtraError where there is none."""
    need("plot", "matplotlib", job="drawing")
    return importlib.import_module("matplotlib.pyplot")


def style() -> AbstractContextManager[None]:
    """Look of all figures."""
    found: AbstractContextManager[None] = pyplot().rc_context(
        {
            "font.size": 11,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.8,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "legend.frameon": False,
            "text.color": INK,
            "text.parse_math": False,  # names of sites may have dollars in them
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "figure.dpi": 150,
        }
    )
    return found


def sign(figure: Figure, text: str) -> Figure:
    """Write below a figure what it was made by."""
    height = 0.24 / figure.get_figheight()
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, height, 1, 1 - height))  # type: ignore[call-arg]
    made = figure.text(0.995, 0.25 * height, text, ha="right", va="bottom", fontsize=8, color=FAINT)
    made.set_parse_math(False)
    return figure


def plain_numbers(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis as they are."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(LogFormatter())
