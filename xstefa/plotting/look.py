"""The look of all figures: colours and settings."""

from __future__ import annotations

from contextlib import AbstractContextManager

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
INK = "#262626"
FAINT = "#8c8c8c"
LAND = "#ececec"
PREDICTED = "#d95f02"
OBSERVED = "#1b1b1b"
RAIN = "#5b8db8"


def style() -> AbstractContextManager[None]:
    """Look of all figures."""
    import matplotlib.pyplot as plt

    return plt.rc_context(
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
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "figure.dpi": 150,
        }
    )
